"""SQuAD: its files, windows, data set, decoding and scores."""

from hmtl_plugin import compat  # noqa: F401  before fairseq itself
