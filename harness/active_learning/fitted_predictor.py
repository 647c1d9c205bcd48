"""A predictor to hold in one's hand: fitted to one target and one space, asked for latencies, saved and loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from latlab.harness.active_learning.card_files import card_from, check_kinds, known_fields, read_card
from latlab.harness.active_learning.latency_table import (
    MeasuredLatency,
    latency_table,
    whole_space,
    with_measured,
)
from latlab.harness.active_learning.network_view import NetworkView
from latlab.harness.active_learning.predictor_factory import PredictorOptions
from latlab.harness.active_learning.target_labels import LATENCY, PREDICTED, named_for
from latlab.harness.architectures import space_named
from latlab.harness.errors import BadInputError
from latlab.harness.paths import whole_file, whole_folder
from latlab.harness.targets import Target
from latlab.harness.text import clean, other_spaces_in_words
from latlab.predictors import (
    IntArray,
    LatencyFormula,
    Prediction,
    Predictor,
    SourceDevice,
    UnknownPredictorError,
    predictor_class,
)
from latlab.search_spaces import Architecture, ArchitectureError, SearchSpace

__all__ = ["Archs", "FittedPredictor", "PredictorCard", "card_of", "load_predictor"]

Archs = str | Architecture | Sequence[str | Architecture] | Sequence[int] | Sequence[Sequence[int]] | IntArray
"""One network or many: canonical strings, `Architecture` values, or genes as integers."""

CARD, README = "card.json", "README.md"
FORMAT = 1
"""Version of the card's form."""


@dataclass(frozen=True)
class PredictorCard:
    """What a fitted predictor says about itself, wherever its folder goes."""

    target: str
    """The full target, e.g. `pi4/tflite/cpu/fp32/t4/b1`."""
    space: str
    precision: str
    predictor: str
    labels: int
    """Number of measurements that it was fitted to."""
    as_written: bool
    """Whether networks were exported as published, with their dead edges."""
    simulated: bool = False
    seed: int = 0
    metric: str = LATENCY
    """What it predicts; fields and columns of predictions that are named after milliseconds are in its unit then."""
    device: Mapping[str, str] = field(default_factory=dict)
    """The device and its runtime, in words."""
    sources: Sequence[Mapping[str, Any]] = ()
    """The devices that it was pre-trained on: `name` and `architectures`, their number."""
    sources_sha256: str = ""
    """A SHA-256 over all labels of the sources."""
    other_spaces: Mapping[str, int] = field(default_factory=dict)
    """Number of the target's labels in other spaces that it uses, by the space's name."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """How it was judged, with units in the names; empty if it was not."""
    options: Mapping[str, float] = field(default_factory=dict)
    """Hardware facts that it was given."""
    session_variance: float = 0.0
    """Variance of log-latencies that a new measurement session adds to the predictor's own (`session_spread`)."""
    latlab: str = field(default_factory=lambda: version("latlab"))
    """The version of latlab that has fitted it."""
    fitted_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def to_json(self) -> dict[str, Any]:
        """Return the card as JSON values."""
        return {"format": FORMAT, **asdict(self), "sources": [dict(one) for one in self.sources]}

    @classmethod
    def from_json(cls, values: object) -> PredictorCard:
        """Return the card that `to_json` made.

        Raises:
            ValueError: it is none, or of a newer latlab.
        """
        kinds = {
            "labels": int,
            "session_variance": float,
            "seed": int,
            "as_written": bool,
            "simulated": bool,
            "sources": list,
        }
        kinds |= dict.fromkeys(("device", "scores", "options", "other_spaces"), dict)
        known = known_fields(cls, values, FORMAT, kinds)
        if known.get("labels", 0) < 0:
            raise ValueError("the number of its labels is negative")
        if not 0 <= known.get("session_variance", 0.0) < math.inf:
            raise ValueError(f"its session_variance is {known['session_variance']}")
        for name in ("scores", "options"):
            check_kinds(known, name, int, float)
        check_kinds(known, "other_spaces", int)
        wrong = [one for one in known.get("other_spaces", {}).values() if one < 0]
        if wrong:
            raise ValueError(f"its other_spaces hold {wrong[0]!r:.40}")
        if known.get("metric", LATENCY) not in PREDICTED:
            raise ValueError(f"its metric is {known['metric']!r:.40}")
        return card_from(cls, known)


