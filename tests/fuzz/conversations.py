"""A fuzzer of conversations: latlab measures on a device whose worker's replies are spoiled.

The worker behind it is the simulated one, so that a conversation goes on as far as the controller lets it; then one
reply, or every reply to a verb from some moment on, is spoiled.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Self

from hypothesis import strategies as st
from pydantic import PrivateAttr

from fuzz.core import check_printable
from fuzz.mutations import LINE_EDITS, TREE_EDITS, Edit, edit_line
from latlab.agents.protocol.messages import MAX_LINE
from latlab.harness.devices.loaded_models import LoadedModels
from latlab.harness.devices.session import DeviceSession
from latlab.harness.errors import LatlabError
from latlab.harness.exporters import Artifact, Parity
from latlab.harness.fleet.jobs import DeviceState
from latlab.harness.measurement.scheduler import PassScheduler
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.statistics.estimators import summarise
from latlab.harness.statistics.pooled_variance import NoiseEstimator
from latlab.harness.store.store import Store
from latlab.harness.targets import Target
from latlab.harness.text import plain
from latlab.harness.timing_policy import TimingPolicy
from latlab.harness.transports import DeviceLostError, WorkerError
from latlab.harness.transports.base import ChannelClosedError, Deadline
from latlab.harness.transports.simulated.config import SimulatedDevice
from latlab.harness.transports.simulated.device import simulated_device
from latlab.harness.transports.simulated.transport import SimulatedTransport

__all__ = ["CONVERSATION_REGRESSIONS", "PLANS", "Plan", "check_conversation", "finish_conversations"]

ARCHS = (
    "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
    "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|",
)
POLICY = TimingPolicy(name="fuzz", warmup=1, runs=3, passes=2, spread=1, trim=0.1)
TARGET = "onnxruntime"
STORE_CASES = 400
"""Cases after which the store is read as a whole and a new one is begun."""


class Plan(NamedTuple):
    """A case: which replies are spoiled, and how.

    Args:
        verb: of the requests.
        after: so many replies to it are left alone.
        always: whether all further replies to it are spoiled, or one.
        edits: what is done to them.
        piece: bytes that come at a time.
    """

    verb: str
    after: int
    always: bool
    edits: tuple[Edit, ...]
    piece: int = 1 << 16


PLANS = st.builds(
    Plan,
    st.sampled_from(["hello", "put", "load", "load", "time", "time", "time", "unload", "telemetry"]),
    st.sampled_from([0, 0, 0, 1, 2, 3]),
    st.sampled_from([False, False, True]),
    st.lists(TREE_EDITS | TREE_EDITS | LINE_EDITS, min_size=1, max_size=3).map(tuple),
    st.sampled_from([1 << 16, 1 << 16, 1000, 7]),
)

_HELLO = {
    "id": 1, "ok": True, "protocol": 1, "worker_version": "0", "pid": 1, "fingerprint": {}, "cpus": {},
    "runtimes": {TARGET: {"version": "1"}},
}  # fmt: skip


def _instead(verb: str, reply: dict[str, Any]) -> Plan:
    return Plan(verb, 0, True, (Edit("whole", 0, json.dumps(reply).encode() + b"\n"),))


CONVERSATION_REGRESSIONS = (
    _instead("hello", {**_HELLO, "cpus": {"count": "many"}}),  # a TypeError of range()
    _instead("hello", {**_HELLO, "runtimes": {TARGET: {"version": None, "why": "\x1b[2J"}}}),  # on the terminal
    _instead("telemetry", {"id": 2, "ok": True, "temperature_c": [40]}),  # an AttributeError in the live table
    _instead("telemetry", {"id": 2.0, "ok": True}),
    _instead("load", {"id": 5, "ok": True, "handle": True}),
)


@dataclass
class Wire:
    """The lines that went over one channel."""

    requests: dict[int, dict[str, Any]] = field(default_factory=dict)
    said: bytearray = field(default_factory=bytearray)
    honest: list[bytes] = field(default_factory=list)
    """Lines that were passed on unspoiled."""


class FuzzedTransport(SimulatedTransport):
    """A transport that spoils the simulated worker's replies and records what it passed on."""

    def __init__(self, device: Any, plan: Plan, counts: dict[str, int], wires: list[Wire]) -> None:
        super().__init__(device)
        self._plan, self._counts = plan, counts
        self._wires = wires
        self._coming = b""
        self._verb = ""

    @classmethod
    def from_config(cls, name: str, config: SimulatedDevice) -> Self:
        assert isinstance(config, FuzzedDevice)
        return cls(simulated_device(name, config), config._plan, config._counts, config._wires)

    def _connect(self) -> None:
        super()._connect()
        self._wires.append(Wire())
        self._coming = b""

    def _send(self, data: bytes, deadline: Deadline) -> None:
        request = json.loads(data)
        self._wires[-1].requests[request["id"]] = request
        self._verb = request["verb"]
        super()._send(data, deadline)

    def _receive(self, deadline: Deadline) -> bytes:
        if not self._coming:
            honest = super()._receive(deadline)
            self._coming = self._spoiled(honest)
            if not self._coming:
                raise ChannelClosedError("ended with exit code 0")
            if self._coming == honest and self._wires[-1].said[-1:] in (b"", b"\n"):
                self._wires[-1].honest.append(honest)
        piece, self._coming = self._coming[: self._plan.piece], self._coming[self._plan.piece :]
        self._wires[-1].said += piece
        return piece

    def _spoiled(self, line: bytes) -> bytes:
        plan = self._plan
        if self._verb != plan.verb:
            return line
        self._counts[plan.verb] = count = self._counts.get(plan.verb, 0) + 1
        if count - 1 < plan.after or (count - 1 > plan.after and not plan.always):
            return line
        return edit_line(line, plan.edits)


