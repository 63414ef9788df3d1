"""The report of a study, made of its records alone."""
