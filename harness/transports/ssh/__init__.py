"""Devices that are reached over SSH."""
