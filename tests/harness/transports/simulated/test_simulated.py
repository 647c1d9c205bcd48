"""The simulated transport: the conformance suite. What the simulation does is in test_simulated_device.py."""

from __future__ import annotations

import builtins
import hashlib
import queue
import signal
import sys
import threading
import types
from pathlib import Path

import pytest
from transport_conformance import DeviceUnderTest, Model, TransportConformance

from latlab.harness import transports
from latlab.harness.transports import Transport, open_transport
from latlab.harness.transports.base import ChannelClosedError, ChannelTimeoutError, Deadline
from latlab.harness.transports.simulated.config import SimulatedDevice
from latlab.harness.transports.simulated.processes import Process, find, revoke
from latlab.harness.transports.simulated.transport import SimulatedTransport


class Impostor(Process):
    """A program in a thread, whose input, output and sleep are the channel's; a worker to the transport."""

    def __init__(self, program: str, transport: Transport) -> None:
        super().__init__()
        self._transport = transport
        self._input: queue.Queue[str] = queue.Queue()
        self._output: queue.Queue[bytes] = queue.Queue(maxsize=100)
        self._program = program
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def feed(self, data: bytes) -> None:
        self._input.put(data.decode())

    def read(self, deadline: Deadline) -> bytes:
        while True:
            try:
                return self._output.get(timeout=min(0.01, max(deadline.left, 1e-4)))
            except queue.Empty:
                if self.ended is not None and self._output.empty():
                    raise ChannelClosedError(self.ended) from None
                if not deadline.left:
                    raise ChannelTimeoutError from None

    def write(self, data: bytes) -> None:
        while self.ended is None:
            try:
                self._output.put(data, timeout=0.01)
            except queue.Full:
                continue
            return
        raise SystemExit

    def note(self, text: str) -> None:
        if self.ended is not None:
            raise SystemExit  # else a program that only complains would run on after its test
        self._transport._note_stderr(text.encode())

    def sleep(self, seconds: float) -> None:
        while seconds > 0 and self.ended is None:
            self.woken.wait(min(seconds, 0.05))
            seconds -= 0.05
        if self.ended is not None:
            raise SystemExit

    def _run(self) -> None:
        binary = types.SimpleNamespace(write=self.write)
        stdout = types.SimpleNamespace(write=lambda text: self.write(text.encode()), flush=lambda: None, buffer=binary)
        stderr = types.SimpleNamespace(write=self.note, flush=lambda: None)
        own = types.SimpleNamespace(stdout=stdout, stderr=stderr, exit=sys.exit)

        def say(*words: object, end: str = "\n", file: object = stdout, flush: bool = False) -> None:
            file.write(" ".join(map(str, words)) + end)  # type: ignore[attr-defined]

        names = {"sys": own, "time": types.SimpleNamespace(sleep=self.sleep), "print": say, "input": self._input.get}
        try:
            exec(self._program, {"__builtins__": builtins, **names})  # noqa: S102  (a test's own program)
        except SystemExit as error:
            if isinstance(error.code, str) and self.ended is None:
                self.note(error.code + "\n")
        self.end("ended with exit code 1")


class SimulatedDeviceUnderTest(DeviceUnderTest):
    name = "dreamt"
    provider = "simulated"
    runs_networks = False

    def __init__(self, folder: Path) -> None:
        self._work = folder / "work"
        self._config = SimulatedDevice(kind="ideal", pace=1.0, work=self._work)

    def connect(self) -> Transport:
        return open_transport(self._config, self.name, "onnxruntime")

    def impostor(self, program: str) -> Transport:
        class Channel(SimulatedTransport):
            def _start_worker(self) -> Impostor:  # type: ignore[override]
                return Impostor(program, self)

        return Channel.from_config(self.name, self._config)

    def signal(self, pid: int, number: signal.Signals) -> None:
        process = find(pid)
        assert process is not None
        process.signal(number)

    def is_running(self, pid: int) -> bool:
        process = find(pid)
        return process is not None and process.is_running

    def model_file(self, name: str) -> Path:
        return self._work / "models" / name

    def lose_lock(self) -> None:
        revoke((self.name, self._config.seed, self._config.work))


class TestSimulated(TransportConformance):
    @pytest.fixture
    def device(self, tmp_path: Path) -> SimulatedDeviceUnderTest:
        return SimulatedDeviceUnderTest(tmp_path)

    @pytest.fixture
    def long_model(self, tmp_path: Path) -> Model:
        """Twenty milliseconds, by its size."""
        path = tmp_path / "long.onnx"
        path.write_bytes(b"\x08" * 4_000_000)
        return Model(path, hashlib.sha256(path.read_bytes()).hexdigest())


def test_registered() -> None:
    assert transports.get("simulated") is SimulatedDevice
