"""Samplers: ways to choose the architectures to measure on a new device before any of them is measured.

All have one interface: a `Pool` says what may be chosen and what is known about it, and `Sampler.choose` returns rows.
On the command line a sampler is a word, or a word and an encoding: `cosine:arch2vec`.

Most are those that NASFLAT compares (Akhauri and Abdelfattah, On Latency Predictors for Neural Architecture Search,
MLSys 2024, section 4 and tables 3 and 9).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.cluster.vq import kmeans2

from latlab.predictors.acquisition import CANDIDATES, REFERENCE, choose
from latlab.predictors.base import FloatArray, IntArray, Predictor, SourceDevice
from latlab.predictors.common.cost_totals import totals
from latlab.predictors.encodings.names import ENCODINGS
from latlab.predictors.encodings.table import EncodingTable
from latlab.search_spaces import SearchSpace

__all__ = ["ORACLE", "SAMPLERS", "Pool", "Sampler", "parse_sampler", "sampler_names"]

RUN_CANDIDATES = 200
"""Candidates that an encoding which runs networks is computed for, a random draw; each of them takes about a second."""
ORACLE = "latency-oracle"
"""The sampler that needs the latencies themselves, so that only a replay on a table can use it."""
DEFAULT_ENCODING = "costs"


@dataclass(frozen=True)
class Pool:
    """Architectures of a space, which of them may be chosen, and what is known about them."""

    space: SearchSpace
    genes: IntArray
    """The architectures, shape (m, genes)."""
    rows: IntArray
    """Those that can be measured, as rows of `genes`."""
    taken: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    """Rows that are measured in any case, and not chosen again."""
    predictor: Predictor | None = None
    """The predictor that will be fitted, for `designed`; it forgets its adaptation."""
    sources: Sequence[SourceDevice] = ()
    """Devices whose latencies are known, for `latency-quantiles`."""
    table: EncodingTable | None = None
    """The encoding that samplers with an encoding read instead of computing it."""
    latency_ms: FloatArray | None = field(default=None, repr=False)
    """The latencies on the target, shape (m,), for `latency-oracle` only."""

    @property
    def open(self) -> IntArray:
        """The rows that can be chosen."""
        return np.asarray(self.rows[~np.isin(self.rows, self.taken)], np.int64)


Rule = Callable[[Pool, int, np.random.Generator, str], IntArray]


@dataclass(frozen=True)
class Sampler:
    """A sampler by its word and, where it has one, its encoding."""

    name: str
    encoding: str = ""

    @property
    def text(self) -> str:
        """The shortest text that the command line takes."""
        return self.name if self.encoding in ("", DEFAULT_ENCODING) else f"{self.name}:{self.encoding}"

    def choose(self, pool: Pool, n: int, rng: np.random.Generator) -> IntArray:
        """Return `n` different rows of the pool, in the order in which they are to be measured.

        Raises:
            ValueError: the pool has fewer than `n` that can be chosen, or lacks what the sampler needs.
        """
        m = len(pool.open)
        if not 0 <= n <= m:
            raise ValueError(f"{n} of {m} architectures were asked for")
        return np.asarray(SAMPLERS[self.name](pool, n, rng, self.encoding), np.int64)


def parse_sampler(text: str) -> Sampler:
    """Return the sampler of a text such as `random` or `kmeans:zcp`.

    Raises:
        ValueError: there is no such sampler or encoding; the message says which there are.
    """
    name, colon, encoding = text.strip().partition(":")
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r:.60}; there are: {', '.join(sampler_names())}")
    if name not in ENCODED:
        if colon:
            raise ValueError(f"the sampler {name} reads no encoding: leave out {':' + encoding!r:.60}")
        return Sampler(name)
    encoding = encoding if colon else DEFAULT_ENCODING
    if encoding not in ENCODINGS:
        raise ValueError(f"unknown encoding {encoding!r:.60} of the sampler {name}; there are: {', '.join(ENCODINGS)}")
    return Sampler(name, encoding)


def sampler_names() -> list[str]:
    """Return the samplers as the command line takes them; ENCODING stands for one of `ENCODINGS`."""
    return [f"{name}[:ENCODING]" if name in ENCODED else name for name in SAMPLERS]


def at_random(pool: Pool, n: int, rng: np.random.Generator, encoding: str) -> IntArray:
    """Choose uniformly at random. With equal generators, a smaller n is a prefix of a larger one."""
    drawn = rng.permutation(pool.rows)
    return np.asarray(drawn[~np.isin(drawn, pool.taken)][:n])


def by_params(pool: Pool, n: int, rng: np.random.Generator, encoding: str) -> IntArray:
    """Sort by number of parameters, cut into n equally large buckets, and draw one architecture from each."""
    params = totals(pool.space)(pool.genes[pool.open], "params")[:, 0]
    return _one_of_each(pool.open[np.argsort(params, kind="stable")], n, rng)


def by_latency(pool: Pool, n: int, rng: np.random.Generator, encoding: str) -> IntArray:
    """Sort by the target's own latency, cut into n buckets, and draw one from each: an oracle, for comparison."""
    if pool.latency_ms is None:
        raise ValueError(f"{ORACLE} needs the latencies that it is to choose by, which only `latlab bench` has")
    return _one_of_each(pool.open[np.argsort(pool.latency_ms[pool.open], kind="stable")], n, rng)


