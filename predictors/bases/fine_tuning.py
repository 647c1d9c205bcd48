"""A base class for predictors that train a network on source devices and fine-tune it to a target.

NASFLAT and MultiPredict share it. Every device has a learned embedding. Pre-training fits the network and the
embeddings of all source devices together. For a target, the embedding of the most similar source is copied, and then
all weights are fine-tuned on the few measurements of the target, each time from the pre-trained weights (Akhauri and
Abdelfattah, Multi-Predict, AutoML 2023; On Latency Predictors for Neural Architecture Search, MLSys 2024, section 5).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from latlab.predictors.base import FloatArray, IntArray, SourceDevice
from latlab.predictors.bases.score_predictor import SAMPLE, ScorePredictor
from latlab.predictors.common import serialization as files
from latlab.predictors.common.cost_totals import totals
from latlab.predictors.common.log_latency import log_labels
from latlab.predictors.common.metrics import spearman
from latlab.predictors.common.torch_training import Steps
from latlab.predictors.encodings.encode import Encoder
from latlab.predictors.encodings.names import check_encoding
from latlab.predictors.encodings.table import EncodingTable
from latlab.predictors.training_log import FORGETFUL, TrainingLog
from latlab.search_spaces import SearchSpace

__all__ = ["DEVICES", "Inputs", "Schedule", "Settings", "TransferPredictor", "mlp"]

DEVICES = "devices.weight"
"""Name of a network's table of device embeddings, one row per device."""
MIN_RANKED = 3
"""Number of measurements from which Spearman's correlation is informative enough to find the most similar source."""
CHUNK = 512
"""Number of architectures predicted at a time, such that intermediate results stay in the processor's cache."""

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Schedule:
    """The schedule of a training with AdamW, whose learning rate falls along a cosine from `rate` to `final_rate`."""

    epochs: int
    batch: int
    rate: float
    decay: float
    final_rate: float = 0.0
    most_steps: int = 10**9
    """Number of steps beyond which there are fewer epochs, but at least one."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The training settings of a paper.

    Predictions are means over the weights after each of the last `last_epochs` epochs of each of `runs` fine-tunings.
    """

    pretraining: Schedule
    transfer: Schedule
    last_epochs: int = 1
    runs: int = 1
    scratch: Schedule | None = None
    """The schedule of a training on the target alone, where there are no sources; None for no such training."""


