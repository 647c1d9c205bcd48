"""Loads models on the device and takes samples of them."""
