"""Results: where they are stored and how they are shown."""
