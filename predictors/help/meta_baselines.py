"""The baselines of HELP's paper that share its network: MAML, Meta-SGD, and training from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from latlab.predictors.base import FloatArray, IntArray, SourceDevice
from latlab.predictors.bases.score_predictor import ScorePredictor
from latlab.predictors.bases.trunks import Params, trunk_of
from latlab.predictors.common import serialization as files
from latlab.predictors.common.cost_features import cost_features
from latlab.predictors.help.network import EMBEDDING, forward, initial
from latlab.predictors.help.predictor import Help
from latlab.search_spaces import SearchSpace

__all__ = ["MAML", "MetaSGD", "Scratch"]

CHUNK = 2048
"""Number of architectures predicted at a time."""


class MAML(Help):
    """MAML (Finn et al., ICML 2017) as in HELP's Table 2: HELP without embeddings, z and learned rates."""

    name = "maml"
    title = "MAML: initial weights meta-learned on source devices (Finn et al., 2017), with HELP's network"
    modules: ClassVar[Mapping[str, bool]] = {"condition": False, "modulate": False, "learned_rates": False}


class MetaSGD(Help):
    """Meta-SGD (Li et al., 2017) as in HELP's Table 2: HELP without embeddings and z."""

    name = "meta-sgd"
    title = "Meta-SGD: initial weights and rates meta-learned on source devices (Li et al., 2017), HELP's network"
    modules: ClassVar[Mapping[str, bool]] = {"condition": False, "modulate": False}


class Scratch(ScorePredictor):
    """HELP's network without embeddings, trained on the target alone, as "from scratch" in HELP's Figure 3.

    Labels are scaled to 0-1 over the support. Training is full-batch Adam with the mean squared error.

    Args:
        steps: number of training steps.
        rate: learning rate of Adam.
    """

    name = "scratch"
    title = "HELP's network, trained from scratch on the target alone; no source devices"
    folds: ClassVar[int] = 5

    def __init__(self, space: SearchSpace, *, seed: int = 0, steps: int = 200, rate: float = 1e-3) -> None:
        super().__init__(space, seed=seed)
        self._steps, self._rate = steps, rate
        self._trunk = trunk_of(space)
        self._params: Params = {}
        """The trained weights; empty before there are two labels."""

    def pretrain(self, sources: Sequence[SourceDevice]) -> None:
        """Learn nothing."""
        self._params = {}
        super().pretrain(sources)

    def _fit(self, genes: IntArray, log_latency: FloatArray, label_variance: FloatArray) -> None:
        self._params = {}
        if len(genes) < 2:
            return
        latency = np.exp(log_latency)
        y = torch.tensor((latency - latency.min()) / (np.ptp(latency) or 1.0), dtype=torch.float32)
        x, device = self._trunk.inputs(genes)[None], torch.zeros(1, EMBEDDING)
        generator = torch.Generator().manual_seed(self.seed)
        params = initial(self._trunk, generator, condition=False, modulate=False).weights
        params = {name: value[None].requires_grad_() for name, value in params.items()}
        optimizer = torch.optim.Adam(list(params.values()), lr=self._rate, fused=True)
        with torch.enable_grad():
            for _ in range(self._steps):
                optimizer.zero_grad()
                loss = ((forward(self._trunk, params, x, device)[0] - y) ** 2).mean()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        self._params = {name: value.detach() for name, value in params.items()}

    @torch.no_grad()
    def _scores(self, genes: IntArray) -> FloatArray:
        if not self._params:
            return np.asarray(cost_features(self.space)(genes)["totals"].sum(axis=1))
        parts, device = [np.empty(0)], torch.zeros(1, EMBEDDING)
        for start in range(0, len(genes), CHUNK):
            x = self._trunk.inputs(genes[start : start + CHUNK])[None]
            parts.append(forward(self._trunk, self._params, x, device)[0].numpy())
        return np.concatenate(parts)

    def _state(self) -> files.Arrays:
        return {f"weights/{name}": value.numpy() for name, value in self._params.items()}

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self._params = {name.removeprefix("weights/"): torch.from_numpy(value) for name, value in arrays.items()}
