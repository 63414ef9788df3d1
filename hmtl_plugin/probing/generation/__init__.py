"""Probing sets in SentEval's layout, made from the user's own text: nothing has to be downloaded."""
