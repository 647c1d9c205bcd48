"""Pre-training: on many tasks, the network learns to predict the labels of a task that it is not shown."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latlab.predictors.base import FloatArray
from latlab.predictors.common.torch_training import Steps
from latlab.predictors.in_context.network import InContextNetwork, Shape, StudentT
from latlab.predictors.in_context.tasks import Tasks, TasksSettings, scale_of
from latlab.predictors.training_log import FORGETFUL, TrainingLog

__all__ = ["Settings", "Standardised", "train"]


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of the network and its training; the defaults take two to three minutes on one core."""

    steps: int = 4000
    batch: int = 32
    """Number of tasks in a step."""
    queries: int = 48
    """Number of queried architectures in each task."""
    largest: int = 32
    """Largest number of measurements shown in a task. The number is log-uniform from 1, and the same for all tasks of a
    step."""
    refresh: int = 100
    """Number of steps after which new synthetic devices are drawn."""
    rate: float = 1.5e-3
    """Largest learning rate; it rises over a twentieth of the steps, then falls along a cosine."""
    decay: float = 1e-4
    """Weight decay of AdamW."""
    memory: float = 0.99
    """Decay of the exponential mean of the weights over steps, which is the result: it spans 1 / (1 - memory) steps."""
    width: int = 64
    layers: int = 3
    heads: int = 4
    tasks: TasksSettings = field(default_factory=TasksSettings)


class Standardised:
    """The standardisation of devices' log-latencies for the network, by mean and spread of the measured ones."""

    def __init__(self, measured: FloatArray, typical: float, largest: int) -> None:
        """Standardise by log-latencies `measured` (devices, n).

        Args:
            typical: typical spread of log-latencies in the space.
            largest: largest n that the network knows from its training; a larger n is passed to it as this.
        """
        self.centre = measured.mean(axis=1, keepdims=True)
        self.scale = scale_of(measured, typical)
        count = np.full_like(self.scale, math.log(min(measured.shape[1], largest)))
        self.device = _tensor(np.concatenate([np.log(self.scale / typical), count], axis=1))
        """The argument `device` of `InContextNetwork.read`, (devices, 2)."""

    def labels(self, log_latency: FloatArray, stderr: FloatArray) -> Tensor:
        """Return the argument `y` of `InContextNetwork.read`, (devices, n, 2)."""
        return _tensor(np.stack([(log_latency - self.centre) / self.scale, stderr / self.scale], axis=2))

    def targets(self, log_latency: FloatArray) -> Tensor:
        """Return standardised log-latencies of queries, (devices, queries)."""
        return _tensor((log_latency - self.centre) / self.scale)


def train(tasks: Tasks, settings: Settings, seed: int, log: TrainingLog = FORGETFUL) -> InContextNetwork:
    """Train a network and return it in eval mode; seed and number of threads determine the result."""
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        inputs = torch.from_numpy(tasks.inputs)
        network = InContextNetwork(Shape(inputs.shape[1], settings.width, settings.layers, settings.heads))
        average = deepcopy(network)
        optimizer = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=settings.decay, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.rate, total_steps=settings.steps + 1, pct_start=0.05
        )
        steps = Steps(
            log,
            settings.steps,
            {
                **network.state_dict(),
                **{f"average {name}": value for name, value in average.state_dict().items()},
                "pool": torch.from_numpy(tasks.pool),
            },
            optimizer,
            schedule=schedule,
            numpy_generators={"sizes": rng, "tasks": tasks.generator},
        )
        for step in steps:
            if step and step % settings.refresh == 0:
                tasks.refresh()
            n = round(np.exp(rng.uniform(0, math.log(settings.largest))))
            loss = _loss(network, tasks, inputs, n, settings)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            steps.figures = {"loss": float(loss.detach())}
            with torch.no_grad():
                for mean, value in zip(average.parameters(), network.parameters(), strict=True):
                    mean.lerp_(value, 1 - settings.memory)
    return average.eval().requires_grad_(False)


def _loss(network: InContextNetwork, tasks: Tasks, inputs: Tensor, n: int, settings: Settings) -> Tensor:
    """Return the mean negative log-likelihood of queries, given n measurements of each device."""
    batch = tasks.draw(settings.batch, n + settings.queries)
    shown, stderr = batch.log_latency[:, :n], batch.stderr[:, :n]
    # Shown labels also have the noise of known size; queried ones have only the device's own noise.
    shown = shown + stderr * tasks.normal(shown.shape)
    unit = Standardised(shown, tasks.typical, settings.largest)
    x = inputs[torch.from_numpy(batch.rows)]
    context = network.read(x[:, :n], unit.labels(shown, stderr), unit.device)
    asked: StudentT = network(context, x[:, n:])
    return asked.negative_log_likelihood(unit.targets(batch.log_latency[:, n:])).mean()


def _tensor(values: FloatArray) -> Tensor:
    single: NDArray[np.float32] = values.astype(np.float32)
    return torch.from_numpy(single)
