"""The page that `latlab sustain --out` writes."""
