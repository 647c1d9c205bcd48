"""What every transport must do, against a real worker on a real device of its kind.

A new transport inherits all of it: subclass `TransportConformance` and override the fixture `device`.
"""

from __future__ import annotations

import hashlib
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from latlab.harness.targets import RUNTIMES
from latlab.harness.transports import DeviceLostError, ProtocolError, Transport, WorkerError

S = 20.0
"""Deadline of a request that is expected to succeed, on a machine that is busy with other things."""
ME, ANOTHER = "0123456789abcdef" * 2, "f" * 32
"""Two controllers."""
SOON_S = 10.0
"""Within this a dead worker must be noticed, on such a machine; nothing else here that ends a request is as soon."""


class DeviceUnderTest(ABC):
    """A device as a test sees it: reached through the transport, and from behind it."""

    name: str
    provider = "CPUExecutionProvider"
    """What runs networks there, by the worker's account."""
    runs_networks = True
    """False for a device that only pretends to, and does not know what is in a file."""

    @abstractmethod
    def connect(self) -> Transport:
        """A transport to it, not started."""

    @abstractmethod
    def impostor(self, program: str) -> Transport:
        """A transport whose worker is a Python program of the test's own, in place of latlab's."""

    @abstractmethod
    def signal(self, pid: int, number: signal.Signals) -> None:
        """Sends a signal to a process on the device."""

    @abstractmethod
    def is_running(self, pid: int) -> bool: ...

    @abstractmethod
    def model_file(self, name: str) -> Path:
        """A network in the worker's folder, for reading and writing."""

    def lose_lock(self) -> None:
        """Takes the lock away from the worker that holds it, as an emptied folder or a network file system does."""
        (self.model_file("x").parent.parent / "lock").unlink()


@dataclass(frozen=True)
class Model:
    path: Path
    sha256: str
    suffix: str = ".onnx"


def make_model(path: Path, repeats: int) -> Model:
    """`repeats` matrix products of 128 x 128, one after another."""
    matrix = numpy_helper.from_array((np.eye(128) * 1.01).astype(np.float32), "w")
    names = ["x", *(f"h{n}" for n in range(1, repeats)), "y"]
    nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in pairwise(names)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [128, 128]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "products", ends[:1], ends[1:], [matrix])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return Model(path, hashlib.sha256(path.read_bytes()).hexdigest())


def load(transport: Transport, model: Model, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "sha256": model.sha256,
        "suffix": model.suffix,
        "runtime": "onnxruntime",
        "accelerator": "cpu",
        "threads": 1,
        "affinity": None,
        "inputs": [],
        "seed": 0,
    }
    return transport.request("load", S, **{**fields, **changes})


def hello(transport: Transport, **fields: Any) -> dict[str, Any]:
    return transport.request("hello", S, protocol=1, **fields)


def ends_soon(device: DeviceUnderTest, pid: int, seconds: float = SOON_S) -> bool:
    until = time.monotonic() + seconds
    while device.is_running(pid):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


