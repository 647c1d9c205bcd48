"""All drawing on a terminal, with rich."""
