"""Facts and sensors of the machine that the worker runs on."""
