"""Experiments of the papers that latlab started from, each a function from options to rows of a table."""
