"""The file `inventory.yaml`: the user's devices and timing policies."""
