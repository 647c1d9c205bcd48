"""The wire between controller and worker: messages, failures, and what a pass is asked to be."""
