"""Held-out values of pre-training objectives, with intervals and baselines."""

from hmtl_plugin import compat  # noqa: F401  before fairseq itself
