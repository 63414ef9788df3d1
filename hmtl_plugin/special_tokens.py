"""Ids of the special tokens with which every fairseq dictionary begins."""

BOS, PAD, EOS = 0, 1, 2  # <s> <pad> </s>
