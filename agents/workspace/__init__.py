"""The work folder on the device: its lease, pushed models, verified files, private environment."""
