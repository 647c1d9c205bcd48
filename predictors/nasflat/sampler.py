"""NASFLAT's choice of what to measure on a target: apart from each other, and spread over what is usual and unusual.

Half of the sample has one architecture of each k-means cluster of an encoding, the one nearest to its centre; the
other half one at random of each of as many equally large buckets of mean cosine similarity to all candidates (On
Latency Predictors for Neural Architecture Search, section 4). The authors encode by zero-cost proxies; here it is the
analytic cost of the network, for which nothing is run. No latency is looked at.
"""

from __future__ import annotations

import numpy as np
from scipy.cluster.vq import kmeans2

from latlab.predictors.base import FloatArray, IntArray
from latlab.predictors.bases.fine_tuning import proxies
from latlab.search_spaces import SearchSpace

__all__ = ["sample", "sample_encodings"]


def sample(space: SearchSpace, candidates: IntArray, n: int, *, seed: int = 0) -> IntArray:
    """Rows of `candidates` (m, genes) to measure: n different ones. Raises `ValueError` when n exceeds m."""
    return sample_encodings(proxies(space, candidates).astype(np.float64), n, seed=seed)


def sample_encodings(encodings: FloatArray, n: int, *, seed: int = 0) -> IntArray:
    """Rows of `encodings` (m, d) to measure: n different ones, as above. Raises `ValueError` when n exceeds m."""
    m = len(encodings)
    if not 0 <= n <= m:
        raise ValueError(f"{n} of {m} candidates were asked for")
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    if n // 2:
        centres, _ = kmeans2(encodings, n // 2, minit="++", rng=rng)
        for centre in centres:
            distance = ((encodings - centre) ** 2).sum(axis=1)
            distance[chosen] = np.inf  # two clusters may share their nearest architecture
            chosen.append(int(distance.argmin()))
    unit = encodings / np.maximum(np.linalg.norm(encodings, axis=1, keepdims=True), 1e-12)
    similarity = unit @ unit.mean(axis=0)  # the mean of the cosines is the cosine with the mean
    left = np.setdiff1d(np.argsort(similarity), chosen, assume_unique=True)
    chosen += [int(rng.choice(bucket)) for bucket in np.array_split(left, n - len(chosen)) if len(bucket)]
    return np.array(chosen, np.int64)
