"""The closed loop: choose a network, measure it, fit the predictor, predict the space."""