def card_of(
    target: str,
    predictor: Predictor,
    *,
    labels: int,
    as_written: bool,
    sources: Sequence[SourceDevice],
    facts: Mapping[str, Any],
    options: PredictorOptions,
    seed: int,
    session_variance: float,
    scores: Mapping[str, float | None] = {},
    metric: str = LATENCY,
) -> PredictorCard:
    """Return the card of a predictor.

    Args:
        labels: number of labels that it is fitted to.
        as_written: whether their networks were exported as published.
        sources: what it was pre-trained on.
        facts: the device's facts, as it reported them.
        session_variance: variance of log-latencies that a new session adds.
        scores: how it was judged; those that are None or not finite are left out.
        metric: what its labels are.
    """
    cpus = facts.get("cpus") or {}
    runtime = target.split("/")[1] if "/" in target else ""
    runtime_version = ((facts.get("runtimes") or {}).get(runtime) or {}).get("version")
    device = {
        "processor": cpus.get("model"),
        "cores": cpus.get("count"),
        "system": facts.get("platform"),
        "runtime": f"{runtime} {runtime_version}" if runtime_version else None,
    }
    origin = options.origin(sources)
    return PredictorCard(
        target=target,
        space=predictor.space.name,
        precision=Target.parse(target).precision if "/" in target else "",
        predictor=predictor.name,
        labels=labels,
        as_written=as_written,
        simulated=bool(facts.get("simulated")),
        seed=seed,
        device={name: clean(str(value)) for name, value in device.items() if value},
        sources=origin["sources"],
        sources_sha256=origin["sha256"],
        other_spaces=dict(predictor.other_spaces),
        scores={name: float(value) for name, value in scores.items() if value is not None and math.isfinite(value)},
        options=dict(options.facts),
        metric=metric,
        session_variance=session_variance,
    )


