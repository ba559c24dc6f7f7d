"""The commands that any engine can serve."""
