"""What objectives corrupt: a flat batch of token ids, and the counter-based draws they do it with."""
