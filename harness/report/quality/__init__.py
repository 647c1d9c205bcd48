"""The page that `latlab quality --out` writes."""
