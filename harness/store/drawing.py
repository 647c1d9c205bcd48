"""Some of many networks, drawn at random but the same ones in every call and for every device."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["drawn", "scrambled"]


def scrambled(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return other keys in the place of these, the same for the same, in an order that has nothing to do with theirs.

    It is the finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
    """
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        keys = (keys ^ (keys >> np.uint64(shift))) * np.uint64(factor)
    return keys ^ (keys >> np.uint64(31))


def drawn(texts: Iterable[bytes], most: int) -> NDArray[np.bool_]:
    """Return which of some texts are among the `most` different ones that are drawn; all if there are no more.

    Of two sets of texts, those that both have are drawn from both, or from neither, as far as their sizes are the same.
    """
    keys = scrambled(np.fromiter(map(zlib.crc32, texts), dtype=np.uint64))
    different = np.unique(keys)
    if len(different) <= most:
        return np.ones(len(keys), dtype=bool)
    return np.asarray(keys < different[most])
