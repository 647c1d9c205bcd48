"""The hold-out: networks that the predictor never sees, by which its predictions are judged."""

from __future__ import annotations

import random
from collections.abc import Sequence

from latlab.search_spaces import Architecture, SearchSpace

__all__ = ["holdout_of"]


def holdout_of(space: SearchSpace, n: int, seed: int, without: Sequence[Architecture] = ()) -> list[Architecture]:
    """Return `n` random architectures that the predictor never sees.

    A longer hold-out with the same seed begins with the shorter one.

    Args:
        without: architectures that the predictor must see (`Predictor.wanted`), which are left out.
    """
    seen = {space.canonical(arch) for arch in without}
    drawn = space.sample(n, random.Random(f"holdout/{seed}"))
    more = n
    while len(kept := [arch for arch in drawn if space.canonical(arch) not in seen]) < n and more < space.size:
        more = min(2 * more, space.size)
        drawn = space.sample(more, random.Random(f"holdout/{seed}"))
    return kept[:n]
