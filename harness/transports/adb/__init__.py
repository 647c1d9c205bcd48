"""Devices that are reached over ADB."""
