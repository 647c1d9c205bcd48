"""The local transport: the conformance suite, and what only a child process can show."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from transport_conformance import (
    DeviceUnderTest,
    Model,
    S,
    TransportConformance,
    hello,
    load,
    make_model,
)

from latlab.harness import transports
from latlab.harness.transports import ConnectError, DeviceLostError, Transport, WorkerError
from latlab.harness.transports.local.config import LocalDevice as LocalConfig
from latlab.harness.transports.local.transport import LocalTransport, default_work_folder


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class LocalDevice(DeviceUnderTest):
    name = "here"

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self._impostor = folder / "impostor"

    def connect(self) -> Transport:
        return LocalTransport(self.name, work=self.work)

    def impostor(self, program: str) -> Transport:
        self._impostor.write_text(f"#!{sys.executable}\nimport sys, time\n{program}\n")
        self._impostor.chmod(0o755)
        return LocalTransport(self.name, python=self._impostor, work=self.work)

    def signal(self, pid: int, number: signal.Signals) -> None:
        os.kill(pid, number)

    def is_running(self, pid: int) -> bool:
        return is_running(pid)

    def model_file(self, name: str) -> Path:
        return self.work / "models" / name


class TestLocal(TransportConformance):
    @pytest.fixture
    def device(self, tmp_path: Path) -> LocalDevice:
        return LocalDevice(tmp_path)

    def test_how_it_died_is_named(self, worker: LocalTransport) -> None:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGSEGV)
        with pytest.raises(DeviceLostError, match=r"(?s)killed by SIGSEGV during 'telemetry'.*Segmentation fault"):
            worker.request("telemetry", S)

    def test_push_is_a_hard_link(self, worker: Transport, device: LocalDevice, tmp_path: Path) -> None:
        model = make_model(tmp_path / "mine.onnx", 1)
        worker.push(model.path, model.sha256, model.suffix)
        assert device.model_file(model.sha256 + model.suffix).samefile(model.path)

    def test_push_copies_where_it_cannot_link(
        self, worker: Transport, device: LocalDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", refuse)
        model = make_model(tmp_path / "mine.onnx", 1)
        worker.push(model.path, model.sha256, model.suffix)
        there = device.model_file(model.sha256 + model.suffix)
        assert there.read_bytes() == model.path.read_bytes()
        assert not there.samefile(model.path)

    def test_a_full_disk_is_named(self, worker: Transport, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "link", full)
        monkeypatch.setattr("shutil.copyfileobj", full)
        with pytest.raises(WorkerError, match="No space left on device") as caught:
            worker.push(model.path, model.sha256, model.suffix)
        assert caught.value.kind == "no_space"
        hello(worker)

    def test_affinity_is_set_and_lifted(self, worker: LocalTransport, model: Model) -> None:
        def affinities() -> set[str]:
            tasks = Path(f"/proc/{worker.pid}/task").iterdir()
            lines = [line for task in tasks for line in (task / "status").read_text().splitlines()]
            return {line.split()[1] for line in lines if line.startswith("Cpus_allowed_list")}

        usable = sorted(os.sched_getaffinity(0))
        if len(usable) < 2:
            pytest.skip("needs two CPUs")
        before = affinities()
        worker.push(model.path, model.sha256, model.suffix)
        pinned = load(worker, model, affinity=[usable[-1]], threads=2)["handle"]
        assert affinities() == {str(usable[-1])}
        free = load(worker, model)["handle"]
        assert affinities() == before
        worker.request("time", S, handle=pinned, warmup=0, runs=1, deadline_s=S)
        assert affinities() == {str(usable[-1])}
        worker.request("time", S, handle=free, warmup=0, runs=1, deadline_s=S)
        assert affinities() == before

    def test_a_worker_stays_while_a_file_arrives(self, device: LocalDevice) -> None:
        """Large files take long over slow links, and nothing is asked meanwhile."""
        with device.connect() as transport:
            pid = hello(transport, idle_s=2)["pid"]
            with (device.work / "incoming" / ("0" * 64 + ".part")).open("wb", buffering=0) as file:
                for _ in range(15):
                    file.write(b"x")
                    time.sleep(0.2)
            assert is_running(pid)
            transport.request("telemetry", S)

    def test_no_such_interpreter(self, tmp_path: Path) -> None:
        with pytest.raises(ConnectError, match=r"cannot start .*nothing: No such file") as caught:
            LocalTransport(python=tmp_path / "nothing", work=tmp_path).start()
        assert (caught.value.step, caught.value.lasting) == ("Python", True)

    def test_a_work_folder_that_cannot_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ConnectError, match="cannot use the work folder") as caught:
            LocalTransport(work=tmp_path / "file" / "work").start()
        assert (caught.value.step, caught.value.lasting) == ("work folder", True)

    def test_a_damaged_program_is_replaced(self, device: LocalDevice) -> None:
        with device.connect() as transport:
            hello(transport)
        (program,) = device.work.glob("*.pyz")
        program.write_bytes(program.read_bytes()[:1000])
        with device.connect() as transport:
            hello(transport)

    def test_an_interpreter_without_runtimes(self, device: LocalDevice) -> None:
        with device.impostor("import os; os.execv(sys.executable, [sys.executable, '-S', *sys.argv[3:]])") as transport:
            runtimes = hello(transport)["runtimes"]
        assert all(runtime["version"] is None for runtime in runtimes.values())
        assert "pip install onnxruntime" in runtimes["onnxruntime"]["why"]


def test_registered() -> None:
    assert isinstance(transports.open_transport(LocalConfig(), "here", "tflite"), LocalTransport)
    assert transports.get("local") is LocalConfig
    assert "local" in transports.names()
    with pytest.raises(transports.UnknownTransportError, match=r"installed are: .*local"):
        transports.get("pigeon")


def test_the_default_folder_is_in_the_users_cache() -> None:
    assert default_work_folder().parts[-2:] == ("latlab", "worker")


CONTROLLER = """
    import os, sys, time
    from pathlib import Path
    from latlab.harness.transports.local.transport import LocalTransport

    transport = LocalTransport(work=Path(sys.argv[1]))
    transport.start()
    pid = transport.request("hello", 20, protocol=1)["pid"]
    if sys.argv[2] != "alone" and os.fork() == 0:
        time.sleep(60)  # holds the worker's stdin open
    if sys.argv[2] == "timing":
        sha256, wanted = sys.argv[4], {"runtime": "onnxruntime", "accelerator": "cpu", "threads": 1}
        transport.push(Path(sys.argv[3]), sha256, ".onnx")
        loaded = transport.request("load", 20, sha256=sha256, suffix=".onnx", affinity=None, seed=0, **wanted)
    print(os.getpid(), pid, flush=True)
    if sys.argv[2] == "timing":
        transport.request("time", 99, handle=loaded["handle"], warmup=0, runs=100_000, deadline_s=99)
    time.sleep(60)
