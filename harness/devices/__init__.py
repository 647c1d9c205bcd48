"""One device at a time: its session, its preconditions, its health checks and its status."""