LOADS_THAT_FAIL: list[tuple[dict[str, Any], str, str]] = [
    ({"sha256": "f" * 64}, "missing_artifact", "put it first"),
    ({"sha256": "../../secret"}, "bad_request", "sha256"),
    ({"runtime": "abacus"}, "bad_request", "unknown runtime"),
    ({"runtime": "os; rm -rf"}, "bad_request", "runtime"),
    ({"runtime": "tflite"}, "corrupt_artifact", "Flatbuffer"),
    ({"accelerator": "npu"}, "bad_request", "npu"),
    ({"threads": 0}, "bad_request", "threads"),
    ({"affinity": [4095]}, "bad_request", "usable CPUs"),
    ({"affinity": []}, "bad_request", "affinity"),
    ({"inputs": [{"shape": [1, 2, 3]}]}, "bad_request", "cannot run as 1x2x3"),
    ({"inputs": [{"shape": [-1, 128]}]}, "bad_request", "shape"),
    ({"inputs": [{"shape": [1 << 20, 1 << 20]}]}, "bad_request", "elements"),
    ({"inputs": [{"dtype": "../x"}]}, "bad_request", "dtype"),
    ({"seed": "random"}, "bad_request", "seed"),
]
"""What is asked for, and the kind and words of the failure."""
_TIMED = '{"id": 1, "ok": true, "warmup_ns": [], "telemetry": {"before": {}, "after": {}}, "samples_ns": %s}'
BROKEN_REPLIES = [
    "garbage",
    '{"id": 2, "ok": true, "warmup_ns": [], "samples_ns": [5, 5], "telemetry": {"before": {}, "after": {}}}',
    '{"id": 1, "ok": false, "error": {"kind": "tired", "message": "no"}}',
    *(_TIMED % samples for samples in ("[5]", "[5, true]", "[5, 9999999999999999]")),
]
"""All transports check replies by the same code, which test_reply_validation.py tries on many more."""


