"""GLUE: its tasks, files, data sets and metrics."""

from hmtl_plugin import compat  # noqa: F401  before fairseq itself
