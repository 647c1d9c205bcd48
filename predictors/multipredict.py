"""MultiPredict (Akhauri and Abdelfattah, Multi-Predict: Few Shot Predictors for Efficient NAS, AutoML 2023).

An MLP reads an architecture's choices, an encoding that does not depend on the space, and a learned embedding of the
device. The paper's encodings are zero-cost proxies (synflow, jacov and eleven more, from networks run once) or the
latencies of reference devices. By default the encoding here is the analytic cost of the network (`costs`); `encoding`
chooses zero-cost proxies or another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latlab.predictors.base import IntArray
from latlab.predictors.bases.fine_tuning import Schedule, Settings, TransferPredictor, mlp

__all__ = ["MultiPredict"]

DEVICE = 8
CHOICES = (100, 100, 30)
PROXIES = (64, 16)
INTERACTION = 1000

PRETRAINING = Schedule(epochs=150, batch=64, rate=4e-4, decay=5e-4)
TRANSFER = Schedule(epochs=50, batch=10, rate=4e-4, decay=5e-4)
RUNS = 3
"""Number of fine-tunings whose predictions are averaged; they differ only in the order of the measurements. The paper's
code has ten, which takes three times as long."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """n architectures: their one-hot choices (n, c) and their proxies (n, p)."""

    choices: Tensor
    proxies: Tensor

    def __len__(self) -> int:
        return len(self.choices)

    def __getitem__(self, rows: Tensor) -> Vectors:
        return Vectors(self.choices[rows], self.proxies[rows])


class Network(nn.Module):
    """The network: it gives scores in 0-1, shape (n,), of n architectures on the devices of the indices (n,)."""

    def __init__(self, choices: int, proxies: int, devices: int) -> None:
        super().__init__()
        self.devices = nn.Embedding(devices, DEVICE)
        self.choices = mlp(choices, *CHOICES)
        self.proxies = mlp(proxies, *PROXIES)
        self.interaction = mlp(CHOICES[-1] + PROXIES[-1] + DEVICE, INTERACTION)
        self.score = nn.Linear(INTERACTION, 1)

    def forward(self, vectors: Vectors, device: Tensor) -> Tensor:
        parts = self.choices(vectors.choices), self.proxies(vectors.proxies), self.devices(device)
        scores: Tensor = torch.sigmoid(self.score(self.interaction(torch.cat(parts, dim=1))))[:, 0]
        return scores


class MultiPredict(TransferPredictor):
    """MultiPredict: trained by absolute error on latencies scaled per device, then fine-tuned to the target several
    times.

    It differs from the paper in three things. Analytic costs stand for the proxies unless `encoding` says otherwise.
    The choices are a vector in every space, while the authors read NAS-Bench-201 with a graph network. The labels of a
    target are scaled by its measurements, while the authors scale by its whole table.
    """

    name = "multipredict"
    default_encoding: ClassVar[str] = "costs"
    title: ClassVar[str] = "MultiPredict: MLP on costs and choices with device embeddings, fine-tuned (AutoML 2023)"

    def _default_settings(self) -> Settings:
        return Settings(PRETRAINING, TRANSFER, runs=RUNS)

    def _network(self, devices: int) -> nn.Module:
        vectors = self._inputs(self._sample[:1])
        return Network(vectors.choices.shape[1], vectors.proxies.shape[1], devices)

    def _inputs(self, genes: IntArray) -> Vectors:
        return Vectors(torch.from_numpy(self.space.encode(genes, "one-hot")), self._encoded(genes))

    def _loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of absolute errors against labels in 0.05-0.95, HELP's range, which a sigmoid can reach."""
        return F.l1_loss(scores, 0.05 + 0.9 * labels, reduction="sum")
