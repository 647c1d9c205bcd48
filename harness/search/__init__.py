"""Latency-constrained architecture search: the most accurate network that keeps a limit, in which devices have the last
word.

The way of the data: `accuracy` and a target's predictor score `candidates` (`scoring`), `evolution` looks through
spaces too large to list, and `rounds` measures the best of them, learns, and goes on until the answer stands
(`result`).
"""