class FuzzedDevice(SimulatedDevice):
    """A simulated device that serves one case."""

    transport_factory = f"{__name__}:FuzzedTransport.from_config"
    _plan: Plan = PrivateAttr()
    _counts: dict[str, int] = PrivateAttr(default_factory=dict)
    _wires: list[Wire] = PrivateAttr(default_factory=list)


class Bench:
    """A store and exported networks, shared by many cases."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        self.store = Store(folder / "latlab.db")
        self.artifacts = {arch: _artifact(folder, arch) for arch in ARCHS}
        self.cases = 0

    def submit(self, arch: str) -> Future[Artifact]:
        future: Future[Artifact] = Future()
        future.set_result(self.artifacts[arch])
        return future

    def close(self) -> None:
        """Check that what the cases left in the store can be read and written as tables."""
        table = self.store.table(raw=True)
        assert set(table["status"]) <= STATUSES, set(table["status"])
        folder = Path(self._folder.name)
        table.drop(columns="passes").to_parquet(folder / "table.parquet")
        table.to_csv(folder / "table.csv")
        with self.store.session() as session:
            connection = session.connection()
            for (text,) in connection.exec_driver_sql("SELECT facts FROM fingerprints"):
                check_printable(_strict(text))
            for (text,) in connection.exec_driver_sql("SELECT telemetry FROM passes"):
                check_printable(_strict(text))
        self.store.close()
        self._folder.cleanup()


STATUSES = {
    "ok", "device_lost", "unsupported_op", "out_of_memory", "timeout", "crash", "bad_request", "busy",
    "runtime_missing", "corrupt_artifact", "missing_artifact", "running",
}  # fmt: skip
_benches: list[Bench] = []


def _bench() -> Bench:
    if _benches and _benches[0].cases >= STORE_CASES:
        finish_conversations()
    if not _benches:
        _benches.append(Bench())
    _benches[0].cases += 1
    return _benches[0]


def finish_conversations() -> None:
    """Check the store as a whole."""
    while _benches:
        _benches.pop().close()


def check_conversation(plan: Plan) -> None:
    """Measure two networks on a device that spoils what it says: the store then has its samples and nothing else."""
    bench = _bench()
    device = FuzzedDevice(kind="pi4")  # whose samples all differ
    device._plan = plan
    name = f"d{bench.cases}"
    target = Target(name, TARGET)
    campaign = bench.store.campaign(target, "nasbench201", POLICY, bench.cases, "listed")
    rows = []
    trouble: Exception | None = None
    try:
        with DeviceSession(name, device, target) as session:
            session.register(bench.store)
            session.ping()
            look_at(name, session)
            engine = PassScheduler(
                MeasurementSession(bench.store, campaign, 1),
                session,
                bench.submit,
                exports=1,
                overlap=True,
                check=lambda: None,
                models=LoadedModels(session),
                noise=NoiseEstimator(POLICY.trim),
            )
            for row in engine.run([(arch, "listed") for arch in ARCHS]):
                rows.append(row)
                look_at(name, session)
    except (DeviceLostError, LatlabError, WorkerError) as error:
        trouble = error
    if trouble is not None:
        message = str(trouble)
        assert name in message or isinstance(trouble, WorkerError), message
        assert plain(message) == message
        assert len(message) < 20_000
    _check_store(bench, campaign.id, device._wires, {row.arch for row in rows}, trouble)


def look_at(name: str, session: DeviceSession) -> None:
    """Read the state of a session as the live table does."""
    state = DeviceState(name, "running", session.target, session)
    assert state.doing
    assert state.temperature_c is None or isinstance(state.temperature_c, (int, float))


def _check_store(bench: Bench, campaign: str, wires: list[Wire], finished: set[str], trouble: Exception | None) -> None:
    told = {samples for wire in wires for samples in _told(wire, bytes(wire.said).split(b"\n"))}
    certain = {samples for wire in wires for samples in _told(wire, wire.honest)}
    stored = []
    with bench.store.session() as session:
        connection = session.connection()
        query = "SELECT id, arch, status, latency_ms, error, artifact FROM measurements WHERE campaign_id = ?"
        found = connection.exec_driver_sql(query, (campaign,)).all()
        passes = {
            number: connection.exec_driver_sql(
                "SELECT warmup_ns, samples_ns, telemetry FROM passes WHERE measurement_id = ? ORDER BY number",
                (number,),
            ).all()
            for number, *_ in found
        }
    assert len({arch for _, arch, *_ in found}) == len(found)
    for number, arch, status, latency_ms, error, artifact in found:
        assert status in STATUSES
        assert (status != "running") == (arch in finished) or trouble is not None
        _strict(artifact)
        assert error is None or plain(error) == error
        timed = []
        for warmup, samples, telemetry in passes[number]:
            _strict(telemetry)
            one = (tuple(json.loads(warmup)), tuple(json.loads(samples)))
            assert one in told, f"a pass that no valid reply told of: {one}"
            stored.append(one)
            timed.append(list(one[1]))
        assert len(timed) <= POLICY.passes
        if status == "ok":
            assert len(timed) == POLICY.passes, "a row from less than all passes"
            assert latency_ms == summarise(timed, POLICY.trim).latency_ms
        elif status != "running":
            assert latency_ms is None
            assert error
            assert "broken reply" not in error, "a network's row from a broken reply"
    assert len(stored) == len(set(stored)), "a pass that is there twice"
    assert certain <= set(stored), "a valid reply whose samples are not in the store"


def _told(wire: Wire, lines: list[bytes]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the samples in every line that is a reply to a pass by the letter of the protocol."""
    for line in lines:
        if len(line) > MAX_LINE:
            return
        try:
            reply = _strict(line.decode())
        except (ValueError, RecursionError):
            return  # from here on the channel is closed
        if not isinstance(reply, dict) or type(reply.get("id")) is not int or reply.get("ok") is not True:
            continue
        request = wire.requests.get(reply["id"], {})
        if request.get("verb") != "time":
            continue
        warmup, samples, telemetry = (reply.get(name) for name in ("warmup_ns", "samples_ns", "telemetry"))
        if not _are_times(warmup, request["warmup"]) or not _are_times(samples, request["runs"]):
            continue
        if not isinstance(telemetry, dict) or not all(isinstance(telemetry.get(k), dict) for k in ("before", "after")):
            continue
        yield tuple(warmup), tuple(samples)


def _are_times(values: object, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(type(value) is int and 0 <= value <= 10**15 for value in values)
    )


def _strict(text: str) -> Any:
    """Parse JSON by the letter: no NaN, no name twice, no number that a double cannot hold."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(pairs) if len(dict(pairs)) == len(pairs) else refuse("a name twice")

    def finite(number: str) -> float:
        return float(number) if math.isfinite(float(number)) else refuse(number)

    return json.loads(text, parse_constant=refuse, object_pairs_hook=once, parse_float=finite)


def _artifact(folder: Path, arch: str) -> Artifact:
    path = folder / f"{ARCHS.index(arch)}.onnx"
    path.write_bytes(b"\x08" * (1000 + ARCHS.index(arch)))
    return Artifact(
        key=path.stem,
        path=path,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        size_bytes=path.stat().st_size,
        format="onnx",
        batch_size=1,
        input_shape=(1, 3, 32, 32),
        parity=Parity(0, 0.0, 0.0, 0.0, True),
        build_s=0.0,
        export_s=0.0,
        parity_s=0.0,
        exporter="onnx",
        exporter_version="0",
        operators={},
    )
