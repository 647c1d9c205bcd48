"""The implementation of `latlab setup`, which installs runtimes on a device that has neither pip nor internet."""
