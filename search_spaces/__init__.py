"""Search spaces, their architectures and the analytic costs of these. Only building a network imports torch.

>>> from latlab.search_spaces import get
>>> space = get("nasbench201")
>>> arch = space.sample(1, seed=0)[0]
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from pkgutil import resolve_name

from latlab.search_spaces.architecture import Architecture, ArchitectureError, CellEdge
from latlab.search_spaces.base import SearchSpace
from latlab.search_spaces.block_space import SUFFIX, BlockSpace
from latlab.search_spaces.layers import Layer

__all__ = [
    "Architecture",
    "ArchitectureError",
    "BlockSpace",
    "CellEdge",
    "Layer",
    "SearchSpace",
    "UnknownSpaceError",
    "blocks_of",
    "get",
    "names",
]


class UnknownSpaceError(ValueError):
    """The error for a name that no installed space has; its message lists the installed ones."""


def names(*, buildable: bool = False) -> tuple[str, ...]:
    """Return the names of the installed spaces (entry points of the group `latlab.search_spaces`), sorted.

    Args:
        buildable: leave out spaces whose networks cannot be built, and so cannot be exported and measured.
    """
    found = sorted({point.name for point in entry_points(group="latlab.search_spaces")})
    return tuple(name for name in found if not buildable or get(name).buildable)


@cache
def get(name: str) -> SearchSpace:
    """Return the space called `name`, the same object each time; `<space>-blocks` names the blocks of a space.

    Raises:
        UnknownSpaceError: no installed space has that name, or its package is broken.
    """
    for point in entry_points(group="latlab.search_spaces", name=name):
        try:
            space: SearchSpace = point.load()()
        except Exception as error:  # whatever a package of somebody else raises
            raise UnknownSpaceError(
                f"the search space {name!r} cannot be loaded from {point.value}: {error}"
            ) from error
        return space
    whole = name.removesuffix(SUFFIX)
    if whole != name and whole in names():
        blocks = blocks_of(get(whole))
        if blocks is not None:
            return blocks
    raise UnknownSpaceError(f"unknown search space {name!r}; installed are: {', '.join(names())}")


@cache
def blocks_of(space: SearchSpace) -> BlockSpace | None:
    """Return the distinct blocks that the networks of `space` are made of, as a space of their own.

    Returns:
        None where the networks are not made of blocks (`SearchSpace.block_space`).
    """
    if space.block_space is None:
        return None
    blocks: BlockSpace = resolve_name(space.block_space)(space)
    return blocks
