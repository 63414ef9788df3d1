"""SQuAD 1.1 and 2.0: files, windows, decoding, scoring, runs and predictions."""