"""


@pytest.mark.parametrize("state", ["alone", "heir", "timing"])
def test_a_killed_controller_takes_its_worker_along(tmp_path: Path, long_model: Model, state: str) -> None:
    """Also when somebody else holds the worker's stdin open, so that it never ends; also in the middle of timing."""
    arguments = [str(tmp_path), state, str(long_model.path), long_model.sha256]
    command = [sys.executable, "-c", textwrap.dedent(CONTROLLER), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as controller:
        try:
            assert controller.stdout is not None
            pid, worker = map(int, controller.stdout.readline().split())
            assert is_running(worker)
            os.kill(pid, signal.SIGKILL)
            until = time.monotonic() + 20
            while is_running(worker) and time.monotonic() < until:
                time.sleep(0.02)
            assert not is_running(worker)
        finally:
            os.killpg(controller.pid, signal.SIGKILL)


def test_ctrl_c_while_waiting_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalTransport(work=tmp_path) as transport:
        pid = hello(transport)["pid"]

        def interrupted(*_: object) -> bytes:
            raise KeyboardInterrupt

        monkeypatch.setattr(transport, "_receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            transport.request("telemetry", S)
        assert not is_running(pid)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_runtime_that_prints_or_hangs(tmp_path: Path) -> None:
    """What native code writes to stdout is not taken for a reply; a network that never returns costs the worker."""
    import hashlib

    import torch

    class Talks(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            print('{"id": 3, "ok": false}')
            return x

    class Hangs(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            while bool(x.sum() < 1e30):
                x = x * 1
            return x

    with LocalTransport(work=tmp_path / "work") as transport:
        hello(transport)
        models = []
        for module in (Talks(), Hangs()):
            path = tmp_path / f"{type(module).__name__}.pt"
            torch.jit.save(torch.jit.script(module.eval()), path)
            models.append(Model(path, hashlib.sha256(path.read_bytes()).hexdigest(), ".pt"))
            transport.push(path, models[-1].sha256, ".pt")
        wanted = {"runtime": "torchscript", "inputs": [{"shape": [1, 4]}]}
        handle = load(transport, models[0], **wanted)["handle"]
        assert transport.request("time", S, handle=handle, warmup=1, runs=2, deadline_s=S)["samples_ns"]
        assert '{"id": 3, "ok": false}' in transport.stderr_tail
        with pytest.raises(DeviceLostError, match="no reply to 'load'") as caught:
            transport.request(
                "load",
                1.0,
                sha256=models[1].sha256,
                suffix=".pt",
                accelerator="cpu",
                threads=1,
                affinity=None,
                seed=0,
                **wanted,
            )
        assert caught.value.timed_out
