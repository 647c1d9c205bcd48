"""The one typed view of what devices tell: readings, energy, metrics."""
