"""The command line: words become calls of `Lab`."""
