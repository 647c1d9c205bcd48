"""The loop of a training in PyTorch, which continues where an earlier process was ended and gives the same result."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latlab.predictors.training_log import TrainingLog

__all__ = ["Steps"]

GLOBAL = "random/torch"


class Schedule(Protocol):
    """A schedule of learning rates."""

    def step(self) -> None: ...


class Steps:
    """The steps of a training: `for step in steps:` gives 0, 1, ... or, after an interruption, begins later.

    After each step it reports to the log and offers it the whole state: tensors, optimiser, random generators, values.

    Args:
        log: keeps the state and is told of the progress.
        total: number of steps.
        tensors: everything that steps change in place, by name.
        optimizer: the optimiser; its state is kept, too.
        schedule: the schedule of its learning rate, if it has one, stepped once after each step of the loop.
        generators: generators that steps draw from, by name, in addition to PyTorch's global one.
        numpy_generators: generators of NumPy that steps draw from, by name.
        values: numbers that steps change, by name.
    """

    def __init__(
        self,
        log: TrainingLog,
        total: int,
        tensors: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
        *,
        schedule: Schedule | None = None,
        generators: Mapping[str, torch.Generator] = {},
        numpy_generators: Mapping[str, np.random.Generator] = {},
        values: MutableMapping[str, float] | None = None,
    ) -> None:
        self._log, self.total = log, total
        self._tensors, self._optimizer, self._schedule = tensors, optimizer, schedule
        self._generators, self._numpy_generators = generators, numpy_generators
        self._values = {} if values is None else values
        self.figures: dict[str, float] = {}
        """Figures that are reported with the progress, by name; steps set them."""
        self.done = 0
        left = log.unfinished()
        if left is not None and self._fits(left):
            self._restore(left)

    def __iter__(self) -> Iterator[int]:
        while self.done < self.total:
            yield self.done
            if self._schedule is not None:
                self._schedule.step()
            self.done += 1
            self._log.progress(self.done, self.total, self.figures)
            if self.done < self.total:
                self._log.keep(self._state)

    def stop(self) -> None:
        """End the loop after this step."""
        self.total = self.done + 1

    def _state(self) -> Mapping[str, NDArray[Any]]:
        state: dict[str, NDArray[Any]] = {"done": np.array([self.done])}
        for name, value in self._tensors.items():
            state[f"tensor/{name}"] = value.detach().cpu().numpy().copy()
        for index, one in self._optimizer.state_dict()["state"].items():
            for name, value in one.items():
                state[f"optimizer/{index}/{name}"] = torch.as_tensor(value).cpu().numpy().copy()
        state[GLOBAL] = torch.get_rng_state().numpy()
        for name, generator in self._generators.items():
            state[f"random/own/{name}"] = generator.get_state().numpy()
        for name, own in self._numpy_generators.items():
            state[f"random/numpy/{name}"] = np.frombuffer(json.dumps(own.bit_generator.state).encode(), np.uint8)
        state["values"] = np.array([self._values[name] for name in sorted(self._values)], np.float64)
        return state

    def _fits(self, left: Mapping[str, NDArray[Any]]) -> bool:
        """Return whether a state is whole and of this training; after anything else training starts anew."""
        shapes = {f"tensor/{name}": tuple(value.shape) for name, value in self._tensors.items()}
        shapes |= {"done": (1,), "values": (len(self._values),), GLOBAL: tuple(torch.get_rng_state().shape)}
        shapes |= {f"random/own/{name}": tuple(one.get_state().shape) for name, one in self._generators.items()}
        if any(name not in left or left[name].shape != shape for name, shape in shapes.items()):
            return False
        if any(f"random/numpy/{name}" not in left for name in self._numpy_generators):
            return False
        return 0 < int(left["done"][0]) < self.total

    def _restore(self, left: Mapping[str, NDArray[Any]]) -> None:
        self.done = int(left["done"][0])
        if self._schedule is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the schedule's steps are repeated without the optimiser's
                for _ in range(self.done):
                    self._schedule.step()
        with torch.no_grad():
            for name, value in self._tensors.items():
                value.copy_(torch.from_numpy(left[f"tensor/{name}"]))
        own = self._optimizer.state_dict()
        state: dict[int, dict[str, Tensor]] = {}
        for name, array in left.items():
            if name.startswith("optimizer/"):
                _, index, key = name.split("/")
                state.setdefault(int(index), {})[key] = torch.from_numpy(array)
        self._optimizer.load_state_dict({**own, "state": state})
        torch.set_rng_state(torch.from_numpy(left[GLOBAL]))
        for name, generator in self._generators.items():
            generator.set_state(torch.from_numpy(left[f"random/own/{name}"]))
        for name, one in self._numpy_generators.items():
            one.bit_generator.state = json.loads(left[f"random/numpy/{name}"].tobytes())
        for name, number in zip(sorted(self._values), left["values"].tolist(), strict=True):
            self._values[name] = number
