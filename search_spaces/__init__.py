"""What can be built: search spaces, their architectures and their analytic costs.

>>> from latlab.search_spaces import get
>>> space = get("nasbench201")
>>> arch = space.sample(1, seed=0)[0]
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from latlab.search_spaces.base import Architecture, ArchitectureError, SearchSpace
from latlab.search_spaces.cost import Layer

__all__ = ["Architecture", "ArchitectureError", "Layer", "SearchSpace", "UnknownSpaceError", "get", "names"]


class UnknownSpaceError(ValueError):
    """No space of that name is installed; the message lists those that are."""


def names() -> tuple[str, ...]:
    """The installed spaces (entry points of the group `latlab.search_spaces`)."""
    return tuple(sorted({point.name for point in entry_points(group="latlab.search_spaces")}))


@cache
def get(name: str) -> SearchSpace:
    """The space called `name`. Raises `UnknownSpaceError`."""
    for point in entry_points(group="latlab.search_spaces", name=name):
        space: SearchSpace = point.load()()
        return space
    raise UnknownSpaceError(f"unknown search space {name!r}; installed are: {', '.join(names())}")
