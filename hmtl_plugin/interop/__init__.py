"""Moving in and out: Hugging Face's BERT folders and ONNX."""
