"""Prediction of any model from whatever was measured on a target: operators, networks, blocks, models of one's own."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from latlab.harness.active_learning.learnt_costs import LearntCosts, MeasuredFile, kept_kernels
from latlab.harness.active_learning.target_labels import named_for
from latlab.harness.errors import BadInputError
from latlab.harness.exporters import Artifact, ArtifactCache
from latlab.harness.models.kernels_apart import READING_S, kernels_apart
from latlab.predictors.graph import Work, interval_of_label

__all__ = ["ModelPrediction", "predict_model", "work_of_artifact"]


@dataclass(frozen=True)
class ModelPrediction:
    """The predicted latency of a model on a target, or another metric of it, and what it was learnt from."""

    model: str
    target: str
    metric: str
    """What is predicted; `latency_ms`, `lower_ms` and `upper_ms` are in its unit."""
    latency_ms: float
    """The prediction; of a model that was itself measured, its label."""
    lower_ms: float
    upper_ms: float
    """The central 90 % interval of a new measurement."""
    measured: int
    """Number of labels of this very model on the target; 0 if it was not measured."""
    predicted_ms: float
    """What its kernels say, whether it was measured or not."""
    shares: dict[str, float]
    """The share of each kind of kernel in the latency, largest first (`predictors.graph.KINDS`)."""
    unseen: tuple[str, ...]
    """Operators of kinds that no measured graph of the target has; what they cost is taken from all others."""
    macs: int
    """Multiply-accumulates of one inference."""
    labels: dict[str, int]
    """Number of measured graphs by search space; the user's own models are under `model`."""
    remarks: tuple[str, ...] = ()
    """What has to be said about the prediction."""
    simulated: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON types; for another metric than the latency they are named after its unit."""
        new = {**named_for(self.metric), "predicted_ms": f"predicted_{self.metric.rpartition('_')[2]}"}
        values = {**vars(self), "unseen": list(self.unseen), "remarks": list(self.remarks)}
        return {new.get(name, name): value for name, value in values.items()}


def predict_model(costs: LearntCosts, name: str, artifact: Artifact, cache: ArtifactCache) -> ModelPrediction:
    """Return the predicted latency of a model's file on a target.

    Args:
        costs: what the target's operators cost.
        name: the model's name.
        artifact: its file in the target's format, with settled inputs.
        cache: the folder beside whose files kernels are kept.

    Raises:
        BadInputError: the file's kernels are unknown, or it has none.
    """
    work = work_of_artifact(artifact, cache)
    label = costs.measured(artifact.sha256, work, name)
    try:
        found = costs.predict(work)
    except ValueError as error:
        raise BadInputError(f"{name}: {error}") from error
    values = found.latency_ms, found.lower_ms, found.upper_ms
    if label is not None:
        values = (label.value, *interval_of_label(label.value, label.stderr))
    if not all(map(math.isfinite, values)):
        raise BadInputError(f"{name} is too large to be predicted: its operators have numbers without meaning")
    return ModelPrediction(
        model=name,
        target=str(costs.target),
        metric=costs.metric,
        latency_ms=values[0],
        lower_ms=values[1],
        upper_ms=values[2],
        measured=label.labels if label else 0,
        predicted_ms=found.latency_ms,
        shares=dict(found.shares),
        unseen=() if label else found.unseen,
        macs=work.macs,
        labels=dict(costs.labels),
        remarks=_remarks(costs, found.unseen, label),
        simulated=costs.simulated,
    )


def _remarks(costs: LearntCosts, unseen: tuple[str, ...], label: MeasuredFile | None) -> tuple[str, ...]:
    found = []
    if label is not None:
        times = "once" if label.labels == 1 else f"{label.labels} times"
        found.append(f"this model was measured on {costs.target} {times}: this is its label, not a prediction")
    elif unseen:
        found.append(
            f"never measured on {costs.target}: {', '.join(unseen)}; their cost is a guess from the other operators, "
            "and the interval is wider for it"
        )
    if costs.unread:
        found.append(
            f"{costs.unread} measured models of your own do not count, because an earlier latlab did not keep what "
            "they execute: measure them again (--new-session)"
        )
    return tuple(found)


def work_of_artifact(artifact: Artifact, cache: ArtifactCache, most_s: float = READING_S) -> Work:
    """Return the kernels of a model's file, which are read once.

    Args:
        artifact: the file.
        cache: the cache in whose folder kernels are kept.
        most_s: longest time in seconds that it is read.

    Raises:
        BadInputError: they cannot be read.
    """
    kept = kept_kernels(cache)
    identity = (artifact.sha256, artifact.input_shape, [asdict(one) for one in artifact.inputs])
    work = kept.get(*identity)
    if work is None:
        inputs = artifact.inputs
        work = kernels_apart(artifact.path, inputs or (), None if inputs else artifact.input_shape or None, most_s)
        if work.kernels:
            kept.keep(work, *identity)
    return work
