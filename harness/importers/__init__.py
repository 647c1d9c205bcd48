"""Readers of published latency files, and of users' own tables."""
