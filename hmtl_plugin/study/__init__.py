"""The study: variants times seeds, from the tasks' own text to pre-training, fine-tuning, probing and records of it
all.
"""
