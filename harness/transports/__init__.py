"""The ways to reach a device: each starts one worker there, sends requests as JSON lines and pushes model files."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points

from latlab.harness.errors import BadInputError, LatlabError
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
    """No transport of that name is installed, or its package is broken; the message says which, and what there is."""


def names() -> tuple[str, ...]:
    """Return the names of the installed transports (entry points of the group `latlab.transports`), sorted."""
    return tuple(sorted({point.name for point in entry_points(group="latlab.transports")}))


def get(name: str) -> type[DeviceConfig]:
    """Return the class that describes devices of the transport called `name` in an inventory.

    Raises:
        UnknownTransportError: no transport of that name is installed, or it cannot be loaded.
    """
    for point in entry_points(group="latlab.transports", name=name):
        try:
            config = point.load()
        except Exception as error:  # whatever a package of somebody else raises
            raise UnknownTransportError(
                f"the transport {name!r} cannot be loaded from {point.value}: {error}"
            ) from error
        if not (isinstance(config, type) and issubclass(config, DeviceConfig)):
            raise UnknownTransportError(f"the transport {name!r} cannot be loaded: {point.value} is no DeviceConfig")
        return config
    raise UnknownTransportError(f"unknown transport {name!r}; installed are: {', '.join(names())}")


def open_transport(config: DeviceConfig, name: str, runtime: str) -> Transport:
    """Return the transport to a device, not started.

    Args:
        config: the device's entry in the inventory; its class names the transport.
        name: the device's name, for messages.
        runtime: the runtime that the worker will be asked for; one of `RUNTIMES`.

    Raises:
        BadInputError: the class cannot be imported or made, which is a fault of the transport's package.
    """
    path = "transport_factory"
    try:
        path = config.runtime_transports.get(runtime, config.transport_factory)
        factory: Callable[[str, DeviceConfig], Transport] = pkgutil.resolve_name(path)
        transport = factory(name, config)
    except LatlabError:
        raise
    except Exception as error:  # whatever a package of somebody else raises
        kind = type(config)
        raise BadInputError(
            f"device {name}: its transport {config.transport!r} cannot be made ({type(error).__name__}: {error})",
            f"{kind.__module__}.{kind.__qualname__} names the transport's class in `transport_factory`: {path!r}.",
        ) from error
    if not isinstance(transport, Transport):
        raise BadInputError(f"device {name}: {path!r} makes no Transport", "Correct the transport's package.")
    return transport
