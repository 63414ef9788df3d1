"""Moving in and out: Hugging Face's BERT folders and ONNX."""

from hmtl_plugin import compat  # noqa: F401  before fairseq itself
