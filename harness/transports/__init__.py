"""The ways to reach a device: each starts one worker there, sends requests as JSON lines and pushes model files."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points

from latlab.harness.transports.base import (
    ConnectError,
    DeviceLostError,
    ProtocolError,
    Transport,
    WorkerError,
)
from latlab.harness.transports.config import DeviceConfig

__all__ = [
    "ConnectError",
    "DeviceConfig",
    "DeviceLostError",
    "ProtocolError",
    "Transport",
    "UnknownTransportError",
    "WorkerError",
    "get",
    "names",
    "open_transport",
]


class UnknownTransportError(ValueError):
    """No transport of that name is installed; the message lists those that are."""


def names() -> tuple[str, ...]:
    """Return the names of the installed transports (entry points of the group `latlab.transports`), sorted."""
    return tuple(sorted({point.name for point in entry_points(group="latlab.transports")}))


def get(name: str) -> type[DeviceConfig]:
    """Return the class that describes devices of the transport called `name` in an inventory.

    Raises:
        UnknownTransportError: no transport of that name is installed.
    """
    for point in entry_points(group="latlab.transports", name=name):
        config: type[DeviceConfig] = point.load()
        return config
    raise UnknownTransportError(f"unknown transport {name!r}; installed are: {', '.join(names())}")


def open_transport(config: DeviceConfig, name: str, runtime: str) -> Transport:
    """Return the transport to a device, not started.

    Args:
        config: the device's entry in the inventory; its class names the transport.
        name: the device's name, for messages.
        runtime: the runtime that the worker will be asked for; one of `RUNTIMES`.
    """
    factory: Callable[[str, DeviceConfig], Transport] = pkgutil.resolve_name(
        config.runtime_transports.get(runtime, config.transport_factory)
    )
    return factory(name, config)
