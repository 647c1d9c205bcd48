"""True latencies from a cost model: a roofline over the layers of a network (`latlab.search_spaces.layers`).

The layers of a network are counted once per process for all devices, as a graph compiler leaves them (without dead
edges): architectures that export to the same graph take the same time, whatever their strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from latlab.harness.transports.simulated.config import Cost, LayerKind
from latlab.search_spaces import Architecture, ArchitectureError, SearchSpace, UnknownSpaceError, get
from latlab.search_spaces.layers import BYTES_PER_ELEMENT

__all__ = ["LAYER_KINDS", "NetworkCost", "Roofline", "by_size", "network_cost", "spellings"]

LAYER_KINDS: tuple[LayerKind, ...] = get_args(LayerKind)
_EFFICIENCY = {"depthwise": 0.35, "grouped": 0.5, "linear": 0.6}
"""The share of the peak that a kind of layer reaches, where its kernels reuse little of what they load."""
_PARALLEL_EXPONENT = 0.85
"""n threads compute n**0.85 times as fast as one, and move bytes as fast as one."""
_MACS_PER_PARAM = 100
"""Uses of each weight where only a network's size is known: between MobileNetV2's 90 and ResNet-50's 160."""
_KIND_INDEX: dict[str, int] = {kind: index for index, kind in enumerate(LAYER_KINDS)}


@dataclass(frozen=True, slots=True)
class NetworkCost:
    """The costs of a network's layers at batch size 1, as arrays of shape (layers,)."""

    kinds: NDArray[np.int8]
    """Indices into `LAYER_KINDS`."""
    flops: NDArray[np.float64]
    """Floating-point operations, two per multiply-accumulate."""
    moved_bytes: NDArray[np.float64]
    """Bytes of activations read and written; they grow with the batch."""
    weight_bytes: NDArray[np.float64]
    """Bytes of weights read, whatever the batch size."""
    input_shape: tuple[int, int, int] | None
    """Channels, height and width of the input; None where they are unknown."""

    @property
    def params(self) -> int:
        """The number of weights."""
        return int(self.weight_bytes.sum()) // BYTES_PER_ELEMENT

    def takes(self, shape: Sequence[int]) -> bool:
        """Return whether the network accepts inputs of `shape`: batch size, then channels first or last (TFLite)."""
        if self.input_shape is None:
            return True
        channels, *sides = self.input_shape
        return list(shape[1:]) in ([channels, *sides], [*sides, channels])

    @property
    def layer_kinds(self) -> set[str]:
        """The kinds of layers that the network has."""
        return {LAYER_KINDS[index] for index in np.unique(self.kinds)}


def _architecture(network: str) -> tuple[SearchSpace, Architecture] | None:
    """Return the space and architecture of "SPACE/ARCH", or None for other text (a model of the user's own)."""
    space_name, _, text = network.partition("/")
    try:
        space = get(space_name)
        return space, space.parse(text)
    except (UnknownSpaceError, ArchitectureError):
        return None


@lru_cache(4096)
def network_cost(network: str) -> NetworkCost | None:
    """Return the costs of the network "SPACE/ARCH", or None for other text."""
    found = _architecture(network)
    if found is None:
        return None
    space, arch = found
    layers = space.layers(arch, live=True)
    return NetworkCost(
        np.array([_KIND_INDEX.get(layer.kind, _KIND_INDEX["other"]) for layer in layers], np.int8),
        # Operators without multiply-accumulates still compute something for each element that they write.
        np.array([2.0 * layer.macs or layer.activations for layer in layers], np.float64),
        BYTES_PER_ELEMENT * np.array([layer.in_elements + layer.activations for layer in layers], np.float64),
        BYTES_PER_ELEMENT * np.array([layer.params for layer in layers], np.float64),
        space.input_shape(arch),
    )


def by_size(size_bytes: int) -> NetworkCost:
    """Return the costs of a model of which only the file's size is known.

    It counts as one layer whose fp32 weights fill the file, each used for 100 multiply-accumulates.
    """
    params = size_bytes / BYTES_PER_ELEMENT
    return NetworkCost(
        np.array([_KIND_INDEX["conv"]], np.int8),
        np.array([2.0 * _MACS_PER_PARAM * params]),
        np.zeros(1),
        np.array([float(size_bytes)]),
        None,
    )


class Roofline:
    """The speed of one device.

    Args:
        cost: the speed of devices of its kind.
        seed: the seed of its difference from others of its kind (`Cost.variation`).
    """

    def __init__(self, cost: Cost, seed: int | Sequence[int] = 0) -> None:
        usual = np.array([_EFFICIENCY.get(kind, 1.0) for kind in LAYER_KINDS])
        if cost.variation:
            usual *= np.exp(cost.variation * np.random.default_rng(seed).standard_normal(len(usual)))
        self._flops_per_ms = (cost.peak_gflops * 1e6 * usual).astype(np.float32)
        self._bytes_per_ms = cost.memory_gb_s * 1e6
        self._overhead_ms = cost.overhead_us / 1e3

    def latency_ms(self, network: NetworkCost, batch_size: int = 1, threads: int = 1) -> float:
        """Return the milliseconds of a network: the sum over its layers; of one without layers, the overhead of one."""
        return float(self.layers_ms(network, batch_size, threads).sum()) or self._overhead_ms

    def layers_ms(self, network: NetworkCost, batch_size: int = 1, threads: int = 1) -> NDArray[np.float64]:
        """Return the milliseconds of each layer: the longer of computing and moving bytes, plus the overhead."""
        computing = network.flops * batch_size / (self._flops_per_ms[network.kinds] * threads**_PARALLEL_EXPONENT)
        moving = (network.moved_bytes * batch_size + network.weight_bytes) / self._bytes_per_ms
        return np.asarray(np.maximum(computing, moving) + self._overhead_ms, np.float64)


@lru_cache(4096)
def spellings(network: str) -> tuple[str, ...]:
    """Return the strings under which a table may list the network "SPACE/ARCH": the canonical one first."""
    found = _architecture(network)
    if found is None:
        return ()
    space, arch = found
    return tuple(dict.fromkeys((space.canonical(arch).text, arch.text)))
