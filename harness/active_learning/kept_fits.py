"""What was fitted to a store's labels, kept until these change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Generic, TypeVar

from latlab.harness.store.store import Store

__all__ = ["KeptFits"]

Fit = TypeVar("Fit")


class KeptFits(Generic[Fit]):
    """The newest fits to a store's labels, by what was asked for.

    Args:
        store: the store.
    """

    MOST: ClassVar[int] = 16
    """Most fits that are kept; the one that was not used for the longest time goes first."""
    DIGESTED_BYTES: ClassVar[int] = 50_000_000
    """Size from which on the labels of a store are not looked through before they are known to change."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[str, tuple[Fit, tuple[int, int], str | None]] = {}

    def kept_or_made(self, key: str, make: Callable[[], Fit], spaces: Callable[[Fit], Sequence[str]]) -> Fit:
        """Return the fit that was made for `key`, or a new one if labels that it depends on have changed since.

        Args:
            key: all that was asked for.
            make: makes a fit to the labels that the store holds now.
            spaces: returns the spaces whose labels a fit depends on.
        """
        version = self._store.version()
        earlier = found = self._kept.pop(key, None)
        if found is not None and found[1] != version:
            # Something was written since. It matters only if it was a label in one of these spaces.
            same = found[2] is not None and self._digest(spaces(found[0])) == found[2]
            found = (found[0], version, found[2]) if same else None
        if found is None:
            fit = make()
            # A command that asks once does not need what takes longest in a large store.
            large = self._store.size_bytes() >= self.DIGESTED_BYTES
            digest = None if large and earlier is None else self._digest(spaces(fit))
            found = fit, version, digest
        self._kept[key] = found
        if len(self._kept) > self.MOST:
            del self._kept[next(iter(self._kept))]
        return found[0]

    def _digest(self, spaces: Sequence[str]) -> str:
        """Return a text that differs once any label of these spaces has changed."""
        return " ".join(f"{name} {self._store.labels_digest(name)}" for name in spaces)
