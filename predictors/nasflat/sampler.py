"""NASFLAT's choice of the architectures to measure on a target, which makes a sample diverse without any latency.

Half of the sample consists of the architectures nearest to the centres of k-means clusters of an encoding. For the
other half the candidates are sorted by their mean cosine similarity to all candidates and cut into equally large
buckets, and one is drawn from each (On Latency Predictors for Neural Architecture Search, section 4). The authors
encode by zero-cost proxies; here the encoding is the analytic cost of the network, for which nothing is run.
"""

from __future__ import annotations

import numpy as np
from scipy.cluster.vq import kmeans2

from latlab.predictors.base import FloatArray, IntArray
from latlab.predictors.bases.fine_tuning import proxies
from latlab.search_spaces import SearchSpace

__all__ = ["sample", "sample_encodings"]


def sample(space: SearchSpace, candidates: IntArray, n: int, *, seed: int = 0) -> IntArray:
    """Choose n different rows of `candidates` (m, genes) to measure.

    Returns:
        Positions in `candidates`, shape (n,).

    Raises:
        ValueError: n exceeds m.
    """
    return sample_encodings(proxies(space, candidates).astype(np.float64), n, seed=seed)


def sample_encodings(encodings: FloatArray, n: int, *, seed: int = 0) -> IntArray:
    """Choose n different rows of `encodings` (m, d), as `sample` does.

    Returns:
        Positions in `encodings`, shape (n,).

    Raises:
        ValueError: n exceeds m.
    """
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
