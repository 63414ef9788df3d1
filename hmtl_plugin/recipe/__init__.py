"""Default options of the recipes: one table for all sizes, and what a run that was begun with others goes on with."""

from hmtl_plugin import compat  # noqa: F401  before fairseq itself
