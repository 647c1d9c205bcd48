"""Phones without Python, timed with TFLite's `benchmark_model`."""
