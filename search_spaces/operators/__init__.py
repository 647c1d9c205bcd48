"""Single operators and small graphs of them, for those who have no search space."""
