"""Work on a Ray cluster.

Ray starts an item again whose worker or node has died; `MOST_LOSSES` times, as `local` does. If this process is killed,
Ray ends what it has under way.
"""

from __future__ import annotations

import logging
import os
import platform
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from latlab.harness.distributed.local import AHEAD, MOST_LOSSES, one_thread
from latlab.harness.errors import BadInputError, LatlabError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["on_cluster"]

Item = TypeVar("Item")
Result = TypeVar("Result")

LOOPBACK = "127.0.0.1"
RUNNING = Path("ray", "ray_current_cluster")
"""The file in the temporary folder that names the cluster of this machine, if it belongs to one."""
ANSWER_S = 5.0
"""Longest time in seconds that a connection with a cluster may take."""
LOOK_S = 10.0
"""Time in seconds after which the size of the cluster is asked again: nodes come and go."""


def on_cluster(function: Callable[[Item], Result], items: Iterable[Item], engine: str) -> Iterator[tuple[int, Result]]:
    """Yield the position of each item with what the function returns for it, as they finish on a cluster.

    Args:
        function: a function of a module that all nodes have.
        items: its arguments.
        engine: `ray` or `ray://HOST:PORT`.

    Raises:
        BadInputError: Ray is not installed, the cluster cannot be reached, or its nodes have another Python or latlab.
        LatlabError: the processes of an item died `MOST_LOSSES` times.
    """
    address = _address(engine)
    own = address is None
    if own and "ray" not in sys.modules:  # it reads this once, when it is imported
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_urlsafe(32)}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise BadInputError("the engine ray needs the package ray", "pip install latlab[ray]") from error
    with _connected(ray, engine, address):
        _check_nodes(ray)
        call: Any = ray.remote(num_cpus=1, max_retries=MOST_LOSSES - 1)(_call)
        shared = ray.put(function)
        left = enumerate(items)
        under_way: dict[Any, int] = {}
        ended = False
        while not ended or under_way:
            while not ended and len(under_way) < AHEAD * max(_processors(ray), 1):
                place, item = next(left, (-1, None))
                if place < 0:
                    ended = True
                    break
                under_way[call.remote(shared, item)] = place
            for one in ray.wait(list(under_way), timeout=LOOK_S)[0] if under_way else []:
                place = under_way.pop(one)
                yield place, _result(ray, one, place)


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    one_thread()
    return function(item)


def _result(ray: ModuleType, one: Any, place: int) -> Any:
    """Return what an item gave, or raise what its function raised."""
    try:
        return ray.get(one)
    except ray.exceptions.RayTaskError as error:
        raise getattr(error, "cause", None) or error from None
    except ray.exceptions.RayError as error:
        first = str(error).strip().partition("\n")[0]
        raise LatlabError(
            f"the cluster could not compute item {place + 1}: {type(error).__name__}: {first[:200]}",
            "Its processes or nodes died again and again, or this machine's own node did: see ray status, and the "
            "memory of the nodes. What is finished is kept.",
        ) from error


def _processors(ray: ModuleType) -> int:
    return int(ray.cluster_resources().get("CPU", 0))


def _address(engine: str) -> str | None:
    """Return the address of the cluster that an engine names, or None: one is to be started.

    Raises:
        BadInputError: the cluster that is named does not answer. Ray itself would wait for minutes.
    """
    named = engine if engine != "ray" else os.environ.get("RAY_ADDRESS")
    if named and named not in ("auto", "local"):
        if not _answers(named):
            raise BadInputError(
                f"no cluster answers at {named}",
                "Is it running (ray status)? RAY_ADDRESS has the cluster's own port, and ray:// that of its clients.",
            )
        return named
    if named == "local":
        return None
    try:  # the cluster that this machine belongs to, if it is still there
        joined = (Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / RUNNING).read_text().strip()
    except OSError:
        return None
    return joined if _answers(joined) else None


def _answers(address: str) -> bool:
    """Return whether something listens at an address."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def _connected(ray: ModuleType, engine: str, address: str | None) -> Iterator[None]:
    """Be connected with a cluster within the `with` block.

    Args:
        engine: what the user calls it.
        address: of the cluster; None for one that is started for that long. Only this machine can reach it, and only
            with its token.
    """
    if ray.is_initialized():  # a program that uses Ray itself has chosen its cluster
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            ray.init("local", include_dashboard=False, _node_ip_address=LOOPBACK, **quiet)
        else:
            ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        first = str(error).strip().partition("\n")[0]
        raise BadInputError(
            f"the cluster of the engine {engine} cannot be used: {first[:300]}",
            "Is it running (ray status), of this version of Ray, and is its token in RAY_AUTH_TOKEN?",
        ) from error
    _speak_on_stderr(ray)
    try:
        yield
    finally:
        ray.shutdown()


def _speak_on_stderr(ray: ModuleType) -> None:
    """Let Ray's own messages (a node has died) not go to standard output, where results are."""
    worker: Any = ray._private.worker
    usual = worker.print_to_stdstream
    if getattr(usual, "__module__", "") == __name__:
        return

    def speak(data: dict[str, Any], *more: Any, **others: Any) -> None:
        usual({**data, "is_err": True}, *more, **others)

    worker.print_to_stdstream = speak


def _versions() -> dict[str, str]:
    """Return the versions that must be the same everywhere: results are sent as Python objects."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    try:
        found["latlab"] = version("latlab")
    except PackageNotFoundError:
        found["latlab"] = "no version"  # a folder of sources that is not installed
    return found


def _check_nodes(ray: ModuleType) -> None:
    """Raise `BadInputError` if a node has another latlab or Python, or no latlab at all."""
    here = _versions()
    ask = ray.remote(num_cpus=0, max_retries=0)(_versions)
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = [ask.options(scheduling_strategy=strategy(node["NodeID"], soft=True)).remote() for node in nodes]
    for node, answer in zip(nodes, asked, strict=True):
        where = f"the node {node['NodeManagerAddress']}"
        try:
            there = ray.get(answer)
        except ray.exceptions.RayTaskError as error:
            raise BadInputError(
                f"{where} cannot run latlab: {str(error).strip().splitlines()[-1][:200]}",
                f"Install it there: pip install latlab=={here['latlab']}",
            ) from error
        except ray.exceptions.RayError:
            continue  # it has gone since
        for name, value in here.items():
            if there[name] != value:
                raise BadInputError(
                    f"{where} has {name} {there[name]}, and this machine {value}", "They must be the same."
                )
