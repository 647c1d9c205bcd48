"""In-context prediction of latency: a transformer, trained on many devices, reads the measurements of a new one."""
