"""Criterions of the plugin; importing this registers them with fairseq."""

from hmtl_plugin import compat  # noqa: F401  before fairseq itself
from hmtl_plugin.criterions import hierarchical, sentence_score, span_qa  # noqa: F401
