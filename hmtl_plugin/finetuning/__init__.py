"""Fine-tuning a pre-trained encoder on GLUE and SQuAD."""
