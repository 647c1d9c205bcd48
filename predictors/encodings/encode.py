"""The encodings by name: `encode` returns those of architectures, `Encoder` scales them for samplers and networks."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from latlab.predictors.base import FloatArray, IntArray
from latlab.predictors.common.cost_features import CostFeatures, cost_features
from latlab.predictors.common.cost_totals import COSTS, totals
from latlab.predictors.common.kept import code_digest, kept_folder
from latlab.predictors.encodings import arch2vec as _arch2vec
from latlab.predictors.encodings import cate as _cate
from latlab.predictors.encodings.names import PROXIES, check_encoding, runs_networks
from latlab.predictors.encodings.table import EncodingTable
from latlab.predictors.encodings.vector_cache import VectorCache
from latlab.predictors.encodings.zero_cost import zero_cost_proxies
from latlab.search_spaces import SearchSpace

__all__ = ["Encoder", "columns_of", "encode", "zcp_cache"]

SCALE_SAMPLE, QUICK_SCALE_SAMPLE = 64, 1000
"""Random architectures that set the scale of an encoding: of one that runs networks, and of the others."""
LARGEST = 4.0
"""Standard deviations from the mean at which scaled numbers are cut: proxies have long tails."""


def columns_of(space: SearchSpace, name: str) -> list[str]:
    """Return the names of an encoding's numbers."""
    check_encoding(name)
    vectors = {
        "arch2vec": [f"arch2vec_{i}" for i in range(_arch2vec.WIDTH)],
        "cate": [f"cate_{i}" for i in range(_cate.WIDTH)],
        "zcp": list(PROXIES),
    }
    if name == "totals":
        return [f"log_{cost}" for cost in COSTS]
    if name == "costs":
        return [one for group in CostFeatures.GROUPS for one in cost_features(space).columns(group)]
    if name == "caz":
        return [*vectors["cate"], *vectors["arch2vec"], *vectors["zcp"]]
    return vectors[name]


def encode(
    space: SearchSpace, genes: IntArray, name: str, *, seed: int = 0, done: Callable[[int], None] = lambda rows: None
) -> FloatArray:
    """Return an encoding of architectures `genes` (n, genes), as it is computed: shape (n, width).

    Proxies are read from the folder of `predictors.keep_in` where they were computed before, and kept there one
    architecture at a time. A proxy that does not exist for a network is NaN.

    Args:
        name: one of `ENCODINGS`.
        seed: seed of weights, batch and training.
        done: called with the number of architectures whose proxies have been computed, after each.

    Raises:
        ValueError: there is no such encoding, or the space has no networks or graphs for it.
    """
    check_encoding(name)
    if name == "totals":
        return np.log(np.maximum(totals(space)(genes), 1.0))
    if name == "costs":
        return _cost_features(space, genes)
    if name == "arch2vec":
        return _arch2vec.arch2vec(space, genes, seed=seed)
    if name == "cate":
        return _cate.cate(space, genes, seed=seed)
    proxies = _proxies(space, genes, seed, done)
    if name == "zcp":
        return proxies
    parts = [_cate.cate(space, genes, seed=seed), _arch2vec.arch2vec(space, genes, seed=seed), proxies]
    return np.concatenate(parts, axis=1)


def zcp_cache(space: SearchSpace, seed: int) -> VectorCache:
    """Return the cache of a space's proxies with the default batch of a seed."""
    folder = kept_folder()
    formulas = hashlib.sha256(Path(inspect.getfile(zero_cost_proxies)).read_bytes()).hexdigest()[:16]
    key = f"zcp/{space.name}/{seed}/{formulas}/{code_digest((type(space),))}/{torch.__version__}"
    return VectorCache(None if folder is None else folder / "encodings.db", key)


def _proxies(space: SearchSpace, genes: IntArray, seed: int, done: Callable[[int], None]) -> FloatArray:
    cache = zcp_cache(space, seed)
    found, known = cache.get(genes, len(PROXIES))
    for row in np.flatnonzero(~known):
        values = zero_cost_proxies(space, space.from_genes(genes[row]), seed=seed)
        found[row] = list(values.values())
        cache.put(genes[row : row + 1], found[row : row + 1])
        done(1)
    return found


