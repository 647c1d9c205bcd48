"""One device: its session, its preconditions, its health and its status."""