class FittedPredictor:
    """A predictor that is fitted to the labels of one target in one space. It does not change any more.

    >>> predictor = lab.predictor("local", space="nasbench201")  # doctest: +SKIP
    >>> predictor(["|none~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|"])  # doctest: +SKIP
    array([0.84])

    Args:
        predictor: fitted, and used by nothing else any more.
        card: what it says about itself.
        measured: the labels of the target, by canonical string, for tables; None if they are not known, as of a
            predictor that was loaded.
    """

    def __init__(
        self, predictor: Predictor, card: PredictorCard, measured: Mapping[str, MeasuredLatency] | None = None
    ) -> None:
        self.card = card
        self.remarks: tuple[str, ...] = predictor.remarks()
        """What has to be said about its labels: by the predictor, and, if it was not loaded, by where they come from
        (`remarks.label_remarks`)."""
        self.space: SearchSpace = predictor.space
        self._predictor = predictor
        self._measured = measured
        self.view = NetworkView(predictor, card.as_written)
        """Returns an architecture in the form that the predictor sees."""

    def __repr__(self) -> str:
        card = self.card
        return clean(f"<{card.predictor} for {card.space} on {card.target}, {card.labels} labels>")

    def __call__(self, archs: Archs) -> Any:
        """Return the latencies in ms: an array of shape (n,), or a number for one network.

        Args:
            archs: networks of the space: canonical strings, `Architecture` values, or genes: an integer array of shape
                (n, genes), which is the fastest, or (genes,) for one network.

        Raises:
            BadInputError: if one of them is no network of the space.
        """
        return self.predict(archs).mean_ms

    def predict(self, archs: Archs) -> Prediction:
        """Return latencies with standard deviations and 90 % intervals, for a new measurement in another session.

        For another metric than the latency (`PredictorCard.metric`) they are in its unit.

        Args:
            archs: as for a call.

        Returns:
            Arrays of shape (n,), or numbers for one network.

        Raises:
            BadInputError: if one of them is no network of the space.
        """
        genes, one = self._genes(archs)
        found = self._predictor.predict(self.view.genes(genes)).widened(self.card.session_variance)
        if not one:
            return found
        return Prediction(found.mean_ms[0], found.std_ms[0], found.lower_ms[0], found.upper_ms[0])

    def formula(self) -> LatencyFormula | None:
        """Return the predictor as a formula of `SearchSpace.features` of canonical genes; None if it is none."""
        found = self._predictor.formula()
        if found is None:
            return None
        return replace(found, noise=found.noise + self.card.session_variance / found.calibration)

    def to_onnx(self, path: str | Path) -> None:
        """Write the predictor as an ONNX file (`onnx_formula` says what it takes and gives).

        Raises:
            BadInputError: if the predictor is no formula, or the file cannot be written.
        """
        from latlab.harness.active_learning.onnx_formula import onnx_formula  # onnx is heavy

        formula = self.formula()
        if formula is None:
            raise BadInputError(
                f"the predictor {self.card.predictor} is no formula, so it cannot become an ONNX file",
                "roost is one: --predictor roost.",
            )
        if self.card.metric != LATENCY:
            raise BadInputError(
                f"only predictors of latency become ONNX files, and this one predicts {self.card.metric}",
                "Leave out --metric.",
            )
        content = onnx_formula(formula, self.card.to_json())
        with whole_file(path) as part:
            part.write_bytes(content)

    def table(self, archs: Archs | None = None) -> pd.DataFrame:
        """Return predictions as a table (`latency_table.COLUMNS`), a row for each network.

        For another metric than the latency, columns have its name and its unit: `energy_mj`, `lower_mj`.
        A predictor that was loaded does not know what was measured: it leaves out the columns about that.

        Args:
            archs: as for a call; None for the whole space, or for a large sample of a space too large to list, and
                every measured network.

        Raises:
            BadInputError: if one of them is no network of the space.
        """
        known = self._measured or {}
        if archs is None:
            values = with_measured(self.space, whole_space(self.space), known)
        else:
            values = self.space.architectures(self._genes(archs)[0])
        table = latency_table(values, self.predict(self.space.genes(values)), known)
        if self._measured is None:
            table = table.drop(columns=["measured", "measured_ms", "stderr_ms"])
        return table.rename(columns=named_for(self.card.metric))

    def _genes(self, archs: Any) -> tuple[IntArray, bool]:
        """Return the genes of networks, of shape (n, genes), and whether it was one network by itself."""
        if isinstance(archs, (str, Architecture)):
            return self.space.genes([self._architecture(archs)]), True
        if isinstance(archs, (pd.DataFrame, Mapping)):
            raise BadInputError(
                "a table is no list of networks",
                'Give its column of canonical strings (table["arch"]), or their genes.',
            )
        if isinstance(archs, np.ndarray) and archs.dtype.kind in "OUT":
            archs = archs.tolist()
        if isinstance(archs, Iterable) and not isinstance(archs, np.ndarray):
            archs = list(archs)
            if archs and isinstance(archs[0], (str, Architecture)):
                return self.space.genes(self._architectures(archs)), False
            if not archs:
                return np.empty((0, self.space.num_genes), np.int64), False
        genes = np.asarray(archs)
        one = genes.ndim == 1
        if genes.dtype.kind not in "iu" or genes.ndim not in (1, 2) or genes.shape[-1] != self.space.num_genes:
            raise BadInputError(
                f"an array of shape {genes.shape} and type {genes.dtype} is not genes of {self.space.name}",
                f"Give whole numbers of shape (n, {self.space.num_genes}), canonical strings, or architectures.",
            )
        genes = genes.reshape(-1, self.space.num_genes).astype(np.int64, copy=False)
        good = self.space.valid(genes)
        if not good.all():
            number = int(np.argmin(good))
            try:
                self.space.from_genes(genes[number])
            except ArchitectureError as error:
                raise BadInputError(f"row {number}: {error}") from None
        return genes, one

    def _architectures(self, archs: Sequence[object]) -> list[Architecture]:
        """Return networks that are given one by one; an error names the row."""
        found = []
        for number, arch in enumerate(archs):
            try:
                found.append(self._architecture(arch))
            except BadInputError as error:
                raise BadInputError(f"row {number}: {error.message}", error.hint) from None
        return found

    def _architecture(self, arch: object) -> Architecture:
        if isinstance(arch, Architecture):
            if arch.space == self.space.name:
                return arch
            raise BadInputError(f"{arch.text} is of the space {arch.space}, this predictor is for {self.space.name}")
        if not isinstance(arch, str):
            raise BadInputError(f"{arch!r:.60} is neither a string nor an architecture, as the first one is")
        try:
            return self.space.parse(arch)
        except ArchitectureError as error:
            raise BadInputError(str(error)) from None

    def save(self, folder: str | Path) -> None:
        """Write the predictor with its card into a folder, which is made or replaced as a whole.

        Raises:
            BadInputError: if it cannot be written.
        """
        with whole_folder(folder) as part:
            self.write(part)

    def write(self, folder: str | Path) -> None:
        """Write the predictor's files into an existing folder. Raises `OSError` where a disk does."""
        folder = Path(folder)
        self._predictor.save(folder)
        (folder / CARD).write_text(json.dumps(self.card.to_json(), indent=1) + "\n", encoding="utf-8")
        (folder / README).write_text(self._readme(), encoding="utf-8")

    def _readme(self) -> str:
        card, example = self.card, self.space.references()[0].text
        scores = [f"| {name.replace('_', ' ')} | {value:.4g} |" for name, value in card.scores.items()]
        rows = [
            ("target", card.target + (" (simulated)" if card.simulated else "")),
            ("search space", card.space),
            ("precision", card.precision),
            ("fitted to", f"{card.labels} labels"),
            ("prior", f"{len(card.sources)} source devices"),
            *([("other spaces", other_spaces_in_words(card.other_spaces))] if card.other_spaces else []),
            *card.device.items(),
            ("fitted", f"{card.fitted_at} with latlab {card.latlab}, seed {card.seed}"),
        ]
        facts = "\n".join(f"| {clean(name)} | {clean(str(value)).replace('|', '/')} |" for name, value in rows)
        judged = "\n".join(["| how it was judged | |", "|---|---|", *scores]) if scores else "It was not judged."
        what, unit = ("latencies", "milliseconds") if card.metric == LATENCY else (card.metric, card.metric)
        return f"""# {card.predictor}: {what} of {card.space} on {card.target}

| | |
|---|---|
{facts}

{judged}

Load it with Python (`pip install latlab`); it needs nothing but this folder:

```python
import latlab

predictor = latlab.load_predictor("this/folder")
predictor("{example}")  # {unit}
predictor.predict(genes)  # an integer array (n, {self.space.num_genes}): {what} and 90 % intervals
```

or from a terminal:

```
latlab predict --predictor-folder this/folder --arch '{example}'
```

Nothing in it is pickled: arrays are in safetensors, all else is JSON.
"""


