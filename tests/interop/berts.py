"""Random BERTs as transformers saves them, and batches of tokens."""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from tests.tokenizers.test_wordpiece import VOCABULARY, vocabulary_file


def save_bert(
    folder: Path,
    model_class: str = "BertForPreTraining",
    vocabulary: list[str] = VOCABULARY,
    pickled: bool = False,
    **config: Any,
) -> Any:
    """A random model and its vocabulary in ``folder``; returns it, in evaluation mode."""
    settings = {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
        **config,
    }
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(transformers.BertConfig(**settings)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # no zero biases, no layer norms that do nothing
            parameter.add_(torch.randn_like(parameter) * (0.1 if "LayerNorm" in name or "bias" in name else 0.02))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    if pickled:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    vocabulary_file(folder, vocabulary, do_lower_case=True)
    return model


def batch(
    vocabulary: int, their_id_V: list[int], lengths: tuple[tuple[int, int], ...] = ((5, 4), (9, 7), (3, 0), (1, 2))
) -> dict[str, Tensor]:
    """Padded pairs of mixed lengths, in our ids and in theirs.

    Returns:
        ours (B, T); input_ids, token_type_ids, attention_mask (B, T) as transformers takes them.
    """
    generator = torch.Generator().manual_seed(1)
    rows = []
    for first, second in lengths:
        draw = torch.randint(5, vocabulary, (first + second,), generator=generator).tolist()
        row = [0, *draw[:first], 2] + ([*draw[first:], 2] if second else [])
        rows.append(row)
    width = max(map(len, rows))
    ours = torch.tensor([row + [1] * (width - len(row)) for row in rows])
    order = torch.tensor(their_id_V)
    ends = ours.eq(2).long()
    return {
        "ours": ours,
        "input_ids": order[ours],
        "token_type_ids": (ends.cumsum(1) - ends).clamp(max=1) * ours.ne(1),
        "attention_mask": ours.ne(1).long(),
    }
