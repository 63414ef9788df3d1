"""The probing report: summary of the result lines, plots, HTML."""
