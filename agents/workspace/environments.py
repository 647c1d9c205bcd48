"""Private Python environments on the device: wheels unpacked into the work folder, where only the worker sees them.

The device needs neither pip nor a virtual environment nor the internet: the controller brings the wheels.
`env/<id>` is one environment; `env/current` names the one in use.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latlab.agents.workspace.wheel_unpack import Wheel

__all__ = ["ENVIRONMENT_ID", "Environments"]

ENVIRONMENT_ID = re.compile(r"[0-9a-f]{16,64}")
"""The form of an environment's id."""


class Environments:
    """The environments of a work folder, of which at most one is in use.

    Args:
        root: the work folder.
    """

    def __init__(self, root: str) -> None:
        self._root = os.path.join(root, "env")

    def current(self) -> str | None:
        """Return the id of the environment in use, or None."""
        try:
            with open(os.path.join(self._root, "current"), encoding="ascii", errors="replace") as file:
                name = file.read(128).strip()
        except OSError:
            return None
        return name if ENVIRONMENT_ID.fullmatch(name) and os.path.isdir(os.path.join(self._root, name)) else None

    def activate(self) -> None:
        """Put the environment in use on `sys.path`: before all other packages, but after this program itself."""
        name = self.current()
        if name is not None:
            sys.path.insert(1, os.path.join(self._root, name))

    def holds(self, module: str) -> bool:
        """Return whether the environment in use has this package or module."""
        name = self.current()
        return name is not None and any(
            os.path.exists(os.path.join(self._root, name, f"{module}{s}")) for s in ("", ".py")
        )

    def install(self, name: str, wheels: Sequence[Wheel]) -> None:
        """Unpack `wheels` and make them the environment in use from the next worker on.

        All other environments are removed.

        Args:
            name: the environment's id. An existing environment with this id is replaced.
            wheels: the wheels to unpack.

        Raises:
            AgentError, OSError: as `unpack` raises them; the environment in use then stays in use.
        """
        from latlab.agents.workspace.wheel_unpack import (
            unpack,  # lazy: zipfile takes long to import, and most workers install nothing
        )

        folder = os.path.join(self._root, name)
        os.makedirs(self._root, exist_ok=True)
        unfinished = f"{folder}.part"
        _remove(unfinished)
        os.mkdir(unfinished)
        try:
            unpack(wheels, unfinished)
            os.sync()  # without it, pulling the device's plug would leave an environment of empty files
            _remove(folder)
            os.rename(unfinished, folder)
        except BaseException:
            _remove(unfinished)
            raise
        pointer = os.path.join(self._root, "current")
        with open(f"{pointer}.part", "w", encoding="ascii") as file:
            file.write(f"{name}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{pointer}.part", pointer)
        for other in os.listdir(self._root):
            if other not in (name, "current"):
                _remove(os.path.join(self._root, other))


def _remove(path: str) -> None:
    import shutil

    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(path)