class Inputs(Protocol):
    """Architectures in the form that a network takes, which can be indexed by a tensor of rows."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor) -> Self: ...


@dataclass(slots=True)
class _Labelled:
    """Labels of m architectures: their inputs, the indices of their devices (m,), the labels (m,) in [0, 1]."""

    inputs: Inputs
    device: Tensor
    label: Tensor = field(repr=False)


class TransferPredictor(ScorePredictor):
    """A predictor that pre-trains a network, chooses the most similar source and fine-tunes to the target.

    A subclass provides the network and the loss. The papers compare the latencies of source and target on the support.
    Here the network's predictions stand for the latencies of the source, because a source has in general not measured
    the target's support. Fewer than three measurements are too few to compare sources or to fine-tune; then the source
    that agrees best with the other sources (greatest mean Spearman correlation) stands for the target. Without sources
    nothing is trained, unless there are settings for it: the score is the sum of the standardised logarithms of MACs,
    parameters, bytes and operators.

    Args:
        space: the space.
        seed: seed of everything random.
        settings: training settings; default: the paper's.
        encoding: the encoding of whole architectures that the network reads (`encodings.names.ENCODINGS`).
        encoding_table: where that encoding comes from; by default it is computed, and proxies cost a second each.

    Raises:
        ValueError: there is no such encoding.
    """

    folds: ClassVar[int] = 5
    pretraining_lasts: ClassVar[bool] = True

    default_encoding: ClassVar[str] = "totals"
    """The encoding of whole architectures that the network reads if none is asked for."""

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        settings: Settings | None = None,
        encoding: str | None = None,
        encoding_table: EncodingTable | None = None,
    ) -> None:
        super().__init__(space, seed=seed)
        self.encoding = self.default_encoding if encoding is None else str(encoding)
        check_encoding(self.encoding)
        self._table = encoding_table
        self.settings = self._default_settings() if settings is None else settings
        self._source: State = {}
        """Weights after pre-training; empty before."""
        self._typical = 0
        """Index of the source that agrees best with the others."""
        self._members: list[State] = []
        """Weights whose predictions are averaged, each for one device. Without any, the score is the analytic cost."""

    # Methods that a subclass overrides.

    @abstractmethod
    def _default_settings(self) -> Settings:
        """Return the paper's settings for `self.space`."""

    @abstractmethod
    def _network(self, devices: int) -> nn.Module:
        """Return a new network. `network(inputs, device)` gives scores (n,) for device indices (n,) below `devices`."""

    @abstractmethod
    def _inputs(self, genes: IntArray) -> Inputs:
        """Return architectures `genes` (n, genes) in the form that the network takes."""

    @abstractmethod
    def _loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch; scores and labels have shape (b,), labels are scaled to 0-1 per device."""

    # The contract of `ScorePredictor`.

    def pretrain(self, sources: Sequence[SourceDevice]) -> None:
        """Train from scratch on all sources, which may have measured different architectures.

        Raises:
            ValueError: a source has fewer than two measurements, or one that is not positive and finite.
        """
        self._source, self._typical = {}, 0
        if sources:
            for source in sources:
                if len(source.genes) < 2:
                    raise ValueError(f"source device {source.name} has fewer than two measurements: leave it out")
                try:
                    log_labels(source.genes, source.latency_ms, source.stderr_ms)
                except ValueError as error:
                    raise ValueError(f"source device {source.name}: {error}") from error
            examples = _Labelled(
                self._inputs(np.concatenate([source.genes for source in sources])),
                torch.repeat_interleave(torch.arange(len(sources)), torch.tensor([len(s.genes) for s in sources])),
                torch.cat([_min_max(source.latency_ms) for source in sources]),
            )
            schedule = self.settings.pretraining
            self._source = self._train(examples, len(sources), schedule, None, self.seed, self.training_log)[-1]
            scores = self._source_scores(self._sample)
            agreement = [np.mean([_rho(one, other) for other in scores]) for one in scores]
            self._typical = int(np.argmax(agreement))
        self.adapt([], [])

    def _fit(self, genes: IntArray, log_latency: FloatArray, label_variance: FloatArray) -> None:
        self._members = []
        n = len(genes)
        if n < MIN_RANKED:
            self._members = [self._for_device(self._typical)] if self._source else []
            return
        start, schedule = None, self.settings.scratch
        if self._source:
            similarity = [_rho(scores, log_latency) for scores in self._source_scores(genes)]
            start, schedule = self._for_device(int(np.argmax(similarity))), self.settings.transfer
        if schedule is None:
            return
        label = _min_max(np.exp(log_latency))
        examples = _Labelled(self._inputs(genes), torch.zeros(n, dtype=torch.long), label)
        for run in range(self.settings.runs):
            self._members += self._train(examples, 1, schedule, start, self.seed + run)

    def _scores(self, genes: IntArray) -> FloatArray:
        if not self._members:
            return np.asarray(self._costs(genes).sum(axis=1), dtype=np.float64)
        return np.asarray(self._evaluate(self._members, genes).mean(axis=0), dtype=np.float64)

    @cached_property
    def _sample(self) -> IntArray:
        """Random architectures that scores are standardised over; those of the table of encodings if there is one."""
        if self._table is None:
            return super()._sample
        rows = np.random.default_rng(0).permutation(len(self._table.genes))[:SAMPLE]
        return np.asarray(self._table.genes[rows], np.int64)

    def _encoded(self, genes: IntArray) -> Tensor:
        """Return the encoding of whole architectures, scaled: float32 of shape (n, width)."""
        if self.encoding == "totals" and self._table is None:
            return torch.from_numpy(self._costs(genes).astype(np.float32))
        return torch.from_numpy(self._encoder(genes))

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self.space, self.encoding, table=self._table)

    def _costs(self, genes: IntArray) -> FloatArray:
        """Return the standardised logarithms of the total costs of architectures: shape (n, len(COSTS))."""
        centre, scale = self._cost_scale
        return (np.log(totals(self.space)(genes)) - centre) / scale

    @cached_property
    def _cost_scale(self) -> tuple[FloatArray, FloatArray]:
        """Means and standard deviations of the logarithms over the space."""
        logs = np.log(totals(self.space)(self._sample))
        deviation = logs.std(axis=0)
        return logs.mean(axis=0), np.where(deviation > 1e-9, deviation, 1.0)

    # The network.

    @cached_property
    def _module(self) -> nn.Module:
        """The network for one device on torch's meta device, without weights: `_evaluate` passes those of a state."""
        with torch.device("meta"):
            return self._network(1).eval()

    def _for_device(self, device: int) -> State:
        """Return the pre-trained weights with the embedding of one source only."""
        return {**self._source, DEVICES: self._source[DEVICES][device : device + 1]}

    def _train(
        self,
        examples: _Labelled,
        devices: int,
        schedule: Schedule,
        start: State | None,
        seed: int,
        log: TrainingLog = FORGETFUL,
    ) -> list[State]:
        """Train from the weights `start`, or from random ones where it is None, and return those of the last epochs."""
        n, states = len(examples.label), []
        epochs = min(schedule.epochs, max(schedule.most_steps // math.ceil(n / schedule.batch), 1))
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seed)
            network = self._network(devices).train()
            if start is not None:
                network.load_state_dict(start)
            optimizer = torch.optim.AdamW(
                network.parameters(), lr=schedule.rate, weight_decay=schedule.decay, fused=True
            )
            cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, schedule.final_rate)
            steps = Steps(log, epochs, network.state_dict(), optimizer, schedule=cosine)
            for epoch in steps:
                for rows in torch.split(torch.randperm(n), schedule.batch):
                    scores = network(examples.inputs[rows], examples.device[rows])
                    optimizer.zero_grad()
                    loss = self._loss(scores, examples.label[rows])
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                steps.figures = {"loss": float(loss.detach())}
                if epoch >= epochs - self.settings.last_epochs:
                    states.append({name: value.clone() for name, value in network.state_dict().items()})
        return states

    def _source_scores(self, genes: IntArray) -> FloatArray:
        """Return the scores of `genes` on each source device by the pre-trained network: shape (sources, n)."""
        return self._evaluate([self._for_device(device) for device in range(len(self._source[DEVICES]))], genes)

    @torch.inference_mode()
    def _evaluate(self, states: Sequence[State], genes: IntArray) -> FloatArray:
        """Return the scores by each of several weights for one device: shape (states, n)."""
        parts = [np.empty((len(states), 0))]
        for start in range(0, len(genes), CHUNK):
            inputs = self._inputs(genes[start : start + CHUNK])
            arguments = inputs, torch.zeros(len(inputs), dtype=torch.long)
            parts.append(np.stack([functional_call(self._module, state, arguments).numpy() for state in states]))
        return np.concatenate(parts, axis=1)

    # Files.

    def _state(self) -> files.Arrays:
        arrays: dict[str, NDArray[Any]] = {"typical_source": np.array([self._typical])}
        arrays["encoding"] = np.frombuffer(self.encoding.encode(), np.uint8)
        if self._table is not None:
            columns = np.frombuffer("\n".join(self._table.columns).encode(), np.uint8)
            arrays |= {"table_columns": columns, "table_genes": self._table.genes, "table_vectors": self._table.vectors}
        for prefix, state in (("source", self._source), *((f"member{i}", m) for i, m in enumerate(self._members))):
            arrays.update({f"{prefix}/{name}": value.numpy() for name, value in state.items()})
        return arrays

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self._typical = int(arrays["typical_source"][0])
        if "encoding" in arrays:  # predictors that an earlier version has saved have the default
            self.encoding = bytes(arrays["encoding"]).decode()
            check_encoding(self.encoding)
        if "table_genes" in arrays:
            columns = bytes(arrays["table_columns"]).decode().split("\n")
            self._table = EncodingTable("its saved table", columns, arrays["table_genes"], arrays["table_vectors"])
        states: dict[str, State] = {}
        for name, value in arrays.items():
            prefix, _, parameter = name.partition("/")
            if parameter:
                states.setdefault(prefix, {})[parameter] = torch.from_numpy(value)
        self._source = states.pop("source", {})
        self._members = list(states.values())


def mlp(*widths: int) -> nn.Sequential:
    """Return linear layers between these widths, with a ReLU after each."""
    return nn.Sequential(*(nn.Sequential(nn.Linear(i, o), nn.ReLU()) for i, o in pairwise(widths)))


def _min_max(latency: FloatArray) -> Tensor:
    """Return latencies scaled to 0-1; zeros where all are equal."""
    low, high = float(np.min(latency)), float(np.max(latency))
    return torch.tensor((np.asarray(latency) - low) / ((high - low) or 1.0), dtype=torch.float32)


def _rho(a: FloatArray, b: FloatArray) -> float:
    """Return Spearman's correlation; 0 where it is not defined (fewer than three pairs, or a constant)."""
    return float(np.nan_to_num(spearman(a, b)))
