"""Loading networks on the device, and taking samples of them."""
