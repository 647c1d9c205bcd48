"""Synthetic devices, drawn from a roofline model."""
