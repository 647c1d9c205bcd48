"""Encodings of architectures, for which no device is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from latlab.harness.architectures import parse_archs, sample_space, space_named
from latlab.harness.distributed.engines import check_engine
from latlab.harness.errors import BadInputError
from latlab.harness.lab.base import LabBase
from latlab.search_spaces import Architecture

if TYPE_CHECKING:
    from latlab.harness.encoding.compute import Encoded

__all__ = ["Encoding"]

MOST = 1_000_000
"""Architectures that are encoded at once, such that all fit into memory."""


class Encoding(LabBase):
    """The verb that encodes."""

    def encode(
        self,
        space: str,
        encoding: str = "zcp",
        *,
        count: int | None = None,
        archs: Sequence[str | Architecture] | None = None,
        seed: int = 0,
        engine: str = "local",
        jobs: int = 1,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Encoded:
        """Return an encoding of random architectures of a space, or of the listed ones.

        Proxies are cached by space, formulas, architecture and seed, so the same call continues after a kill.

        Args:
            space: name of the search space.
            encoding: `zcp` (thirteen zero-cost proxies), `arch2vec`, `cate`, `caz` (these three), `costs`, `totals`.
            count: number of random architectures.
            archs: canonical strings of architectures.
            seed: seed of the random architectures, of weights, batch and training.
            engine: where networks are run: `local`, `ray` or `ray://HOST:PORT`.
            jobs: number of processes of `local`, for encodings that run networks.
            progress: called with the architectures that were run, and how many are to be run.

        Raises:
            BadInputError: if the arguments make no sense, or the space has no such encoding.
            LatlabError: if a network cannot be run.
        """
        return encode_space(
            space, encoding, count=count, archs=archs, seed=seed, engine=engine, jobs=jobs, progress=progress
        )


def encode_space(
    space: str,
    encoding: str,
    *,
    count: int | None,
    archs: Sequence[str | Architecture] | None,
    seed: int,
    engine: str,
    jobs: int,
    progress: Callable[[int, int], None],
) -> Encoded:
    """Return what `Lab.encode` does; no store is opened."""
    chosen = space_named(space)
    if (count is None) == (archs is None):
        raise BadInputError("say which architectures: how many (count), or a list of them, not both")
    if not 1 <= jobs <= 1024:
        raise BadInputError(f"jobs are from 1 to 1024, not {jobs}")
    check_engine(engine)
    if (len(archs) if archs is not None else count or 0) > MOST:
        raise BadInputError(f"at most {MOST:,} architectures are encoded at once", "Encode them in several parts.")
    found = parse_archs(chosen, archs) if archs is not None else sample_space(chosen, count or 0, seed)
    if not found:
        raise BadInputError("there is no architecture to encode")
    from latlab.harness.encoding.compute import encode_networks  # torch is heavy

    return encode_networks(
        chosen, chosen.genes(found), encoding, seed=seed, engine=engine, jobs=jobs, progress=progress
    )
