"""The computation of an encoding for many architectures, in several processes, resumable after a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from latlab import predictors
from latlab.harness.distributed.engines import in_parallel
from latlab.harness.distributed.local import one_thread
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.paths import cache_folder
from latlab.predictors.base import FloatArray, IntArray
from latlab.predictors.encodings.encode import columns_of, encode, zcp_cache
from latlab.predictors.encodings.names import PROXIES, check_encoding, check_proxies, runs_networks
from latlab.search_spaces import SearchSpace, get

__all__ = ["Encoded", "encode_networks"]

AT_A_TIME = 8
"""Architectures per task of a process: few enough for a steady progress bar."""


@dataclass(frozen=True)
class Encoded:
    """The encodings of n architectures."""

    table: pd.DataFrame
    """A row per architecture: `arch`, then the encoding's numbers."""
    computed: int
    """Architectures whose networks ran now; the others were in the cache, or needed no run."""


def encode_networks(
    space: SearchSpace,
    genes: IntArray,
    encoding: str,
    *,
    seed: int = 0,
    engine: str = "local",
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Encoded:
    """Return an encoding of architectures `genes` (n, genes).

    Proxies that are in the cache are read. Others are kept there as they are computed, so the same call continues after
    a kill.

    Args:
        seed: seed of weights, batch and training.
        engine: where networks are run, as `in_parallel`.
        jobs: number of processes of `local`, for encodings that run networks.
        progress: called with the architectures that were run, and how many are to be run, as they are finished.

    Raises:
        BadInputError: there is no such encoding, or the space has none.
        LatlabError: a network cannot be run.
    """
    predictors.keep_in(cache_folder)
    one_thread()
    try:
        check_encoding(encoding)
        computed = _run(space, genes, seed, engine, jobs, progress) if runs_networks(encoding) else None
        vectors = encode(space, genes, encoding, seed=seed) if encoding != "zcp" or computed is None else computed[0]
        names = columns_of(space, encoding)
    except ValueError as error:
        raise BadInputError(str(error)) from error
    table = pd.DataFrame(vectors, columns=names)
    table.insert(0, "arch", [arch.text for arch in space.architectures(genes)])
    return Encoded(table, 0 if computed is None else computed[1])


def _run(
    space: SearchSpace,
    genes: IntArray,
    seed: int,
    engine: str,
    jobs: int,
    progress: Callable[[int, int], None],
) -> tuple[FloatArray, int]:
    """Return the proxies of all architectures, and how many networks had to be run for them."""
    check_proxies(space)
    cache = zcp_cache(space, seed)
    found, known = cache.get(genes, len(PROXIES))
    missing = np.flatnonzero(~known)
    unique = list({genes[row].tobytes(): int(row) for row in missing}.values())
    parts = [genes[unique[start : start + AT_A_TIME]] for start in range(0, len(unique), AT_A_TIME)]
    if parts:
        progress(0, len(unique))
    fresh: dict[bytes, FloatArray] = {}
    done = 0
    try:
        for place, vectors in in_parallel(
            partial(_proxies, space.name, seed), parts, engine=engine, jobs=min(jobs, max(len(parts), 1))
        ):
            if engine != "local":  # the processes of another machine keep them there
                cache.put(parts[place], vectors)
            fresh |= {row.tobytes(): vector for row, vector in zip(parts[place], vectors, strict=True)}
            done += len(parts[place])
            progress(done, len(unique))
    except (RuntimeError, NotImplementedError) as error:
        raise LatlabError(f"the proxies of {space.name} cannot be computed: {error!s:.300}") from error
    for row in missing:
        found[row] = fresh[genes[row].tobytes()]
    return found, len(unique)


def _proxies(space: str, seed: int, genes: IntArray) -> FloatArray:
    """Return the proxies of a few architectures in a process of their own, which keeps each of them in the cache."""
    predictors.keep_in(cache_folder)
    return encode(get(space), genes, "zcp", seed=seed)
