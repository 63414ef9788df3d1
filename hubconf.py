"""``torch.hub.load(repository, "hmtl_bert", "runs/books", source="local")``."""

from typing import Any

dependencies = ["torch", "fairseq", "sentencepiece", "numpy", "omegaconf"]


def hmtl_bert(checkpoint: str, **kwargs: Any) -> Any:
    """The hub interface over a checkpoint file or folder; see `hmtl_plugin.HierarchicalBert.from_pretrained`."""
    from hmtl_plugin import HierarchicalBert

    return HierarchicalBert.from_pretrained(checkpoint, **kwargs)
