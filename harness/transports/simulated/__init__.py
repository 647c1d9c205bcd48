"""A device that does not exist: latencies with known truth, and every way in which devices misbehave."""
