"""Encodings of architectures: computed in several processes, and read from tables of others."""
