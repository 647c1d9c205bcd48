"""The status of all devices (`latlab devices`): whether each answers now, and what was measured on it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, TimeoutError
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from latlab.harness.devices.owner import busy_advice, has_dead_owner
from latlab.harness.devices.readiness import Obstacle, connections, obstacle
from latlab.harness.devices.worker_client import WorkerClient
from latlab.harness.errors import LatlabError
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.store.place import StorePath
from latlab.harness.targets import Target
from latlab.harness.transports import DeviceConfig, DeviceLostError, WorkerError, open_transport

__all__ = ["Answer", "Overview", "ask", "judged", "overview"]

HELLO_S = 10.0
"""Deadline in seconds of a worker's reply to `hello`."""
LIMIT_S = 15.0
"""Seconds for connecting and the reply together. `latlab doctor` waits longer for slow devices."""

State = Literal["ready", "partly ready", "not set up", "in use", "unreachable", "no answer", "failing", "not asked"]


@dataclass(frozen=True, slots=True)
class Answer:
    """The state of a device by its worker's reply just now. Nothing in it comes from the store."""

    state: State
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    """One device: its inventory entry, its state, and what the store holds of it."""

    device: str
    transport: str
    address: str
    description: str
    targets: list[str]
    """Its targets, without the device's name."""
    state: State
    detail: str
    measured: int
    """Number of networks with a latency in the store."""
    failed: int
    """Number of networks in the store that failed."""
    last_measured: str | None
    """Time of the last measurement (ISO 8601); None if there is none."""
    last_incident: dict[str, str] | None
    """The last incident: its time `at`, its `kind` and its `message`; None if there is none."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


def overview(inventory: Inventory, store: StorePath, *, probe: bool = True) -> list[Overview]:
    """Return the status of all devices of the inventory, or of this machine if it has none.

    Args:
        store: the store; it need not exist.
        probe: whether to connect to the devices, which is done side by side and takes at most `LIMIT_S` seconds.
    """
    configs = inventory.devices or {"local": inventory.device("local")}
    probes = {name: _Probe(name, config) for name, config in configs.items()} if probe else {}
    rows, incidents = _stored_results(store)
    until = time.monotonic() + LIMIT_S
    answers = {name: one.wait(until) for name, one in probes.items()}
    found = []
    for name, config in configs.items():
        answer = answers.get(name, Answer("not asked"))
        measured, failed, last = rows.get(name, (0, 0, None))
        found.append(
            Overview(
                name,
                config.transport,
                config.address,
                config.description,
                [str(target).partition("/")[2] for target in config.all_targets(name)],
                answer.state,
                answer.detail,
                measured,
                failed,
                last,
                incidents.get(name),
            )
        )
    return found


def ask(name: str, config: DeviceConfig, worker: WorkerClient, targets: Sequence[Target]) -> Answer | list[Obstacle]:
    """Connect to a device and greet its worker.

    Args:
        targets: those that the connection serves.

    Returns:
        What stands in the way of the targets; if the device does not answer, its state instead.
    """
    try:
        worker.start()
        hello = worker.hello(HELLO_S)
    except WorkerError as error:
        if error.kind != "busy":
            return Answer("failing", error.message)
        # Of an owner that lives, its name is enough; what one that is dead has left behind stays until it is ended.
        advice = f". {busy_advice(error.message, config)}" if has_dead_owner(error.message) else ""
        return Answer("in use", error.message + advice)
    except DeviceLostError as error:
        state: State = "no answer" if error.timed_out else "unreachable" if error.unreachable else "failing"
        return Answer(state, error.message.removeprefix(f"device {name}: "))
    found = [obstacle(config, target, hello) for target in targets]
    return [one for one in found if one is not None]


def judged(name: str, targets: Sequence[Target], obstacles: Sequence[Obstacle], seconds: float) -> Answer:
    """Return the state of a device that has answered, by what stands in the way of its targets.

    Args:
        seconds: how long it took to answer.
    """
    if not obstacles:
        return Answer("ready", f"answered in {seconds:.1f} s")
    reasons = dict.fromkeys(f"{one.why}. {one.advice}" for one in obstacles)
    more = f" (and {len(reasons) - 1} more: `latlab doctor {name}`)" if len(reasons) > 1 else ""
    said = f"{next(iter(reasons))}{more}"
    if len(obstacles) == len(targets):
        return Answer("not set up", said)
    which = str(obstacles[0].target).partition("/")[2]
    return Answer("partly ready", f"{len(obstacles)} of {len(targets)} targets cannot be measured, {which}: {said}")


class _Probe:
    """A question to one device, in a daemon thread: the program can end without waiting for it."""

    def __init__(self, name: str, config: DeviceConfig) -> None:
        self._name, self._config = name, config
        self._answer: Future[Answer] = Future()
        self._worker: WorkerClient | None = None
        threading.Thread(target=self._run, name=f"ask-{name}", daemon=True).start()

    def _run(self) -> None:
        began = time.monotonic()
        try:
            targets = self._config.all_targets(self._name)
            answer = self._ask(targets, began)
        except LatlabError as error:
            answer = Answer("failing", error.message)
        except Exception as error:
            answer = Answer("failing", f"{type(error).__name__}: {error}")
        self._answer.set_result(answer)

    def _ask(self, targets: Sequence[Target], began: float) -> Answer:
        obstacles: list[Obstacle] = []
        for group in connections(targets):
            self._worker = WorkerClient(open_transport(self._config, self._name, group[0].runtime))
            try:
                found = ask(self._name, self._config, self._worker, group)
            finally:
                self._worker.close()
            if isinstance(found, Answer):
                return found
            obstacles += found
        return judged(self._name, targets, obstacles, time.monotonic() - began)

    def wait(self, until: float) -> Answer:
        """Return the answer, or "no answer" at the time `until` on the monotonic clock."""
        try:
            return self._answer.result(max(0.0, until - time.monotonic()))
        except TimeoutError:
            if self._worker is not None:
                with contextlib.suppress(Exception):  # the connection hangs, so closing it may fail, too
                    self._worker.close(gently=False)
            return Answer("no answer", f"within {LIMIT_S:.0f} s; `latlab doctor {self._name}` waits longer")


_Rows = dict[str, tuple[int, int, str | None]]


def _stored_results(path: StorePath) -> tuple[_Rows, dict[str, dict[str, str]]]:
    """Return, by device, (networks measured, networks failed, last time), and the last incident."""
    if isinstance(path, Path) and not path.exists():
        return {}, {}
    from latlab.harness.store.store import Store

    store = Store(path)
    try:
        rows: _Rows = {}
        for campaign in store.campaigns().to_dict("records"):
            device = str(campaign["target"]).partition("/")[0]
            measured, failed, last = rows.get(device, (0, 0, None))
            latest = max((one for one in (last, campaign["last"]) if isinstance(one, str)), default=None)
            rows[device] = (measured + int(campaign["ok"]), failed + int(campaign["failed"]), latest)
        incidents = {
            str(one["device"]): {key: str(one[key]) for key in ("at", "kind", "message")}
            for one in store.incidents().to_dict("records")
        }
    finally:
        store.close()
    return rows, incidents