def load_predictor(folder: str | Path) -> FittedPredictor:
    """Return the predictor that `FittedPredictor.save` or an onboarding wrote.

    Nothing in the folder is run or unpickled, so that it may come from anybody.

    Raises:
        BadInputError: if there is none, it is damaged, or of a space or a predictor that is not installed.
    """
    folder = Path(folder)
    nested = folder / "predictor" / CARD
    hint = f"Name {folder / 'predictor'}." if nested.is_file() else "`latlab onboard` writes such folders."
    card = read_card(folder, CARD, PredictorCard.from_json, "predictor", hint)
    space = space_named(card.space)
    try:
        predictor = predictor_class(card.predictor).load(folder, space)
    except UnknownPredictorError as error:
        raise BadInputError(f"{folder} holds a predictor that is not installed here: {error}") from error
    except ValueError as error:
        raise BadInputError(clean(str(error))) from error
    fitted = FittedPredictor(predictor, card)
    with np.errstate(all="ignore"):
        found = fitted.predict(space.references())
    if not all(np.isfinite(values).all() and (values > 0).all() for values in (found.mean_ms, found.std_ms)):
        raise BadInputError(
            f"{folder} holds a predictor whose latencies are no positive numbers: its files are damaged",
            "Fit the predictor again, or ask for its folder again.",
        )
    return fitted
