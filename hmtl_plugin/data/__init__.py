"""Files to batches: binarised text, pairs of sentences, batches of samples."""

from hmtl_plugin import compat  # noqa: F401  before fairseq itself
