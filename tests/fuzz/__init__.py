"""Fuzzers for everything that latlab reads and did not write. `cases.FUZZERS` lists them.

`test_fuzz.py` runs some cases of each, always the same ones; `benchmarks/fuzz.py` runs as many as one likes.
"""
