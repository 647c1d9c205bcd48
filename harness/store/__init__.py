"""The store: one SQLite file with everything that was measured or imported."""
