"""The HTML page that `latlab sustain --out` writes."""
