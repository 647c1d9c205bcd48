"""Synthetic devices, drawn from a roofline model, and the workloads that they measure."""
