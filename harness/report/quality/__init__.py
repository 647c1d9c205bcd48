"""The HTML page that `latlab quality --out` writes."""
