"""The HTML page that `latlab profile --out` writes."""
