"""Fine-tuning a pre-trained encoder on GLUE and SQuAD."""

from hmtl_plugin import compat  # noqa: F401  before fairseq itself
