"""The choice of networks by a sampler, before anything is measured: for `measure` and `onboard --acquisition`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from latlab import predictors
from latlab.harness.encoding.tables import read_encoding_table
from latlab.harness.errors import BadInputError
from latlab.harness.paths import cache_folder
from latlab.predictors import Predictor, SourceDevice
from latlab.predictors.acquisition import CANDIDATES
from latlab.predictors.samplers import ENCODED, ORACLE, Pool, Sampler, parse_sampler
from latlab.search_spaces import Architecture, SearchSpace

__all__ = ["SEQUENTIAL", "choose_networks", "sampler_named"]

SEQUENTIAL = "sequential"
"""The choice of one network after the other in the closed loop, which is no sampler."""


def sampler_named(text: str, table: Path | None = None) -> Sampler:
    """Return the sampler of `--acquisition`, for a device whose latencies nobody knows yet.

    Args:
        table: the table of encodings that it is to read, if one was given.

    Raises:
        BadInputError: there is no such sampler, it needs the latencies themselves, or it reads no table.
    """
    try:
        sampler = parse_sampler(text)
    except ValueError as error:
        raise BadInputError(f"--acquisition: {error}") from error
    if sampler.name == ORACLE:
        raise BadInputError(
            f"--acquisition {ORACLE} chooses by the latencies that are to be measured",
            "Only `latlab bench` can use it, on a table.",
        )
    if table is not None and sampler.name not in ENCODED:
        raise BadInputError(f"--acquisition {text} reads no encodings", "Leave out --encoding-table.")
    return sampler


def choose_networks(
    space: SearchSpace,
    sampler: Sampler,
    count: int,
    *,
    seed: int,
    predictor: Predictor | None = None,
    sources: Sequence[SourceDevice] = (),
    table: Path | None = None,
    exclude: Sequence[Architecture] = (),
) -> list[Architecture]:
    """Return `count` networks of a space in the order in which they are to be measured.

    They are chosen from random networks; from those of the `table`, if there is one; or, for `latency-quantiles`, from
    those that the sources have measured.

    Args:
        seed: seed of all random choices.
        predictor: what will be fitted, for `designed`; it forgets its adaptation.
        sources: devices whose latencies are known, for `latency-quantiles`.
        table: a table of encodings, which samplers with an encoding read instead of computing it.
        exclude: networks that are not chosen.

    Raises:
        BadInputError: there are not as many, or the table cannot be read.
    """
    predictors.keep_in(cache_folder)
    encodings = None if table is None else read_encoding_table(table, space)
    if encodings is not None:
        genes = encodings.genes
    elif sampler.name == "latency-quantiles":
        genes = np.concatenate([space.genes([]), *(source.genes for source in sources)])
        genes = np.unique(genes, axis=0) if len(genes) else genes
        if len(genes) < count:
            raise BadInputError(
                f"--acquisition {sampler.text}: the sources have measured {len(genes)} networks of {space.name}, "
                f"too few for {count}",
                "`latlab sources` lists them, `latlab import` adds more.",
            )
    else:
        wanted = min(max(CANDIDATES, count) + len(exclude), space.size)
        genes = space.genes(space.sample(wanted, seed))
    closed = {arch.genes for arch in exclude}
    rows = np.array([row for row, own in enumerate(genes.tolist()) if tuple(own) not in closed], np.int64)
    pool = Pool(space, genes, rows, predictor=predictor, sources=sources, table=encodings)
    try:
        chosen = sampler.choose(pool, count, np.random.default_rng([seed, 0x5A]))
    except ValueError as error:
        raise BadInputError(f"--acquisition {sampler.text}: {error}") from error
    return space.architectures(genes[chosen])
