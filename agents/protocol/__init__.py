"""The protocol between controller and worker: messages, kinds of failure, and the requests to load and to time."""
