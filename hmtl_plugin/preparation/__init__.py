"""Text to files: documents of sentences gathered from what users have, a tokenizer, fairseq's binary files."""
