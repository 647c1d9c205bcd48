"""The description of a device's user, for others who find it in use: user, machine and process."""

from __future__ import annotations

import getpass
import os
import re
import socket

__all__ = ["owner_description"]

_STRANGE = re.compile(r"[^A-Za-z0-9@._:+-]")
"""Characters that `latlab.agents.protocol.messages.WHO` does not allow, and the space."""


def owner_description() -> str:
    """Return the user, machine and process that a `hello` names as the device's user.

    >>> owner_description()  # doctest: +SKIP
    'anna@workstation latlab process 1234'
    """
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user without a name
        user = f"user-{os.getuid()}" if hasattr(os, "getuid") else "somebody"
    try:
        machine = socket.gethostname()
    except OSError:
        machine = ""
    user, machine = (_STRANGE.sub("_", word)[:32] for word in (user, machine))
    return f"{user or 'somebody'}@{machine or 'unknown'} latlab process {os.getpid()}"