def by_quantiles(pool: Pool, n: int, rng: np.random.Generator, encoding: str) -> IntArray:
    """Sort by mean rank over the reference devices and take the middle of each of n buckets.

    So the sample covers the quantiles of latency on devices that are known, as the reference set of MAPLE-Edge (Nair et
    al., MAPLE-Edge: A Runtime Latency Predictor for Edge Devices, CVPR workshops 2022). Architectures that no
    reference device has measured cannot be chosen.
    """
    row_of = {pool.genes[row].tobytes(): row for row in pool.open.tolist()}
    ranks: dict[int, list[float]] = {}
    for source in pool.sources:
        order = np.argsort(np.argsort(source.latency_ms, kind="stable"), kind="stable") / max(len(source.genes) - 1, 1)
        for genes, rank in zip(source.genes, order.tolist(), strict=True):
            row = row_of.get(genes.tobytes())
            if row is not None:
                ranks.setdefault(row, []).append(rank)
    if len(ranks) < n:
        raise ValueError(
            f"the reference devices have measured {len(ranks)} of the architectures to choose from, too few for {n}"
        )
    known = sorted(ranks, key=lambda row: (float(np.mean(ranks[row])), row))
    return np.array([bucket[len(bucket) // 2] for bucket in np.array_split(known, max(n, 1))][:n], np.int64)


def by_design(pool: Pool, n: int, rng: np.random.Generator, encoding: str) -> IntArray:
    """Choose what lowers the predictor's prior variance over the architectures most (`acquisition.choose`)."""
    if pool.predictor is None:
        raise ValueError("the sampler designed needs a predictor, whose variance it lowers")
    pool.predictor.adapt(pool.genes[:0], [])
    candidates = rng.choice(pool.open, min(max(CANDIDATES, n), len(pool.open)), replace=False)
    reference = rng.choice(len(pool.genes), min(REFERENCE, len(pool.genes)), replace=False)
    chosen = choose(pool.predictor, pool.genes[candidates], pool.genes[reference], n, pool.genes[pool.taken])
    return np.asarray(candidates[chosen])


def by_cosine(pool: Pool, n: int, rng: np.random.Generator, encoding: str) -> IntArray:
    """Sort by mean cosine similarity to all of the pool, cut into n buckets, and draw one from each."""
    rows, vectors = _encoded(pool, n, rng, encoding)
    return np.asarray(rows[_cosine(vectors, n, rng)])


def by_kmeans(pool: Pool, n: int, rng: np.random.Generator, encoding: str) -> IntArray:
    """Take the architecture nearest to each of n centres of k-means."""
    rows, vectors = _encoded(pool, n, rng, encoding)
    return np.asarray(rows[_kmeans(vectors, n, rng)])


def by_both(pool: Pool, n: int, rng: np.random.Generator, encoding: str) -> IntArray:
    """Choose half by k-means and the others by cosine similarity, which is NASFLAT's sampler."""
    rows, vectors = _encoded(pool, n, rng, encoding)
    chosen = _kmeans(vectors, n // 2, rng)
    return np.asarray(rows[np.concatenate([chosen, _cosine(vectors, n - len(chosen), rng, chosen)])])


SAMPLERS: dict[str, Rule] = {
    "random": at_random,
    "params": by_params,
    "designed": by_design,
    "latency-quantiles": by_quantiles,
    ORACLE: by_latency,
    "cosine": by_cosine,
    "kmeans": by_kmeans,
    "diverse": by_both,
}
"""The samplers by name."""
ENCODED = ("cosine", "kmeans", "diverse")
"""Samplers that read an encoding."""


def _encoded(pool: Pool, n: int, rng: np.random.Generator, encoding: str) -> tuple[IntArray, FloatArray]:
    """Return rows that can be chosen and their encodings: all, or fewer where a table or time sets a limit."""
    from latlab.predictors.encodings.encode import Encoder  # torch is heavy, and the other samplers do without

    rows = pool.open
    if pool.table is not None:
        rows = rows[pool.table.rows(pool.genes[rows]) >= 0]
        if len(rows) < n:
            raise ValueError(f"{pool.table.name} has {len(rows)} of the architectures to choose from, too few for {n}")
    encoder = Encoder(pool.space, encoding, table=pool.table)
    if encoder.needs_runs:
        rows = rng.permutation(rows)[: max(RUN_CANDIDATES, n)]
    return rows, encoder(pool.genes[rows]).astype(np.float64)


def _kmeans(vectors: FloatArray, n: int, rng: np.random.Generator) -> IntArray:
    if not n:
        return np.empty(0, np.int64)
    centres, _ = kmeans2(vectors, n, minit="++", rng=rng)
    chosen: list[int] = []
    for centre in centres:
        distance = ((vectors - centre) ** 2).sum(axis=1)
        distance[chosen] = np.inf  # two clusters may share their nearest architecture
        chosen.append(int(distance.argmin()))
    return np.array(chosen, np.int64)


def _cosine(vectors: FloatArray, n: int, rng: np.random.Generator, taken: IntArray | None = None) -> IntArray:
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    similarity = unit @ unit.mean(axis=0)  # the mean of the cosines is the cosine with the mean
    order = np.argsort(similarity, kind="stable")
    if taken is not None:
        order = np.setdiff1d(order, taken, assume_unique=True)
    return _one_of_each(order, n, rng)


def _one_of_each(order: IntArray, n: int, rng: np.random.Generator) -> IntArray:
    """Return one random row of each of n equally large buckets of a sorted pool."""
    if not n:
        return np.empty(0, np.int64)
    return np.array([int(rng.choice(bucket)) for bucket in np.array_split(order, n)], np.int64)
