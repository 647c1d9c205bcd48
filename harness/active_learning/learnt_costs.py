"""What the operators of a target cost, learnt from all that was measured there: networks, blocks, own models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from latlab.harness.active_learning.session_spread import ComparedSessions
from latlab.harness.active_learning.source_devices import ALL, wanted_names
from latlab.harness.active_learning.target_labels import LATENCY, target_labels
from latlab.harness.architectures import space_named
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.exporters import Artifact, ArtifactCache, ExportError, ExportRequest
from latlab.harness.exporters.service import Exports
from latlab.harness.models.kept_kernels import KeptKernels
from latlab.harness.models.kernels import kernels_of
from latlab.harness.store.comparable import comparable
from latlab.harness.store.store import Store
from latlab.harness.store.vocabulary import USER_MODEL_SPACE, Role
from latlab.harness.targets import Target
from latlab.predictors.graph import CostPosterior, GraphPrediction, Work

__all__ = ["LearntCosts", "MeasuredFile", "kept_kernels", "learn_costs"]

MOST_LABELS = 60
"""Most networks of one space that are read: the next ones say little more of a device's costs, and each file must be
there, or be exported again."""
MOST_MODELS = 240
"""Most of the user's own models: the newest ones."""


class MeasuredFile(NamedTuple):
    """A file that was measured, and the mean of its labels."""

    sha256: str
    value: float
    stderr: float
    """Its standard error; 0 where it is not known."""
    labels: int
    work: Work | None
    """The kernels of a model of one's own, which its shapes decide; None where the file alone decides them."""
    name: str


@dataclass(frozen=True)
class LearntCosts:
    """The costs of a target, and the labels that they come from."""

    target: Target
    metric: str
    posterior: CostPosterior
    scale: float
    """What predictions of the posterior are multiplied by."""
    labels: Mapping[str, int]
    """Number of measured graphs by search space; those of the user's own models under `model`."""
    files: Sequence[MeasuredFile]
    """All that were measured."""
    unread: int
    """Number of the user's own models that were measured by a latlab that did not keep their kernels."""
    simulated: bool

    def predict(self, work: Work) -> GraphPrediction:
        """Return the prediction for a graph. Raises `ValueError` if it has no kernel."""
        (found,) = self.posterior.predict([work])
        value, low, high = (self.scale * one for one in (found.latency_ms, found.lower_ms, found.upper_ms))
        return GraphPrediction(value, low, high, found.shares, found.unseen)

    def measured(self, sha256: str, work: Work, name: str) -> MeasuredFile | None:
        """Return the label of a file with these kernels; None if it has none.

        Args:
            sha256: the file's hash.
            work: its kernels.
            name: the model's name with its shapes, for files whose kernels were not kept.
        """
        for one in self.files:
            if one.sha256 == sha256 and (one.work == work or (one.work is None and one.name in (name, ""))):
                return one
        return None


def kept_kernels(cache: ArtifactCache) -> KeptKernels:
    """Return the kernels of files that were read before, which are kept beside a cache's files."""
    return KeptKernels(cache.folder / "kernels")


def learn_costs(
    store: Store, cache: ArtifactCache, target: Target, which: str | Sequence[str] = ALL, metric: str = LATENCY
) -> LearntCosts:
    """Return a target's costs.

    Args:
        store: holds the measurements of the target.
        cache: of exported networks; files of measured networks that it lacks are exported again.
        target: the target.
        which: search spaces whose labels are learnt from: `all`, `none`, or names.
        metric: what the labels are.

    Raises:
        BadInputError: the store has no measurement of the target whose file can be read, or not that metric, or no
            labels in a space that is named.
    """
    every = target_labels(store, str(target), metric, ("artifact_sha256", "seed", "id"))
    # What the labels of a session have in common is taken out, but a measured file is answered with its label as it is.
    level = ComparedSessions(store, str(target), every).on_one_level(every) if metric == LATENCY else every
    rows = level[(level["space"] != USER_MODEL_SPACE) & (level["role"] != Role.HOLDOUT)]
    spaces = [name for name in sorted(rows["space"].unique()) if _is_installed(name)]
    wanted = wanted_names(which, "search spaces", "--spaces-from")
    for name in sorted(wanted or ()):
        if name not in spaces:
            raise BadInputError(
                f"the store {store.path} has no labels of {target} in a space {name}",
                f"It has: {', '.join(spaces) or 'none'}.",
            )
    works: list[Work] = []
    parts: list[pd.DataFrame] = []
    labels: dict[str, int] = {}
    for space in spaces if wanted is None else sorted(wanted):
        alike = comparable(rows[rows["space"] == space])
        if len(alike) > MOST_LABELS:
            alike = alike.sample(MOST_LABELS, random_state=0)
        found = _kernels(cache, alike, target)
        readable = [at for at, work in enumerate(found) if work is not None and work.kernels]
        if readable:
            works += [work for work in found if work is not None and work.kernels]
            parts.append(alike.iloc[readable])
            labels[space] = len(readable)
    models = _models(store, level[level["space"] == USER_MODEL_SPACE])
    known = [one for one in models if one.work is not None and one.work.kernels][-MOST_MODELS:]
    if known:
        works += [one.work for one in known if one.work is not None]
        parts.append(
            pd.DataFrame({"latency_ms": [one.value for one in known], "stderr_ms": [one.stderr for one in known]})
        )
        labels[USER_MODEL_SPACE] = len(known)
    if not works:
        raise BadInputError(
            f"the store {store.path} has no measurements of {target} that say what its operators cost",
            f"Measure some: latlab onboard {target} --space operators --budget 30",
        )
    table = pd.concat(parts)
    value, stderr = (table[name].to_numpy(np.float64, na_value=0.0) for name in ("latency_ms", "stderr_ms"))
    scale = 1.0 if metric == LATENCY else _scale(works, value)
    return LearntCosts(
        target=target,
        metric=metric,
        posterior=CostPosterior(works, value / scale, stderr / scale),
        scale=scale,
        labels=labels,
        files=(*_models(store, every[every["space"] == USER_MODEL_SPACE]), *_networks(every, target)),
        unread=sum(one.work is None for one in models),
        simulated=bool(every["simulated"].any()),
    )


