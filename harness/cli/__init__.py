"""The command line, which turns words into calls of `Lab`."""
