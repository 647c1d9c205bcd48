"""One measurement session on one device: the schedule of passes, anchors and drift correction."""