def _is_installed(space: str) -> bool:
    try:
        space_named(space)
    except BadInputError:
        return False
    return True


def _scale(works: Sequence[Work], values: np.ndarray) -> float:
    """Return the unit in which a metric is as large as a generic core's milliseconds, of which the prior is."""
    usual = [one.latency_ms for one in CostPosterior([], []).predict(works)]
    return float(np.exp(np.median(np.log(values) - np.log(usual))))


def _kernels(cache: ArtifactCache, rows: pd.DataFrame, target: Target) -> list[Work | None]:
    """Return the kernels of measured networks, exporting again what the cache has lost; None where that fails.

    Weights do not matter here: a file is taken whatever seed they come from.
    """
    requests = []
    for row in rows.to_dict("records"):
        if not space_named(row["space"]).buildable:
            return [None] * len(rows)
        way = (target.format, target.batch_size, target.precision, int(row["seed"]), bool(row["as_written"]))
        requests.append(ExportRequest(row["space"], row["arch"], *way))
    kept = kept_kernels(cache)
    keys = [cache.key(request) for request in requests]
    found = [kept.get(key) for key in keys]
    missing = [at for at, work in enumerate(found) if work is None]
    for at, artifact in zip(missing, _exported(cache, [requests[at] for at in missing]), strict=True):
        with suppress(BadInputError):  # then one network less is learnt from
            if artifact is not None:
                work = kernels_of(artifact.path, (), artifact.input_shape or None)
                kept.keep(work, keys[at])
                found[at] = work
    return found


def _exported(cache: ArtifactCache, requests: Sequence[ExportRequest]) -> list[Artifact | None]:
    found = [cache.get(request) for request in requests]
    missing = [at for at, artifact in enumerate(found) if artifact is None]
    if missing:
        with Exports(cache) as exports:
            futures = {at: exports.submit(requests[at]) for at in missing}
            for at, future in futures.items():
                with suppress(ExportError, LatlabError):
                    found[at] = future.result()
    return found


def _models(store: Store, rows: pd.DataFrame) -> list[MeasuredFile]:
    """Return the user's own models that were measured, one for each file and its shapes, the newest last.

    Args:
        rows: their labels, of one target.
    """
    if rows.empty:
        return []
    artifacts = store.table(target=rows["target"].iloc[0], space=USER_MODEL_SPACE, only=("id", "artifact"))
    kernels = {row: _text_of_kernels(text) for row, text in zip(artifacts["id"], artifacts["artifact"], strict=True)}
    texts = rows["id"].map(kernels).fillna("")
    found: dict[tuple[str, str], MeasuredFile] = {}
    for key, group in rows.groupby([rows["artifact_sha256"], rows["arch"], texts], sort=False):
        sha256, name, text = map(str, key)
        work = None
        if text:
            with suppress(ValueError):
                work = Work.from_json(json.loads(text))
        found[sha256, text or name] = _mean(group, sha256, work, name)
    return list(found.values())


def _text_of_kernels(artifact: object) -> str:
    try:
        table = json.loads(artifact) if isinstance(artifact, str) else artifact
        return json.dumps(table["kernels"]) if table["kernels"] else ""  # type: ignore[index]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def _networks(rows: pd.DataFrame, target: Target) -> list[MeasuredFile]:
    """Return the networks of spaces that were measured, one for each file.

    A TorchScript file does not say the shapes of its inputs, so that it would not say which label is meant.
    """
    if target.format == "torchscript":
        return []
    rows = rows[rows["space"] != USER_MODEL_SPACE]
    groups = rows.groupby("artifact_sha256", sort=False)
    return [_mean(group, str(sha256), None, "") for sha256, group in groups]


def _mean(rows: pd.DataFrame, sha256: str, work: Work | None, name: str) -> MeasuredFile:
    values = rows["latency_ms"].to_numpy(np.float64)
    stderr = rows["stderr_ms"].to_numpy(np.float64, na_value=0.0)
    own = float(np.sqrt(np.square(np.nan_to_num(stderr)).sum()) / len(values))
    between = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    return MeasuredFile(sha256, float(values.mean()), max(own, between), len(values), work, name)
