"""Reads latency files that others published, and tables of the user's own."""
