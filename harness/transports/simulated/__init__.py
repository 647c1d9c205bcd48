"""Simulated devices: latencies whose true values are known, and every way in which devices misbehave."""