def _cost_features(space: SearchSpace, genes: IntArray) -> FloatArray:
    costs = cost_features(space)(genes)
    # `cost_features` divides each group by the root of its width.
    columns = [costs[name] * np.sqrt(max(costs[name].shape[1], 1)) for name in CostFeatures.GROUPS]
    return np.concatenate(columns, axis=1)


class Encoder:
    """An encoding in the form that samplers and networks read: float32, of mean 0 and deviation 1 over the space.

    Proxies that are all positive are taken as logarithms first, those of both signs by their inverse hyperbolic sine; a
    missing number becomes the mean; nothing is further than 4 deviations from it.

    Args:
        name: one of `ENCODINGS`; it only names a `table` if there is one.
        seed: as for `encode`.
        table: where vectors come from instead of being computed; nothing else is mixed with them then.
    """

    def __init__(self, space: SearchSpace, name: str, *, seed: int = 0, table: EncodingTable | None = None) -> None:
        check_encoding(name)
        self.space, self.name, self.seed, self.table = space, name, seed, table

    @property
    def needs_runs(self) -> bool:
        """Whether each new architecture costs a second."""
        return self.table is None and runs_networks(self.name)

    @cached_property
    def width(self) -> int:
        """Numbers per architecture."""
        return len(self.table.columns if self.table is not None else columns_of(self.space, self.name))

    def __call__(self, genes: IntArray) -> NDArray[np.float32]:
        """Return the scaled encodings of architectures (n, genes): shape (n, width).

        Raises:
            ValueError: as `encode`, or the table lacks an architecture.
        """
        if self.table is not None:
            return self._scale(self.table(genes))
        raw = encode(self.space, genes, self.name, seed=self.seed)
        return raw.astype(np.float32) if self.name == "costs" else self._scale(raw)  # costs are scaled already

    @cached_property
    def _scale(self) -> _Scale:
        if self.table is not None:
            return _Scale(self.table.columns, self.table.vectors)
        count = SCALE_SAMPLE if self.needs_runs else QUICK_SCALE_SAMPLE
        sample = self.space.genes(self.space.sample(min(count, self.space.size), 0))
        return _Scale(columns_of(self.space, self.name), encode(self.space, sample, self.name, seed=self.seed))


class _Scale:
    """The scaling of an encoding's columns, learned from a sample (m, width)."""

    def __init__(self, columns: Sequence[str], sample: FloatArray) -> None:
        finite = [column[np.isfinite(column)] for column in sample.T]
        self._bent = np.array([name in PROXIES for name in columns], bool)
        self._positive = np.array([bool((one > 0).all()) for one in finite], bool)
        middle = [np.median(np.abs(one)) if len(one) else 1.0 for one in finite]
        self._middle = np.where(np.array(middle) > 0, middle, 1.0)
        bent = self._bend(sample)
        shown = np.isfinite(bent)
        count = np.maximum(shown.sum(axis=0), 1)
        self._mean = np.where(shown, bent, 0).sum(axis=0) / count
        deviation = np.sqrt((np.where(shown, bent - self._mean, 0) ** 2).sum(axis=0) / count)
        self._deviation = np.where(deviation > 1e-9 * (1 + np.abs(self._mean)), deviation, np.inf)

    def _bend(self, raw: FloatArray) -> FloatArray:
        relative = raw / self._middle
        with np.errstate(all="ignore"):
            logs = np.log(np.maximum(relative, 1e-300))
        return np.where(self._bent, np.where(self._positive, logs, np.arcsinh(relative)), raw)

    def __call__(self, raw: FloatArray) -> NDArray[np.float32]:
        with np.errstate(all="ignore"):
            scaled = (self._bend(raw) - self._mean) / self._deviation
        clean = np.nan_to_num(scaled, nan=0.0, posinf=LARGEST, neginf=-LARGEST)
        cut: NDArray[np.float32] = np.clip(clean, -LARGEST, LARGEST).astype(np.float32)
        return cut
