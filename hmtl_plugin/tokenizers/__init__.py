"""Text to dictionary ids and back: sentencepiece and WordPiece behind one interface."""

from hmtl_plugin import compat  # noqa: F401  before fairseq itself
