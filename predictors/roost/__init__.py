"""ROOST, Roofline-Synthesised Transfer: latlab's own predictor and its default. README.md derives the model."""

from latlab.predictors.roost.predictor import Roost

__all__ = ["Roost"]
