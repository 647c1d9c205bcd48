"""Synthetic devices: latencies that thousands of imaginary processors and runtimes would have.

A device is drawn from a roofline model (Williams, Waterman and Patterson, CACM 2009), extended by the ways in which
real runtimes depart from it. A layer with `macs` multiply-accumulates that moves `bytes` takes

    compute = batch * macs / (rate(kind) * use(channels) * use(parallelism))
    memory  = (batch * activations + parameters) / bandwidth(kind)
    time    = deviation * ((compute^p + memory^p)^(q/p) + launch^q)^(1/q)

p = 1 adds the two, large p overlaps them; q = 1 adds a launch overhead per kernel, large q hides it behind the work of
kernels launched before. `use` falls with few channels (vector units, padding to multiples of a quantum) and with little
parallel work. Element-wise layers may be fused into their neighbours. A device executes one reading of the graph
(`SearchSpace.readings`), and a network takes as long as the slowest branch. Deviations are log-normal per kind and
kernel size, per kind and resolution, and per layer.

Every number is a ratio, so absolute speed plays no role: latencies are scaled to mean 1 over the sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latlab.predictors.base import FloatArray, IntArray
from latlab.predictors.synthetic.workload import Workload

__all__ = ["Devices", "synthesise", "synthesise_jointly"]

HEAVY = ("conv", "pointwise", "grouped", "depthwise", "linear")
WRITTEN = 0.25
"""Share of devices whose runtime executes the graph as written (a space's first reading), as frameworks do; the other
readings, which are those of compilers, share the rest equally."""
WIDTHS = (0.4, 0.25, 0.25)
"""Largest logarithmic standard deviations per kind and kernel size, per kind and resolution, and per layer."""
KIND_SPREAD = 0.3
"""Logarithmic standard deviation of the rate of a kind of layer."""
HEAVY_LAUNCH = (1.0, 2.5)
DEPTHWISE_FLOOR = (-1.0, 1.5)
"""Two ranges of logarithms that matter between spaces only, because within one space its labels tell: how much longer
the launch of a convolution takes than that of an element-wise layer (normalisation and set-up count in it), and the
least work of a depthwise layer, which libraries execute badly, relative to that of a typical layer."""
FUSED = {"relu": 0.7, "hswish": 0.6, "hsigmoid": 0.5, "zero": 0.6, "add": 0.4, "batchnorm": 0.7, "mul": 0.3}
"""Probability that a runtime fuses layers of a kind into their neighbours, or drops them."""


@dataclass(frozen=True, slots=True)
class Devices:
    """The latencies of S synthetic devices."""

    latency: FloatArray
    """Latencies of m architectures, shape (S, m), each row of mean 1."""
    reading: IntArray
    """Number of the reading of the graph that each device executes, shape (S,)."""
    level: FloatArray
    """Mean latencies before they were scaled, shape (S,), in a unit that the workloads of one call have in common."""


def synthesise(workload: Workload, count: int, seed: int) -> Devices:
    """Draw `count` devices and return their latencies of the workload's architectures."""
    return synthesise_jointly([workload], count, seed)[0]


def synthesise_jointly(workloads: Sequence[Workload], count: int, seed: int) -> tuple[Devices, ...]:
    """Draw `count` devices and return, for each workload, the latencies that the same devices have there.

    A runtime reads all graphs alike. Of a workload that has not the reading of the device, it executes the first one.

    Args:
        workloads: of `workloads_of`, with the same layers.
    """
    rng = np.random.default_rng(seed)
    price = _prices(workloads[0], count, rng, apart=len(workloads) > 1)
    names = list(max(workloads, key=lambda one: len(one.readings)).readings)
    share = np.array([WRITTEN if len(names) > 1 else 1.0] + [(1 - WRITTEN) / max(len(names) - 1, 1)] * (len(names) - 1))
    reading = rng.choice(len(names), count, p=share)
    return tuple(_latencies(workload, price, names, reading) for workload in workloads)


def _latencies(workload: Workload, price: FloatArray, names: Sequence[str], reading: IntArray) -> Devices:
    first = next(iter(workload.readings.values()))
    latency = np.empty((len(reading), 1 + max(owner[-1] for _, owner in workload.readings.values())))
    for number, name in enumerate(names):
        runs, owner = workload.readings.get(name, first)
        mine = np.flatnonzero(reading == number)
        times = runs @ price[:, mine]
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        latency[mine] = np.maximum.reduceat(times, starts, axis=0).T
    level = latency.mean(axis=1)
    return Devices(latency / level[:, None], reading, level)


def _prices(workload: Workload, count: int, rng: np.random.Generator, *, apart: bool = False) -> FloatArray:
    """Return the time of each layer on each device, in arbitrary units: shape (L, count).

    Args:
        apart: vary also what matters between spaces only (`HEAVY_LAUNCH`).
    """
    facts = {name: values[:, None] for name, values in workload.facts.items()}
    kinds, kind = workload.kinds, workload.kind

    def normal(*shape: int) -> FloatArray:
        return rng.standard_normal(shape)

    def uniform(low: float, high: float) -> FloatArray:
        return rng.uniform(low, high, count)

    def among(*names: str) -> NDArray[np.bool_]:
        """Return which layers are of one of these kinds: shape (L, 1)."""
        return np.isin(np.array(kinds)[kind], names)[:, None]

    batch = 2.0 ** rng.integers(0, 9, count)
    # Dense convolutions run at the peak rate, all other kinds somewhat below it; each kind has its own deviation.
    lag = np.zeros((len(kinds), count))
    for row, name in enumerate(kinds):
        lag[row] = {"conv": 0.0, "linear": 0.5, "pointwise": 0.3, "grouped": 0.8, "depthwise": 1.2}.get(name, 0.5)
    lag = lag * uniform(0, 2) + KIND_SPREAD * normal(len(kinds), count)
    # `lanes` is a vector width or array size: fewer channels than that leave part of the machine idle.
    lanes = np.exp(uniform(np.log(1), np.log(128)))
    quantum = 2.0 ** rng.integers(0, 6, count)
    inputs = facts["in_channels"] / facts["groups"]
    heavy = among(*HEAVY)
    padded = np.where(heavy, np.ceil(inputs / quantum) * quantum / inputs, 1)
    padded = 1 + (padded - 1) * rng.uniform(0, 1, count) * among("conv", "pointwise", "linear")
    use = facts["out_channels"] / (facts["out_channels"] + lanes)
    parallel = batch * facts["activations"]
    use = use * parallel / (parallel + np.exp(uniform(np.log(10), np.log(3e5))))
    compute = batch * facts["macs"] * padded * np.exp(lag[kind]) / use
    # Arithmetic intensity at which memory and compute balance: half a multiply-accumulate to 200 per element.
    balance = np.exp(uniform(np.log(0.5), np.log(200)))
    moved = batch * (facts["in_elements"] + facts["activations"]) + facts["params"] * np.exp(uniform(-3, 1))
    memory = balance * moved * np.exp(KIND_SPREAD * normal(len(kinds), count)[kind])
    window = among("pool") * batch * facts["activations"] * facts["kernel"] ** 2
    memory = memory + window * np.exp(uniform(-3, 3)) * balance / 4
    p = rng.choice([1.0, 2.0, 4.0], count)
    work = (compute**p + memory**p) ** (1 / p)
    # The launch overhead, relative to the work of a typical layer, is between negligible and dominant.
    typical = np.exp(np.log(np.maximum(work, 1e-30))[heavy[:, 0] if heavy.any() else slice(None)].mean(axis=0))
    launch = typical * np.exp(uniform(np.log(1e-3), np.log(30))) * np.exp(0.25 * normal(len(kinds), count))[kind]
    if apart:
        launch = launch * np.exp(uniform(*HEAVY_LAUNCH)) ** heavy
        work = work + typical * np.exp(uniform(*DEPTHWISE_FLOOR)) * among("depthwise")
    q = rng.choice([1.0, 1.0, 4.0], count)
    time = (work**q + launch**q) ** (1 / q)
    for row, name in enumerate(kinds):
        if name in FUSED:
            time[kind == row] *= rng.random(count) > FUSED[name]
    classes = np.unique(np.stack([kind, facts["kernel"][:, 0]]), axis=1, return_inverse=True)[1]
    places = np.unique(np.stack([kind, facts["out_size"][:, 0]]), axis=1, return_inverse=True)[1]
    for groups, width in zip((classes, places, np.arange(len(kind))), WIDTHS, strict=True):
        time *= np.exp(normal(groups.max() + 1, count)[groups] * uniform(0, width))
    return np.asarray(time)
