"""Prediction of any model from whatever was measured on a target: operators, and networks of search spaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from latlab.harness.architectures import is_block_space, space_named
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.exporters import Artifact, ArtifactCache, ExportError, ExportRequest
from latlab.harness.exporters.service import Exports
from latlab.harness.models.kernels import kernels_of
from latlab.harness.store.comparable import comparable
from latlab.harness.store.store import Store
from latlab.harness.store.tables import LABELS
from latlab.harness.store.vocabulary import USER_MODEL_SPACE, Role, Status
from latlab.harness.targets import Target
from latlab.predictors.graph import CostPosterior, Work

__all__ = ["ModelPrediction", "cost_posterior", "predict_model"]

MOST_LABELS = 60
"""Most networks of one space that are read: the next ones say little more of a device's costs, and each file must be
there, or be exported again."""


@dataclass(frozen=True)
class ModelPrediction:
    """The predicted latency of a model on a target, and what it was learnt from."""

    model: str
    target: str
    latency_ms: float
    lower_ms: float
    upper_ms: float
    """The central 90 % interval of a new measurement."""
    shares: dict[str, float]
    """The share of each kind of kernel in the latency, largest first (`predictors.graph.KINDS`)."""
    unseen: tuple[str, ...]
    """Operators of kinds that no measured graph of the target has; what they cost is taken from all others."""
    macs: int
    """Multiply-accumulates of one inference."""
    labels: dict[str, int]
    """Number of measured graphs by search space."""
    simulated: bool = False

    @property
    def remark(self) -> str:
        """A sentence that names operators that were never measured on the target; empty if there are none."""
        if not self.unseen:
            return ""
        return (
            f"never measured on {self.target}: {', '.join(self.unseen)}; their cost is a guess from the other "
            "operators, and the interval is wider for it"
        )

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON types."""
        return {**vars(self), "unseen": list(self.unseen), "remark": self.remark}


def predict_model(store: Store, cache: ArtifactCache, target: Target, name: str, artifact: Artifact) -> ModelPrediction:
    """Return the predicted latency of a model's file on a target.

    Args:
        store: holds the measurements of the target.
        cache: of exported networks; files of measured networks that it lacks are exported again.
        target: the target.
        name: the model's name.
        artifact: its file in the target's format, with settled inputs.

    Raises:
        BadInputError: nothing that can be read was measured on the target, or the file's kernels are unknown.
    """
    work = work_of_artifact(artifact)
    posterior, labels, simulated = cost_posterior(store, cache, target)
    try:
        (found,) = posterior.predict([work])
    except ValueError as error:
        raise BadInputError(f"{name}: {error}") from error
    return ModelPrediction(
        model=name,
        target=str(target),
        latency_ms=found.latency_ms,
        lower_ms=found.lower_ms,
        upper_ms=found.upper_ms,
        shares=dict(found.shares),
        unseen=found.unseen,
        macs=work.macs,
        labels=labels,
        simulated=simulated,
    )


def work_of_artifact(artifact: Artifact) -> Work:
    """Return the kernels of an artifact's file."""
    inputs = artifact.inputs
    return kernels_of(artifact.path, inputs or (), None if inputs else artifact.input_shape or None)


def cost_posterior(store: Store, cache: ArtifactCache, target: Target) -> tuple[CostPosterior, dict[str, int], bool]:
    """Return a target's costs, the number of measured graphs they come from by space, and whether it is simulated.

    Raises:
        BadInputError: the store has no measurement of the target whose file can be read.
    """
    rows = store.table(target=str(target), only=(*LABELS, "artifact_sha256", "seed"))
    rows = rows[(rows["status"] == Status.OK) & (rows["role"] != Role.HOLDOUT)]
    works: list[Work] = []
    kept: list[pd.DataFrame] = []
    labels: dict[str, int] = {}
    for space, group in rows.groupby("space", sort=True):
        if is_block_space(str(space)) or space == USER_MODEL_SPACE:  # the store does not keep files
            continue
        alike = comparable(group)
        if len(alike) > MOST_LABELS:
            alike = alike.sample(MOST_LABELS, random_state=0)
        found = _files(cache, alike, target)
        readable = [at for at, artifact in enumerate(found) if artifact is not None]
        if readable:
            works += [work_of_artifact(artifact) for artifact in found if artifact is not None]
            kept.append(alike.iloc[readable])
            labels[str(space)] = len(readable)
    if not kept:
        raise BadInputError(
            f"the store {store.path} has no measurements of {target} that say what its operators cost",
            f"Measure some: latlab onboard {target} --space operators --budget 30",
        )
    table = pd.concat(kept)
    stderr = table["stderr_ms"].to_numpy(np.float64, na_value=0.0)
    posterior = CostPosterior(works, table["latency_ms"].to_numpy(np.float64), stderr)
    return posterior, labels, bool(table["simulated"].any())


def _files(cache: ArtifactCache, rows: pd.DataFrame, target: Target) -> Sequence[Artifact | None]:
    """Return the exported files of measured networks, exporting again what the cache has lost; None where that fails.

    Weights do not matter here: a file is taken whatever seed they come from.
    """
    requests = []
    for row in rows.to_dict("records"):
        if not space_named(row["space"]).buildable:
            return [None] * len(rows)
        way = (target.format, target.batch_size, target.precision, int(row["seed"]), bool(row["as_written"]))
        requests.append(ExportRequest(row["space"], row["arch"], *way))
    found: list[Artifact | None] = [cache.get(request) for request in requests]
    missing = [at for at, artifact in enumerate(found) if artifact is None]
    if missing:
        with Exports(cache) as exports:
            futures = {at: exports.submit(requests[at]) for at in missing}
            for at, future in futures.items():
                try:
                    found[at] = future.result()
                except (ExportError, LatlabError):
                    found[at] = None
    return found
