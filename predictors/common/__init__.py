"""Arithmetic that predictors share."""
