"""A user's own models: what a file says, how its inputs are filled, and how it becomes an artifact."""