class TransportConformance:
    @pytest.fixture
    def device(self, tmp_path: Path) -> DeviceUnderTest:
        raise NotImplementedError

    @pytest.fixture
    def worker(self, device: DeviceUnderTest) -> Iterator[Transport]:
        """A worker that has been greeted."""
        with device.connect() as transport:
            hello(transport)
            yield transport

    # The verbs

    def test_hello(self, device: DeviceUnderTest) -> None:
        with device.connect() as transport:
            facts = hello(transport)
        assert facts["protocol"] == 1
        assert facts["runtimes"]["onnxruntime"]["version"]
        assert set(facts["runtimes"]) == {name for name, runtime in RUNTIMES.items() if runtime.in_worker}
        assert facts["cpus"]["count"] >= 1
        assert facts["memory_bytes"] > 1 << 26
        assert facts["clock_resolution_ns"] >= 1
        assert len(facts["fingerprint"]["id"]) == 16
        assert 0 < facts["work"]["free_bytes"] <= facts["work"]["total_bytes"]

    def test_facts_do_not_change_between_workers(self, device: DeviceUnderTest) -> None:
        facts = []
        for _ in range(2):
            with device.connect() as transport:
                told = hello(transport)
                facts.append({key: told[key] for key in told if key not in ("pid", "lease", "work")})
        assert facts[0] == facts[1]

    def test_hello_twice(self, worker: Transport) -> None:
        assert hello(worker)["pid"] == hello(worker)["pid"]

    def test_another_protocol(self, device: DeviceUnderTest) -> None:
        with device.connect() as transport, pytest.raises(WorkerError, match="protocol"):
            transport.request("hello", S, protocol=999)

    def test_hello_comes_first(self, device: DeviceUnderTest, model: Model) -> None:
        with device.connect() as transport:
            with pytest.raises(WorkerError, match="hello") as caught:
                transport.push(model.path, model.sha256, model.suffix)
            assert caught.value.kind == "bad_request"
            hello(transport)
            transport.push(model.path, model.sha256, model.suffix)

    def test_push_brings_a_file_once(
        self, worker: Transport, device: DeviceUnderTest, model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        worker.push(model.path, model.sha256, model.suffix)
        there = device.model_file(model.sha256 + model.suffix)
        assert there.read_bytes() == model.path.read_bytes()

        def again(*_: object) -> None:
            raise AssertionError("transferred twice")

        monkeypatch.setattr(worker, "_transfer", again)
        worker.push(model.path, model.sha256, model.suffix)

    def test_push_survives_the_worker(self, device: DeviceUnderTest, model: Model) -> None:
        for _ in range(2):
            with device.connect() as transport:
                hello(transport)
                transport.push(model.path, model.sha256, model.suffix)
                assert load(transport, model)["handle"]

    def test_push_of_something_else_than_it_says(self, worker: Transport, model: Model) -> None:
        with pytest.raises(WorkerError) as caught:
            worker.push(model.path, "0" * 64, model.suffix)
        assert caught.value.kind == "corrupt_artifact"
        worker.push(model.path, model.sha256, model.suffix)

    def test_push_to_somewhere_else(self, worker: Transport, model: Model) -> None:
        for name in (("../../../../tmp/x", ".onnx"), ("0" * 64, "/../x"), ("0" * 64, "")):
            with pytest.raises(ValueError, match="not a SHA-256"):
                worker.push(model.path, *name)

    def test_load_tells_what_it_costs(self, worker: Transport, device: DeviceUnderTest, model: Model) -> None:
        worker.push(model.path, model.sha256, model.suffix)
        first, second = load(worker, model), load(worker, model)
        assert first["handle"] != second["handle"]
        assert first["import_ns"] > second["import_ns"]
        assert min(second["load_ns"], second["first_ns"]) > 0
        if device.runs_networks:
            assert second["inputs"] == [{"name": "x", "shape": [128, 128], "dtype": "float32"}]
        assert second["provider"] == device.provider
        assert second["runtime_version"] == hello(worker)["runtimes"]["onnxruntime"]["version"]

    def test_time(self, worker: Transport, model: Model) -> None:
        worker.push(model.path, model.sha256, model.suffix)
        handle = load(worker, model)["handle"]
        for warmup, runs in ((2, 10), (0, 1), (3, 0)):
            start = time.perf_counter_ns()
            reply = worker.request("time", S, handle=handle, warmup=warmup, runs=runs, deadline_s=S)
            elapsed = time.perf_counter_ns() - start
            assert (len(reply["warmup_ns"]), len(reply["samples_ns"])) == (warmup, runs)
            assert all(sample > 1000 for sample in reply["samples_ns"])
            assert sum(reply["samples_ns"]) + sum(reply["warmup_ns"]) < elapsed
            assert set(reply["telemetry"]) == {"before", "after"}
            assert "load" in reply["telemetry"]["before"]

    def test_a_pass_that_rules_end(self, worker: Transport, model: Model) -> None:
        worker.push(model.path, model.sha256, model.suffix)
        fields = {"handle": load(worker, model)["handle"], "warmup": 1, "runs": 3, "deadline_s": S}
        starts = []
        for _ in range(2):
            reply = worker.request("time", S, **fields, max_warmup=20, pass_s=0.02, max_pass_s=5, max_runs=9000)
            starts.append(reply["at_s"])
            assert 2 <= len(reply["warmup_ns"]) <= 20
            assert reply["settled"] or len(reply["warmup_ns"]) == 20
            assert sum(reply["samples_ns"]) >= 20_000_000 or len(reply["samples_ns"]) == 9000
        assert starts[1] - starts[0] > 0.02
        reply = worker.request("time", S, **fields, stop="stdrel", max_runs=8, warmup_s=0.001)
        assert sum(reply["warmup_ns"]) > 500_000
        assert 5 <= len(reply["samples_ns"]) <= 8
        assert "settled" not in reply
        reply = worker.request("time", S, **fields, overheads=100_000)
        assert len(reply["samples_ns"]) == 3
        assert all(sample * reply["calls"] > 500_000 for sample in reply["samples_ns"])

    def test_longer_networks_take_longer(self, worker: Transport, model: Model, long_model: Model) -> None:
        medians = []
        for one in (model, long_model):
            worker.push(one.path, one.sha256, one.suffix)
            reply = worker.request("time", S, handle=load(worker, one)["handle"], warmup=1, runs=5, deadline_s=S)
            medians.append(sorted(reply["samples_ns"])[2])
        assert medians[1] > 20 * medians[0]

    def test_time_stops_at_its_deadline(self, worker: Transport, long_model: Model) -> None:
        worker.push(long_model.path, long_model.sha256, long_model.suffix)
        handle = load(worker, long_model)["handle"]
        start = time.monotonic()
        with pytest.raises(WorkerError, match="deadline") as caught:
            worker.request("time", S, handle=handle, warmup=0, runs=100_000, deadline_s=0.2)
        assert caught.value.kind == "timeout"
        assert time.monotonic() - start < SOON_S
        worker.request("time", S, handle=handle, warmup=0, runs=1, deadline_s=S)

    def test_unload(self, worker: Transport, model: Model) -> None:
        worker.push(model.path, model.sha256, model.suffix)
        handles = [load(worker, model)["handle"] for _ in range(3)]
        worker.request("unload", S, handles=handles[:2])
        with pytest.raises(WorkerError, match=f"handle {handles[0]}") as caught:
            worker.request("time", S, handle=handles[0], warmup=0, runs=1, deadline_s=S)
        assert caught.value.kind == "bad_request"
        worker.request("time", S, handle=handles[2], warmup=0, runs=1, deadline_s=S)

    def test_telemetry(self, worker: Transport) -> None:
        assert {"temperature_c", "frequency_mhz", "load", "memory_mb"} <= set(worker.request("telemetry", S))

    def test_bye(self, worker: Transport, device: DeviceUnderTest) -> None:
        pid = hello(worker)["pid"]
        worker.request("bye", S)
        assert ends_soon(device, pid)

    # Requests that cannot be met: one clear error each, and the worker lives on

    def test_loads_that_fail(self, worker: Transport, device: DeviceUnderTest, model: Model) -> None:
        worker.push(model.path, model.sha256, model.suffix)
        for changes, kind, words in LOADS_THAT_FAIL:
            if words.startswith("cannot run as") and not device.runs_networks:
                continue  # it does not know what shapes a network takes
            with pytest.raises(WorkerError, match=words) as caught:
                load(worker, model, **changes)
            assert caught.value.kind == kind, changes
            assert load(worker, model)["handle"]

    def test_unknown_verb(self, worker: Transport) -> None:
        with pytest.raises(WorkerError, match="unknown verb 'shell'"):
            worker.request("shell", S, command="id")
        hello(worker)

    def test_a_network_that_changed_on_the_device(
        self, worker: Transport, device: DeviceUnderTest, model: Model, tmp_path: Path
    ) -> None:
        mine = Model(tmp_path / "mine.onnx", model.sha256)
        mine.path.write_bytes(model.path.read_bytes())
        worker.push(mine.path, mine.sha256, mine.suffix)
        device.model_file(mine.sha256 + mine.suffix).write_bytes(b"junk")
        with pytest.raises(WorkerError) as caught:
            load(worker, mine)
        assert caught.value.kind == "corrupt_artifact"
        worker.push(model.path, model.sha256, model.suffix)
        assert load(worker, model)["handle"]

    def test_a_network_that_changes_while_it_is_loaded(
        self, worker: Transport, device: DeviceUnderTest, model: Model, tmp_path: Path
    ) -> None:
        mine = Model(tmp_path / "mine.onnx", model.sha256)
        mine.path.write_bytes(model.path.read_bytes())
        worker.push(mine.path, mine.sha256, mine.suffix)
        handle = load(worker, mine)["handle"]
        there = device.model_file(mine.sha256 + mine.suffix)
        damaged = bytearray(there.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        there.write_bytes(damaged)
        with pytest.raises(WorkerError, match="changed on the device") as caught:
            worker.request("time", S, handle=handle, warmup=0, runs=1, deadline_s=S)
        assert caught.value.kind == "corrupt_artifact"
        with pytest.raises(WorkerError, match=f"handle {handle}"):
            worker.request("time", S, handle=handle, warmup=0, runs=1, deadline_s=S)
        worker.push(model.path, model.sha256, model.suffix)
        handle = load(worker, model)["handle"]
        worker.request("time", S, handle=handle, warmup=0, runs=1, deadline_s=S)

    def test_failures_name_the_network(self, worker: Transport, model: Model) -> None:
        worker.push(model.path, model.sha256, model.suffix)
        with pytest.raises(WorkerError, match=r"Flatbuffer.*space/archi"):
            load(worker, model, runtime="tflite", network="space/archi")

    # One user at a time

    def test_a_second_controller_is_told_who_is_first(
        self, worker: Transport, device: DeviceUnderTest, model: Model
    ) -> None:
        pid = hello(worker)["pid"]
        with device.connect() as second:
            with pytest.raises(WorkerError, match=str(pid)) as caught:
                hello(second)  # which does not say who it is: nobody's earlier worker
            assert caught.value.kind == "busy"
            with pytest.raises(WorkerError, match="hello"):
                second.push(model.path, model.sha256, model.suffix)
            worker.close()
            hello(second)

    def test_the_token_rises_with_every_worker(self, device: DeviceUnderTest) -> None:
        leases = []
        for _ in range(3):
            with device.connect() as transport:
                leases.append(hello(transport)["lease"])
                assert hello(transport)["lease"] == leases[-1]
        assert leases[0]["token"] < leases[1]["token"] < leases[2]["token"]
        assert len({lease["folder"] for lease in leases}) == 1

    def test_a_controller_takes_over_from_its_own_earlier_worker(self, device: DeviceUnderTest) -> None:
        """What a cut link leaves behind must not keep its own controller out."""
        with device.connect() as first, device.connect() as second:
            before = hello(first, owner=ME)
            after = hello(second, owner=ME)
            assert after["lease"]["token"] > before["lease"]["token"]
            assert ends_soon(device, before["pid"])
            with pytest.raises(DeviceLostError, match=device.name):
                first.request("telemetry", S)
            second.request("telemetry", S)

    def test_a_frozen_worker_gives_way_to_its_own_controller(self, device: DeviceUnderTest) -> None:
        with device.connect() as first, device.connect() as second:
            pid = hello(first, owner=ME)["pid"]
            device.signal(pid, signal.SIGSTOP)
            hello(second, owner=ME)
            assert ends_soon(device, pid)

    def test_another_controller_does_not_take_over(self, device: DeviceUnderTest) -> None:
        with device.connect() as first, device.connect() as second:
            pid = hello(first, owner=ME, who="anna@desk latlab process 7")["pid"]
            with pytest.raises(WorkerError, match=rf"by anna@desk \(latlab process 7 there\) since .*{pid}") as caught:
                hello(second, owner=ANOTHER)
            assert caught.value.kind == "busy"
            first.request("telemetry", S)

    def test_who_uses_it_is_a_line_that_nothing_heeds(self, device: DeviceUnderTest) -> None:
        with device.connect() as transport:
            for who in ("", " x", "a" * 101, "$(reboot)", 'a"b', "a\nb", 7):
                with pytest.raises(WorkerError, match="who") as caught:
                    hello(transport, who=who)
                assert caught.value.kind == "bad_request"

    def test_owners_that_are_none(self, device: DeviceUnderTest) -> None:
        with device.connect() as transport:
            for owner in ("me", ME.upper(), ME + "0", 7):
                with pytest.raises(WorkerError, match="owner") as caught:
                    hello(transport, owner=owner)
                assert caught.value.kind == "bad_request"

    def test_a_stale_worker_is_refused(self, device: DeviceUnderTest, model: Model) -> None:
        """Where a lock is lost, the token tells who came later; the earlier one does nothing more, and goes."""
        with device.connect() as first, device.connect() as second:
            pid = hello(first, owner=ME)["pid"]
            first.push(model.path, model.sha256, model.suffix)
            handle = load(first, model)["handle"]
            device.lose_lock()
            hello(second, owner=ANOTHER)
            with pytest.raises(WorkerError, match="taken over") as caught:
                first.request("time", S, handle=handle, warmup=0, runs=1, deadline_s=S)
            assert caught.value.kind == "lease_lost"
            assert ends_soon(device, pid)
            second.push(model.path, model.sha256, model.suffix)
            assert load(second, model)["handle"]

    def test_a_worker_that_is_asked_nothing_leaves(self, device: DeviceUnderTest) -> None:
        with device.connect() as transport:
            pid = hello(transport, idle_s=1)["pid"]
            start = time.monotonic()
            while time.monotonic() - start < 1.5:
                transport.request("telemetry", S)
                time.sleep(0.1)
            assert ends_soon(device, pid)
            with pytest.raises(DeviceLostError, match=device.name):
                transport.request("telemetry", S)

    # A worker that is gone, or silent

    def test_it_ends_with_its_controller(self, worker: Transport, device: DeviceUnderTest) -> None:
        pid = hello(worker)["pid"]
        worker.close()
        assert ends_soon(device, pid)
        worker.close()

    def test_closed_by_another_thread(self, device: DeviceUnderTest) -> None:
        """As the end of a run cuts off a device that is busy: the thread that waits for it learns that it is lost."""
        from concurrent.futures import ThreadPoolExecutor

        with device.impostor("time.sleep(60)") as transport, ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(transport.request, "telemetry", 60.0)
            time.sleep(0.3)
            transport.close(gently=False)
            with pytest.raises(DeviceLostError, match=f"device {device.name}"):
                waiting.result(SOON_S)
            with pytest.raises(DeviceLostError, match="not started"):
                transport.request("telemetry", S)

    def test_closed_before_a_file_is_copied(
        self, worker: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By another thread, which comes between a request and the copy."""
        mine, copy = make_model(tmp_path / "mine.onnx", 3), worker._transfer

        def closed_first(path: Path, sha256: str) -> None:
            worker.close()
            copy(path, sha256)

        monkeypatch.setattr(worker, "_transfer", closed_first)
        with pytest.raises(DeviceLostError):
            worker.push(mine.path, mine.sha256, mine.suffix)

    def test_a_closed_transport_says_so(self, worker: Transport) -> None:
        worker.close()
        with pytest.raises(DeviceLostError, match="not started"):
            hello(worker)

    def test_killed_between_requests(self, worker: Transport, device: DeviceUnderTest) -> None:
        device.signal(hello(worker)["pid"], signal.SIGKILL)
        start = time.monotonic()
        with pytest.raises(DeviceLostError, match=device.name) as caught:
            worker.request("telemetry", S)
        assert time.monotonic() - start < SOON_S
        assert not caught.value.timed_out

    def test_killed_while_timing_and_started_again(
        self, worker: Transport, device: DeviceUnderTest, long_model: Model
    ) -> None:
        from threading import Timer

        worker.push(long_model.path, long_model.sha256, long_model.suffix)
        handle, pid = load(worker, long_model, network="space/archi")["handle"], hello(worker)["pid"]
        start = time.monotonic()
        Timer(0.3, device.signal, (pid, signal.SIGKILL)).start()
        with pytest.raises(DeviceLostError, match=device.name) as caught:
            worker.request("time", 60, handle=handle, warmup=0, runs=100_000, deadline_s=60)
        assert time.monotonic() - start < SOON_S
        assert not caught.value.timed_out
        worker.start()
        hello(worker)
        worker.push(long_model.path, long_model.sha256, long_model.suffix)
        assert load(worker, long_model)["handle"]

    def test_frozen(self, worker: Transport, device: DeviceUnderTest) -> None:
        pid = hello(worker)["pid"]
        device.signal(pid, signal.SIGSTOP)
        try:
            start = time.monotonic()
            with pytest.raises(DeviceLostError, match=r"no reply to 'telemetry' within 0\.5 s") as caught:
                worker.request("telemetry", 0.5)
            assert time.monotonic() - start < SOON_S
            assert caught.value.timed_out
        finally:
            if device.is_running(pid):
                device.signal(pid, signal.SIGCONT)
        assert ends_soon(device, pid)
        worker.start()
        hello(worker)

    # A worker that is not to be trusted

    @pytest.mark.parametrize("reply", BROKEN_REPLIES)
    def test_broken_replies(self, device: DeviceUnderTest, reply: str) -> None:
        self.is_not_believed(device, f"print({reply!r})")

    def test_a_line_without_end(self, device: DeviceUnderTest) -> None:
        self.is_not_believed(device, "while True: sys.stdout.write('x' * 65536)")

    def test_bytes_of_any_kind(self, device: DeviceUnderTest) -> None:
        self.is_not_believed(device, "sys.stdout.buffer.write(bytes(range(256)) * 100)")

    def is_not_believed(self, device: DeviceUnderTest, program: str) -> None:
        """That a worker which runs `program` on its first request, and then waits, ends in a protocol error."""
        with device.impostor(f"input()\n{program}\nsys.stdout.flush()\ntime.sleep(60)") as transport:
            start = time.monotonic()
            with pytest.raises(ProtocolError, match=f"device {device.name}: broken reply") as caught:
                transport.request("time", 15, handle=1, warmup=0, runs=2, deadline_s=1)
            assert time.monotonic() - start < 10
            assert caught.value.message.isprintable()
            assert len(caught.value.message) < 1000
            with pytest.raises(DeviceLostError):
                transport.request("telemetry", 1)

    def test_a_worker_that_says_nothing(self, device: DeviceUnderTest) -> None:
        with device.impostor("time.sleep(60)") as transport:
            with pytest.raises(DeviceLostError, match="no reply") as caught:
                transport.request("hello", 0.5, protocol=1)
            assert caught.value.timed_out

    def test_a_worker_that_stutters(self, device: DeviceUnderTest) -> None:
        """Bytes keep coming, but never a line: the deadline holds all the same."""
        with device.impostor("while True: print('x', end='', flush=True); time.sleep(0.01)") as transport:
            start = time.monotonic()
            with pytest.raises(DeviceLostError, match="no reply"):
                transport.request("hello", 0.5, protocol=1)
            assert time.monotonic() - start < SOON_S

    def test_its_last_words_are_passed_on(self, device: DeviceUnderTest) -> None:
        program = (
            "print('\\n'.join(f'line {n}' for n in range(9999)), file=sys.stderr)\nsys.exit('\\x1b[31mno such thing')"
        )
        with device.impostor(program) as transport:
            with pytest.raises(DeviceLostError, match="no such thing") as caught:
                transport.request("hello", S, protocol=1)
            assert "\x1b" not in caught.value.message
            assert "line 9998" in transport.stderr_tail
            assert "line 9000\n" not in transport.stderr_tail

    def test_a_talkative_stderr_does_not_block(self, device: DeviceUnderTest) -> None:
        program = (
            "input()\nfor _ in range(3000): print('x' * 1000, file=sys.stderr)\nprint('{\"id\": 1, \"ok\": true}')"
        )
        with device.impostor(program) as transport:
            assert transport.request("telemetry", S) == {}

    @pytest.mark.parametrize("handles", [[], list(range(100_000))], ids=["waiting", "asking"])
    def test_a_stderr_without_end(self, device: DeviceUnderTest, handles: list[int]) -> None:
        """There is always something to read, but never a reply: the deadline holds all the same."""
        with device.impostor("while True: sys.stderr.write('x' * 65535 + '\\n')") as transport:
            start = time.monotonic()
            told = f"device {device.name}: no reply to 'unload' within 1 s"
            with pytest.raises(DeviceLostError, match=told) as caught:
                transport.request("unload", 1.0, handles=handles)
            assert caught.value.timed_out
            assert time.monotonic() - start < SOON_S

    def test_a_large_request_to_a_worker_that_does_not_read(self, device: DeviceUnderTest) -> None:
        with device.impostor("time.sleep(60)") as transport, pytest.raises(DeviceLostError, match="no reply"):
            transport.request("unload", 0.5, handles=list(range(100_000)))
