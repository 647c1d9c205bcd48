"""Base classes that several predictors share."""
