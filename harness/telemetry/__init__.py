"""The one typed view of what devices report: readings, recorded passes, energy, metrics."""
