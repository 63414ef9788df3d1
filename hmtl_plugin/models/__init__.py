"""The model ``hmtl_bert`` and its parts; importing this registers it with fairseq."""

from hmtl_plugin import compat  # noqa: F401  before fairseq itself
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertConfig, HierarchicalBertModel

__all__ = ["HierarchicalBertConfig", "HierarchicalBertModel"]
