"""The latency predictor of Once-for-all (Cai et al., ICLR 2020): one-hot choices, three hidden layers of 400.

OFA's encoding has 128 numbers: kernel and expansion of 20 blocks as one-hot codes, and the resolution in steps of 16.
Other spaces have all their choices as one-hot codes. A network is trained for one device with the root mean squared
error of its latencies, by gradient descent with momentum. For a new device with few measurements, the network of a base
device is fine-tuned, with its first two layers frozen. The variant for GPUs in general reads three facts of a GPU in
addition, 131 numbers, and is trained on all source devices together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latlab.predictors.base import Archs, FloatArray, IntArray, Prediction, SourceDevice
from latlab.predictors.bases.score_predictor import ScorePredictor
from latlab.predictors.bases.trunks import Params, affine, linear_weights, relu_affine
from latlab.predictors.common import serialization as files
from latlab.predictors.common.cost_features import cost_features
from latlab.predictors.common.grid_search import Report, search_grid
from latlab.predictors.common.log_latency import in_ms, log_labels, log_or_tangent
from latlab.predictors.common.metrics import spearman
from latlab.predictors.common.score_to_latency import FREEDOM
from latlab.predictors.common.torch_training import Steps
from latlab.predictors.training_log import FORGETFUL, TrainingLog
from latlab.search_spaces import SearchSpace

__all__ = ["FACTS", "GPUS", "OFAMLP", "rmse_percent"]

WIDTH, HIDDEN = 400, 3
GRID: Mapping[str, Sequence[float]] = {"rate": (0.01, 0.05, 0.2), "decay": (1e-5, 1e-4, 1e-3), "momentum": (0.8, 0.9)}
"""Learning rates, weight decays and momenta among which `grid` chooses."""
FROZEN = ("layer1", "layer2")
"""Layers that fine-tuning leaves as they are."""
FACTS = ("cores", "memory_gb", "bandwidth_gbs")
GPUS: Mapping[str, tuple[float, float, float]] = {
    "1080ti": (3584, 11, 484),
    "2080ti": (4352, 11, 616),
    "titan_rtx": (4608, 24, 672),
    "titan_xp": (3840, 12, 548),
    "titanxp": (3840, 12, 548),
    "titanx": (3584, 12, 480),
    "v100": (5120, 16, 900),
}
"""`FACTS` of GPUs, from NVIDIA's data sheets, by the names that the published tables give them (before the batch size).
"titanx" is taken for the Pascal card, as the tables say no more."""
HELD_OUT = 15 / 85
"""Share of the measurements for validation: 15 % where 15 % more are for testing, which are not given here."""
FEWEST_HELD_OUT = 5
CHECK_EVERY = 50
"""Number of steps between two looks at the validation error; the best weights are kept."""
FEWEST = 3
"""Number of measurements from which a network is trained or fine-tuned."""
ALONE = 0.3
"""Standard deviation of the log-latency of a network around the prediction from facts alone."""
CHUNK = 8192
LARGEST_GRADIENT = 1.0
"""Norm to which gradients are clipped: the root in the loss makes them long near its minimum."""


class OFAMLP(ScorePredictor):
    """Once-for-all's latency predictor: an MLP for each device, fine-tuned to a new one, or one MLP for all GPUs.

    Without sources, or where none is wanted, the network is trained on the target alone. With sources, one is trained
    for each, and that of the base is fine-tuned to the target. With `generalised` one network is trained on all sources
    with their facts, and predicts a target from its facts; measurements then only fit a line to its latencies.

    Args:
        steps: number of training steps.
        rate, decay, momentum: learning rate, weight decay and momentum of gradient descent.
        grid: whether these three are chosen from `GRID` by the validation error, before each training of a new network.
            With Ray Tune (`pip install latlab[tune]`) trials run side by side, and the worse ones are stopped early.
        base: name of the source whose network is fine-tuned; by default the one that ranks the measurements best.
        transfer: whether sources are used.
        generalised: whether one network is trained on all sources with `FACTS` of their GPUs.
        facts: the target's `FACTS`, for `generalised`.
    """

    name = "ofa-mlp"
    title: ClassVar[str] = "Once-for-all's MLP on one-hot choices (ICLR 2020), fine-tuned from a base device"
    folds: ClassVar[int] = 5
    pretraining_lasts: ClassVar[bool] = True

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        steps: int = 3000,
        rate: float = 0.05,
        decay: float = 1e-4,
        momentum: float = 0.9,
        grid: bool = False,
        batch: int = 64,
        base: str | None = None,
        transfer: bool = True,
        generalised: bool = False,
        facts: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(space, seed=seed)
        self._optimisation = {"rate": rate, "decay": decay, "momentum": momentum}
        self._steps, self._batch, self._grid = steps, batch, grid
        self._base, self._transfer, self._generalised = base, transfer, generalised
        self._encoding = "ofa" if "ofa" in space.encodings else "one-hot"
        self._facts = _fact_columns(facts) if facts is not None else None
        self._report: Report = lambda step, error: None
        self._source: Params = {}
        """Weights (sources, ...) after pre-training, or (1, ...) if `generalised`; empty before."""
        self._names: list[str] = []
        self._params: Params = {}
        """Weights (1, ...) for the target; without any, the score is the analytic cost."""
        self._unit_ms = 1.0
        """The latency that the network predicts as 1."""

    # Training.

    def pretrain(self, sources: Sequence[SourceDevice]) -> None:
        """Train a network for each source, or one for all if `generalised`.

        Raises:
            ValueError: a source has too few measurements, the facts of one are not known, or none has the base's name.
        """
        self._source, self._names, self._params = {}, [], {}
        if sources and self._transfer:
            for source in sources:
                if len(source.genes) < FEWEST:
                    raise ValueError(f"source device {source.name} has fewer than {FEWEST} measurements: leave it out")
                try:
                    log_labels(source.genes, source.latency_ms, source.stderr_ms)
                except ValueError as error:
                    raise ValueError(f"source device {source.name}: {error}") from error
            self._names = [source.name for source in sources]
            if self._base is not None and self._base not in self._names:
                raise ValueError(f"the base {self._base} is not among the sources {', '.join(self._names)}")
            if self._generalised:
                facts = [np.tile(_known_facts(source.name), (len(source.genes), 1)) for source in sources]
                x = self._inputs(np.concatenate([s.genes for s in sources]), np.concatenate(facts))
                latency = np.concatenate([source.latency_ms for source in sources])
                self._unit_ms = float(latency.mean())
                data = [(x, torch.tensor(latency / self._unit_ms, dtype=torch.float32))]
            else:
                data = [self._examples(source.genes, source.latency_ms) for source in sources]
            self._source = self._trained(data, None, self.training_log)
        self.adapt([], [])

    def _fit(self, genes: IntArray, log_latency: FloatArray, label_variance: FloatArray) -> None:
        self._params = {}
        if self._generalised:
            self._params = self._source
            return
        if len(genes) < FEWEST:
            if self._source:
                self._params = self._one(0 if self._base is None else self._names.index(self._base))
            return
        latency = np.exp(log_latency)
        self._unit_ms = float(latency.mean())
        start = None
        if self._source:
            rho = [spearman(self._latency(self._one(i), genes), latency) for i in range(len(self._names))]
            best = int(np.argmax(np.nan_to_num(rho))) if self._base is None else self._names.index(self._base)
            start = self._one(best)
        self._params = self._trained([self._examples(genes, latency)], start)

    def _trained(
        self, data: Sequence[tuple[Tensor, Tensor]], base: Params | None, log: TrainingLog = FORGETFUL
    ) -> Params:
        """Train a network for each device side by side and return those with the least validation errors.

        Args:
            data: inputs (n, d) and labels (n,) of each device.
            base: weights to be fine-tuned with `FROZEN` as they are; None for new ones.
        """
        if self._grid and base is None:
            self._optimisation = self._chosen(data)
        generator = torch.Generator().manual_seed(self.seed)
        parts = [self._split(x, y, generator) for x, y in data]
        if base is not None:
            return self._descended({name: value.clone() for name, value in base.items()}, parts, FROZEN, generator, log)
        new = [self._initial(data[0][0].shape[1], generator) for _ in data]
        params = {name: torch.stack([one[name] for one in new]) for name in new[0]}
        return self._descended(params, parts, (), generator, log)

    def _chosen(self, data: Sequence[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Return the optimisation of `GRID` with the least mean validation error."""
        space, seed, steps, batch = self.space, self.seed, self._steps, self._batch

        def train(optimisation: Mapping[str, float], report: Report) -> None:
            one = OFAMLP(space, seed=seed, steps=steps, batch=batch)
            one._optimisation = dict(optimisation)
            one._report = report
            one._trained(data, None)

        return search_grid(train, GRID, steps=steps)

    def _descended(
        self,
        params: Params,
        parts: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]],
        frozen: Sequence[str],
        generator: torch.Generator,
        log: TrainingLog,
    ) -> Params:
        learned = [value for name, value in params.items() if name.partition(".")[0] not in frozen]
        best = {name: value.clone() for name, value in params.items()}
        least = torch.full((len(parts),), torch.inf)
        own = self._optimisation
        with torch.enable_grad():
            for value in learned:
                value.requires_grad_()
            optimizer = torch.optim.SGD(
                learned, lr=own["rate"], weight_decay=own["decay"], momentum=own["momentum"], nesterov=True
            )
            cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self._steps)
            steps = Steps(
                log,
                self._steps,
                {**params, **{f"best {name}": value for name, value in best.items()}, "least": least},
                optimizer,
                schedule=cosine,
                generators={"batches": generator},
            )
            for step in steps:
                drawn = [torch.randint(len(y), (self._batch,), generator=generator) for _, y, _, _ in parts]
                x = torch.stack([part[0][rows] for part, rows in zip(parts, drawn, strict=True)])
                y = torch.stack([part[1][rows] for part, rows in zip(parts, drawn, strict=True)])
                rmse = ((_forward(params, x) - y) ** 2).mean(dim=1).add(1e-12).sqrt()
                optimizer.zero_grad()
                rmse.sum().backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(learned, LARGEST_GRADIENT * len(parts))
                optimizer.step()
                if (step + 1) % CHECK_EVERY == 0 or step + 1 == steps.total:
                    self._keep_best(params, best, least, parts)
                    steps.figures = {"validation_rmse_percent": 100 * float(least.mean())}
                    self._report(step + 1, float(least.mean()))
        return best

    @torch.no_grad()
    def _keep_best(
        self, params: Params, best: Params, least: Tensor, parts: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]
    ) -> None:
        """Copy the weights of each device whose validation error is the least so far."""
        for place, (_, _, x, y) in enumerate(parts):
            own = {name: value[place : place + 1] for name, value in params.items()}
            error = ((_forward(own, x[None])[0] - y) ** 2).mean().sqrt() / y.mean()
            if error < least[place]:
                least[place] = error
                for name, value in own.items():
                    best[name][place] = value[0]

    @staticmethod
    def _split(x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return inputs and labels to train on, and those for validation: all of both where there are too few."""
        count = int(HELD_OUT * len(y))
        if count < FEWEST_HELD_OUT:
            return x, y, x, y
        held, rest = torch.randperm(len(y), generator=generator).tensor_split([count])
        return x[rest], y[rest], x[held], y[held]

    def _initial(self, inputs: int, generator: torch.Generator) -> Params:
        widths = [inputs, *[WIDTH] * HIDDEN, 1]
        params: Params = {}
        for layer in range(HIDDEN + 1):
            params |= linear_weights(f"layer{layer + 1}", widths[layer], widths[layer + 1], generator)
        return params

    def _examples(self, genes: IntArray, latency: FloatArray) -> tuple[Tensor, Tensor]:
        labels = torch.tensor(latency / latency.mean(), dtype=torch.float32)
        return self._inputs(genes, None), labels

    def _inputs(self, genes: IntArray, facts: FloatArray | None) -> Tensor:
        """Return the inputs (n, 128) of OFA's architectures, with `facts` (n, 3) or (3,) as further columns."""
        encoded = self.space.encode(genes, self._encoding)
        if facts is not None:
            encoded = np.hstack([encoded, np.broadcast_to(facts, (len(genes), len(FACTS)))])
        return torch.from_numpy(encoded.astype(np.float32))

    # Prediction.

    def _one(self, place: int) -> Params:
        return {name: value[place : place + 1] for name, value in self._source.items()}

    @torch.no_grad()
    def _latency(self, params: Params, genes: IntArray) -> FloatArray:
        """Return what a network predicts, in units of `_unit_ms`."""
        parts = [np.empty(0)]
        for start in range(0, len(genes), CHUNK):
            rows = genes[start : start + CHUNK]
            facts = None
            if self._generalised:
                if self._facts is None:
                    raise ValueError(f"the network for all GPUs needs facts of this one: {', '.join(FACTS)}")
                facts = self._facts
            parts.append(_forward(params, self._inputs(rows, facts)[None])[0].numpy())
        return np.concatenate(parts)

    def latency_ms(self, archs: Archs) -> FloatArray:
        """Return what the network itself predicts in ms, without the line that the measurements fit to it."""
        return self._unit_ms * self._latency(self._params, self.space.genes(archs))

    def _scores(self, genes: IntArray) -> FloatArray:
        if not self._params:
            return np.asarray(cost_features(self.space)(genes)["totals"].sum(axis=1))
        return log_or_tangent(self._latency(self._params, genes) * 10)

    def predict(self, archs: Archs) -> Prediction:
        """Predict `archs`; the facts of a GPU give a scale in ms, so that nothing needs to have been measured."""
        if len(self._genes) or not (self._generalised and self._params):
            return super().predict(archs)
        log_ms = np.log(np.maximum(self.latency_ms(archs), 1e-3 * self._unit_ms))
        return in_ms(log_ms, np.full_like(log_ms, ALONE**2), FREEDOM, shift=0.0)

    # Files.

    def _state(self) -> files.Arrays:
        arrays: dict[str, NDArray[Any]] = {
            "unit_ms": np.array([self._unit_ms]),
            "generalised": np.array([self._generalised]),
            "names": np.frombuffer("\n".join(self._names).encode(), np.uint8),
            "facts": np.empty(0) if self._facts is None else self._facts,
            "training": np.array([self._steps, self._batch, *self._optimisation.values()], np.float64),
            "base": np.frombuffer((self._base or "").encode(), np.uint8),
        }
        for part, params in (("source", self._source), ("target", self._params)):
            arrays |= {f"{part}/{name}": value.detach().numpy() for name, value in params.items()}
        return arrays

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self._unit_ms, self._generalised = float(arrays["unit_ms"][0]), bool(arrays["generalised"][0])
        self._names = [name for name in arrays["names"].tobytes().decode().split("\n") if name]
        self._facts = arrays["facts"] if len(arrays["facts"]) else None
        steps, batch, *rates = arrays["training"].tolist()
        self._steps, self._batch = int(steps), int(batch)
        self._optimisation = dict(zip(self._optimisation, rates, strict=True))
        self._base = arrays["base"].tobytes().decode() or None
        if self._base not in (None, *self._names):
            raise ValueError(f"its base {self._base} is not among its sources")
        parts: dict[str, Params] = {"source": {}, "target": {}}
        for name, value in arrays.items():
            part, _, parameter = name.partition("/")
            if parameter:
                parts[part][parameter] = torch.from_numpy(value)
        self._source, self._params = parts["source"], parts["target"]


def rmse_percent(predicted: FloatArray, measured: FloatArray) -> float:
    """Return the root mean squared error in percent of the mean measurement."""
    return float(100 * np.sqrt(np.mean((predicted - measured) ** 2)) / np.mean(measured))


def _forward(params: Params, x: Tensor) -> Tensor:
    """Return labels (T, n) of inputs (T, n, d)."""
    for layer in range(1, HIDDEN + 1):
        x = relu_affine(params, f"layer{layer}", x)
    return affine(params, f"layer{HIDDEN + 1}", x)[..., 0]


def _fact_columns(facts: Mapping[str, float]) -> FloatArray:
    """Return `FACTS` as inputs: each in units of the largest that is known."""
    missing = [name for name in FACTS if name not in facts]
    if missing:
        raise ValueError(f"it reads the facts {', '.join(FACTS)}; {', '.join(missing)} is missing")
    largest = np.max(list(GPUS.values()), axis=0)
    return np.asarray(np.array([facts[name] for name in FACTS]) / largest, dtype=np.float64)


def _known_facts(device: str) -> FloatArray:
    """Return the inputs for the facts of a source, by its name without batch size."""
    found = GPUS.get(device.rpartition("_")[0]) or GPUS.get(device)
    if found is None:
        raise ValueError(f"facts of {device} are not known, only those of {', '.join(GPUS)}: leave it out")
    return _fact_columns(dict(zip(FACTS, found, strict=True)))
