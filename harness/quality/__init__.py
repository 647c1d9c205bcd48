"""Quality of labels: how far they can be trusted, and whether they are fit for training."""
