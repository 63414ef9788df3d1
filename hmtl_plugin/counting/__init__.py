"""What counting the training text reaches: baselines that need no optimisation of an encoder."""

from hmtl_plugin import compat  # noqa: F401  before fairseq itself
