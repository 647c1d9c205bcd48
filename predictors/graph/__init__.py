"""Predicts any graph of operators from what a device has shown of each kind of operator."""

from __future__ import annotations

from latlab.predictors.graph.kernel import KINDS, Kernel
from latlab.predictors.graph.posterior import CostPosterior, GraphPrediction
from latlab.predictors.graph.work import Work, work_of

__all__ = ["KINDS", "CostPosterior", "GraphPrediction", "Kernel", "Work", "work_of"]
