"""`latlab compare`: which of two networks, or of two targets, is faster, and by how much; nothing here draws."""
