"""BRP-NAS's latency predictor (Dudziak et al., BRP-NAS: Prediction-based NAS using GCNs, NeurIPS 2020).

Four graph convolutions of 600 channels, each with a layer norm, read a network's graph at a global node; one linear
layer gives its latency. The paper trains it on 900 measurements of one device. Here it can also be pre-trained on
source devices, which share all layers but the last; then all weights are fine-tuned to the target, from the last layer
of the source that ranks the target's measurements best.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latlab.predictors.base import IntArray, SourceDevice
from latlab.predictors.bases.fine_tuning import Schedule, Settings, TransferPredictor
from latlab.predictors.bases.trunks import Params, Trunk, gcn_trunk_of
from latlab.search_spaces import SearchSpace

__all__ = ["BRPNAS"]

WIDTH = 600
DROPOUT = 0.002

SCRATCH = Schedule(epochs=250, batch=32, rate=1e-3, decay=5e-4, most_steps=2000)
"""The paper: 250 epochs, one network at a time, at .0004. Batches of 32 at .001 take a thirtieth of the steps."""
PRETRAINING = Schedule(epochs=40, batch=128, rate=1e-3, decay=5e-4, most_steps=2500)
TRANSFER = Schedule(epochs=60, batch=16, rate=4e-4, decay=5e-4, most_steps=1500)


class _Network(nn.Module):
    """The network: it gives scores (n,) of n architectures on the devices of the indices (n,)."""

    def __init__(self, trunk: Trunk, devices: int) -> None:
        super().__init__()
        self._trunk = trunk
        shapes = trunk.initial(torch.Generator().manual_seed(0))
        self.trunk = nn.ParameterDict()
        for name, shape in ((name, value.shape) for name, value in shapes.items()):
            layer = name.partition(".")[0]
            weight = nn.Parameter(torch.empty(shape))
            if layer.startswith("norm"):
                nn.init.constant_(weight, float(name.endswith("weight")))
            else:
                nn.init.uniform_(weight, -(WIDTH**-0.5), WIDTH**-0.5)
            self.trunk[name.replace(".", "_")] = weight
        self.devices = nn.Embedding(devices, WIDTH + 1)
        nn.init.uniform_(self.devices.weight, -(WIDTH**-0.5), WIDTH**-0.5)

    def forward(self, inputs: Tensor, device: Tensor) -> Tensor:
        params: Params = {name.replace("_", "."): value[None] for name, value in self.trunk.items()}
        read = F.dropout(self._trunk(params, inputs[None])[0], DROPOUT, self.training)
        last = self.devices(device)
        scores: Tensor = (read * last[:, :-1]).sum(dim=1) + last[:, -1]
        return scores


class BRPNAS(TransferPredictor):
    """BRP-NAS: graph convolutions, trained on the target alone, as in the paper, or pre-trained on source devices.

    Args:
        transfer: whether source devices are used; off for the paper's predictor.
        settings: schedules of the training.
    """

    name = "brp-nas"
    title: ClassVar[str] = "BRP-NAS: graph convolutions (NeurIPS 2020), pre-trained on source devices if there are any"

    def __init__(
        self, space: SearchSpace, *, seed: int = 0, transfer: bool = True, settings: Settings | None = None
    ) -> None:
        super().__init__(space, seed=seed, settings=settings)
        self._transfer = transfer
        self._trunk = gcn_trunk_of(space, width=WIDTH, norms=True)

    def pretrain(self, sources: Sequence[SourceDevice]) -> None:
        super().pretrain(sources if self._transfer else ())

    def _default_settings(self) -> Settings:
        return Settings(PRETRAINING, TRANSFER, scratch=SCRATCH)

    def _network(self, devices: int) -> nn.Module:
        return _Network(self._trunk, devices)

    def _inputs(self, genes: IntArray) -> Tensor:
        return self._trunk.inputs(genes)

    def _loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        return F.l1_loss(scores, labels)
