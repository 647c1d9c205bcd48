"""Predicts any graph of operators from what a device has shown of each kind of operator."""

from __future__ import annotations

from latlab.predictors.graph.kernel import KINDS, Kernel, convolution_kind
from latlab.predictors.graph.posterior import CostPosterior, GraphPrediction, interval_of_label
from latlab.predictors.graph.work import Work, work_of

__all__ = [
    "KINDS",
    "CostPosterior",
    "GraphPrediction",
    "Kernel",
    "Work",
    "convolution_kind",
    "interval_of_label",
    "work_of",
]
