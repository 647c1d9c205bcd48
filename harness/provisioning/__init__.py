"""`latlab setup`: installs runtimes on a device that has neither pip nor internet."""
