"""Default options of the recipes: one table for all sizes, and what a run that was begun with others goes on with."""
