"""A measurement session on one device: the schedule of passes, anchors, drift correction and replication."""
