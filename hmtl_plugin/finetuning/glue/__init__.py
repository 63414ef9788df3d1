"""GLUE: the table of tasks, its files, batches, metrics, runs and predictions."""
