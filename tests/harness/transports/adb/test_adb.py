"""The adb transport, against Debian's build of Android's adbd: the conformance suite, logging in, ways that are cut."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from peers.fixtures import Peers
from peers.phone import Phone
from peers.processes import wait_until
from transport_conformance import DeviceUnderTest, Model, S, TransportConformance, hello, load, make_model

from latlab.harness.transports import ConnectError, DeviceLostError, Transport, WorkerError
from latlab.harness.transports.adb import connection as adb_connection
from latlab.harness.transports.adb.config import ADBDevice
from latlab.harness.transports.adb.connection import ADBConnection
from latlab.harness.transports.adb.link import Link, MendedTcpTransport, open_tcp
from latlab.harness.transports.adb.phone import Phone as Client
from latlab.harness.transports.adb.services import Event, ShellProcess, TooMuchOutputError, push, run
from latlab.harness.transports.adb.transport import ADBTransport
from latlab.harness.transports.base import ChannelLostError, ChannelTimeoutError, Deadline

pytestmark = pytest.mark.peers

PATIENCE_S = 2.0
"""Less than the default, to save time."""
GRACE_S = 5.0
"""What a busy machine may add; whatever waits without this transport's own bounds waits far longer."""
STAY_ON = "data/system/settings/global/stay_on_while_plugged_in"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without an adb key."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture(scope="module")
def shared_phone(peers: Peers) -> Iterator[Phone]:
    """For tests that leave it as it was."""
    made = peers.phone("shared-phone")
    yield made
    peers.close(made)


class ADBUnderTest(DeviceUnderTest):
    name = "in-my-pocket"

    def __init__(self, phone: Phone, folder: str, **settings: Any) -> None:
        self.phone = phone
        self.work = f"{phone.home}/{folder}"
        self._settings = {
            "host": phone.address,
            "port": phone.port,
            "python": phone.python,
            "work": self.work,
            "patience_s": PATIENCE_S,
            **settings,
        }

    def connect(self, **changes: Any) -> ADBTransport:
        settings = {key: value for key, value in {**self._settings, **changes}.items() if value is not None}
        return ADBTransport(self.name, ADBDevice(**settings))

    def impostor(self, program: str) -> Transport:
        """Its interpreter is a script that is a genuine one for as long as it is only looked at."""
        folder, python = self.phone.path(self.phone.home), self.phone.python
        (folder / "impostor.py").write_text(f"import sys, time\n{program}\n")
        (folder / "impostor").write_text(
            f'#!/system/bin/sh\n[ "$1" != -S ] || exec {python} "$@"\nexec {python} {self.phone.home}/impostor.py\n'
        )
        (folder / "impostor").chmod(0o755)
        return self.connect(python=f"{self.phone.home}/impostor")

    def signal(self, pid: int, number: signal.Signals) -> None:
        self.phone.signal(pid, number)

    def is_running(self, pid: int) -> bool:
        return self.phone.is_running(pid)

    def model_file(self, name: str) -> Path:
        return self.phone.path(f"{self.work}/models/{name}")


@pytest.fixture
def device(shared_phone: Phone, request: pytest.FixtureRequest) -> ADBUnderTest:
    return ADBUnderTest(shared_phone, f"work{abs(hash(request.node.name))}")


@pytest.fixture
def own_device(shared_phone: Phone) -> Iterator[ADBUnderTest]:
    """On a phone that the test may do to what is mended here."""
    phone = shared_phone
    tools = {name: phone.path(f"/system/bin/{name}").read_bytes() for name in ("settings", "input", "svc")}
    phone.path(STAY_ON).write_text("0\n")
    phone.path(STAY_ON).chmod(0o666)
    yield ADBUnderTest(phone, "own")
    phone.link_up()
    phone.free_disk()
    if not phone.processes("^/usr/sbin/adbd"):
        phone.start_adbd()
    for folder in ("/data/local/tmp", "/sdcard"):
        phone.path(folder).chmod(0o771)
    for name, content in tools.items():
        phone.path(f"/system/bin/{name}").write_bytes(content)
        phone.path(f"/system/bin/{name}").chmod(0o755)
    phone.run(
        "/system/bin/rm", "-rf", "/data/local/tmp/own", "/sdcard/latlab", "/system/bin/python3", "/system/bin/old"
    )


class TestADB(TransportConformance):
    @pytest.fixture
    def device(self, shared_phone: Phone, request: pytest.FixtureRequest) -> ADBUnderTest:
        return ADBUnderTest(shared_phone, f"work{abs(hash(request.node.name))}")

    def test_how_it_died_is_named(self, worker: Transport, device: ADBUnderTest) -> None:
        device.signal(hello(worker)["pid"], signal.SIGSEGV)
        with pytest.raises(DeviceLostError, match=r"(?s)killed by SIGSEGV during 'telemetry'.*Segmentation fault"):
            worker.request("telemetry", S)

    def test_a_hung_worker_is_ended_with_its_connection(self, worker: Transport, device: ADBUnderTest) -> None:
        pid = hello(worker)["pid"]
        device.signal(pid, signal.SIGSTOP)
        start = time.monotonic()
        worker.close()
        assert time.monotonic() - start < GRACE_S
        assert not device.is_running(pid)
        worker.start()
        hello(worker)

    def test_a_damaged_program_is_replaced(self, device: ADBUnderTest) -> None:
        with device.connect() as transport:
            hello(transport)
        (program,) = device.phone.path(device.work).glob("*.pyz")
        whole = program.read_bytes()
        for damaged in (whole[:1000], whole[:-1] + b"x"):
            program.write_bytes(damaged)
            with device.connect() as transport:
                hello(transport)
            assert program.read_bytes() == whole

    def test_a_battery(self, worker: Transport) -> None:
        assert worker.request("telemetry", S)["battery"] == {
            "percent": 83,
            "status": "Charging",
            "temperature_c": 30.2,
        }


class TestOldADB:
    """An adbd without shell protocol 2 (Android 6): the same worker over `exec:`, whose stderr goes to a file."""

    @pytest.fixture
    def device(self, shared_phone: Phone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ADBUnderTest:
        welcome = ADBConnection._read_banner

        def forget(connection: ADBConnection, message: tuple[int, int, int, bytes]) -> None:
            welcome(connection, message)
            connection.features = frozenset()

        monkeypatch.setattr(ADBConnection, "_read_banner", forget)
        return ADBUnderTest(shared_phone, f"old-{tmp_path.name}")

    def test_a_session(self, device: ADBUnderTest, model: Model) -> None:
        with device.connect() as worker:
            pid = hello(worker)["pid"]
            worker.push(model.path, model.sha256, model.suffix)
            handle = load(worker, model)["handle"]
            reply = worker.request("time", S, handle=handle, warmup=1, runs=5, deadline_s=S)
            assert len(reply["samples_ns"]) == 5
        wait_until(lambda: not device.is_running(pid), f"process {pid} lives on")

    def test_its_last_words(self, device: ADBUnderTest) -> None:
        with device.impostor("sys.exit('no such thing')") as worker:
            with pytest.raises(DeviceLostError, match=r"(?s)the worker ended during 'hello'.*no such thing") as caught:
                hello(worker)
            assert not caught.value.timed_out

    def test_words_of_one_that_hangs(self, device: ADBUnderTest) -> None:
        program = "print('thinking', file=sys.stderr, flush=True); time.sleep(60)"
        with device.impostor(program) as worker, pytest.raises(DeviceLostError, match="thinking"):
            worker.request("telemetry", 3.0)


# Getting in


def refusal(transport: Transport) -> ConnectError:
    """Why it cannot be started."""
    with pytest.raises(ConnectError) as caught, transport:
        pass
    assert caught.value.step in transport.STEPS
    assert transport.name in caught.value.message
    assert caught.value.unreachable
    return caught.value


def make_key(folder: Path) -> Path:
    from adb_shell.auth.keygen import keygen

    keygen(str(folder / "adbkey"))
    return folder / "adbkey"


def test_a_key_that_is_asked_for(
    device: ADBUnderTest, peers: Peers, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adb_connection, "CONFIRM_S", 0.5)
    gate = peers.auth_gate(device.phone)
    asked = {"host": gate.address, "port": gate.port}
    error = refusal(device.connect(**asked))
    assert (error.step, error.lasting) == ("login", True)
    assert f"adb keygen {home}/.android/adbkey" in error.advice
    (home / ".android").mkdir()
    key = make_key(home / ".android")
    error = refusal(device.connect(**asked))
    assert (error.step, error.lasting) == ("login", True)
    assert "confirm the dialog on the phone" in error.advice
    public = Path(f"{key}.pub").read_text()
    assert gate.offered == [public]
    gate.keys.append(public)
    with device.connect(**asked) as transport:
        hello(transport)
    # The public half need not lie beside the private one, which may lie elsewhere.
    key.rename(home / "mine")
    gate.keys.clear()
    error = refusal(device.connect(**asked, key=home / "mine"))
    assert gate.offered[-1].split()[0] == public.split()[0]
    peers.close(gate)


def test_nobody_confirms_within_bounds(device: ADBUnderTest, peers: Peers, tmp_path: Path) -> None:
    assert adb_connection.CONFIRM_S <= 30
    gate = peers.auth_gate()
    start = time.monotonic()
    adb_connection.CONFIRM_S, before = 1.0, adb_connection.CONFIRM_S
    try:
        refusal(device.connect(host=gate.address, port=gate.port, key=make_key(tmp_path)))
    finally:
        adb_connection.CONFIRM_S = before
    assert 1 <= time.monotonic() - start < 1 + GRACE_S
    peers.close(gate)


def test_a_key_that_is_none(device: ADBUnderTest, peers: Peers, tmp_path: Path) -> None:
    gate = peers.auth_gate()
    (tmp_path / "key").write_text("secret\n")
    error = refusal(device.connect(host=gate.address, port=gate.port, key=tmp_path / "key"))
    assert (error.step, error.lasting) == ("login", True)
    assert "is no adb key" in error.message
    assert "secret" not in error.message
    peers.close(gate)


def answering(data: bytes) -> tuple[socket.socket, int]:
    """A server that answers whoever comes with the same bytes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        kept = []
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.sendall(data)
            kept.append(connection)

    threading.Thread(target=serve, daemon=True).start()
    return listener, listener.getsockname()[1]


def message(command: bytes, first: int = 0, second: int = 0, payload: bytes = b"") -> bytes:
    magic = int.from_bytes(command, "little") ^ 0xFFFFFFFF
    numbers = (first, second, len(payload), sum(payload), magic)
    return command + b"".join(number.to_bytes(4, "little") for number in numbers) + payload


@pytest.mark.parametrize(
    ("data", "step", "words"),
    [
        (b"", "connection", "does not answer within"),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n", "connection", "does not speak adb's protocol"),
        (message(b"CNXN", 0x01000001, 1 << 20, b"x" * 10)[:-10], "connection", "does not answer within"),
        (message(b"STLS", 0x01000000), "login", "wireless debugging"),
        (message(b"WRTE", 9, 9, b"?"), "connection", "does not answer within"),
    ],
)
def test_servers_that_are_none(device: ADBUnderTest, data: bytes, step: str, words: str) -> None:
    listener, port = answering(data)
    start = time.monotonic()
    with listener:
        error = refusal(device.connect(host="127.0.0.1", port=port))
    assert (error.step, error.lasting) == (step, step == "login")
    assert words in error.message
    assert time.monotonic() - start < PATIENCE_S + GRACE_S


def test_nobody_listens(device: ADBUnderTest) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    error = refusal(device.connect(host="127.0.0.1", port=port))
    assert (error.step, error.lasting) == ("connection", False)
    assert "adb tcpip 5555" in error.advice


def test_usb_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usb1", None)
    error = refusal(ADBTransport("in-my-pocket", ADBDevice(serial="TEST0001")))
    assert error.step == "connection"
    assert "pip install 'latlab[usb]'" in error.message


def test_no_python(device: ADBUnderTest) -> None:
    error = refusal(device.connect(python=None))
    assert (error.step, error.lasting) == ("Python", True)
    assert "com.termux" in error.message
    assert "benchmark_model" in error.advice
    error = refusal(device.connect(python="/data/local/tmp/nothing"))
    assert "nothing" in error.message


def test_python_on_the_path(own_device: ADBUnderTest) -> None:
    own_device.phone.path("/system/bin/python3").symlink_to("/usr/bin/python3")
    with own_device.connect(python=None) as transport:
        assert hello(transport)["runtimes"]["onnxruntime"]["version"]


def test_an_old_python(own_device: ADBUnderTest) -> None:
    own_device.phone.path("/system/bin/old").write_text("#!/system/bin/sh\necho /system/bin/old 3 8\n")
    own_device.phone.path("/system/bin/old").chmod(0o755)
    assert "is Python 3.8" in refusal(own_device.connect(python="old")).message


def test_work_folders_are_tried_one_after_another(own_device: ADBUnderTest) -> None:
    """Some vendors' phones refuse /data/local/tmp."""
    phone = own_device.phone
    phone.path("/data/local/tmp").chmod(0o555)
    with own_device.connect(work=None) as transport:
        assert hello(transport)["work"]["folder"] == "/sdcard/latlab"
    phone.path("/sdcard/latlab").rename(phone.path("/sdcard/elsewhere"))
    phone.path("/sdcard").chmod(0o555)
    error = refusal(own_device.connect(work=None))
    assert (error.step, error.lasting) == ("work folder", True)
    assert error.message.count("ermission denied") == 3
    assert "`work`" in error.advice


def test_names_that_a_shell_would_misread(device: ADBUnderTest) -> None:
    folder = f"{device.work}/it's a \"$(touch pwned)\" & 'folder' ;"
    with device.connect(work=folder) as transport:
        hello(transport)
    assert device.phone.path(f"{folder}/lock").exists()


# Files


def test_a_full_disk(own_device: ADBUnderTest, tmp_path: Path) -> None:
    phone, big = own_device.phone, tmp_path / "big.onnx"
    with own_device.connect() as worker:
        hello(worker)
        big.write_bytes(os.urandom(1 << 22))
        digest = hashlib.sha256(big.read_bytes()).hexdigest()
        phone.fill_disk()
        with pytest.raises(WorkerError, match="No space left") as caught:
            worker.push(big, digest, ".onnx")
        assert caught.value.kind == "no_space"
        assert not list(phone.path(f"{own_device.work}/incoming").iterdir())
        phone.free_disk()
        worker.push(big, digest, ".onnx")
    phone.fill_disk()
    error = refusal(own_device.connect(work="/data/local/tmp/another"))
    assert (error.step, error.advice) == ("work folder", "Free some space on it.")


def test_a_folder_that_is_refused_is_noticed_at_once(device: ADBUnderTest, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(bytes(1 << 23))
    connection = connected(device)
    start = time.monotonic()
    with big.open("rb", buffering=0) as file, pytest.raises(PermissionError, match="Permission denied"):
        push(connection, file, "/system/bin/big")
    assert time.monotonic() - start < GRACE_S
    assert run(connection, "echo alive", S).output == b"alive\n"
    connection.close()


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, (1 << 20) - 8, 1 << 20, 5_000_003])
def test_pushes_of_any_size(device: ADBUnderTest, tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    connection = connected(device)
    with path.open("rb", buffering=0) as file:
        push(connection, file, "/data/local/tmp/file", 0o755)
    there = device.phone.path("/data/local/tmp/file")
    assert there.read_bytes() == path.read_bytes()
    assert there.stat().st_mode & stat.S_IXUSR
    connection.close()


@pytest.mark.parametrize("most", [4096, 70_000])
def test_devices_that_take_little_at_once(device: ADBUnderTest, tmp_path: Path, most: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(300_000))
    connection = connected(device)
    connection.max_payload = most
    with path.open("rb", buffering=0) as file:
        push(connection, file, "/data/local/tmp/small")
    assert device.phone.path("/data/local/tmp/small").read_bytes() == path.read_bytes()
    connection.close()


def test_pushes_are_fast(device: ADBUnderTest, tmp_path: Path) -> None:
    """The bar of the issue is 30 MB/s; benchmarks/transports.py says what it is."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(1 << 26))
    connection = connected(device)
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        push(connection, file, "/data/local/tmp/large")
    elapsed_s = time.perf_counter() - start
    device.phone.path("/data/local/tmp/large").unlink()
    connection.close()
    assert (1 << 26) / elapsed_s > 30e6


# The shell


def connected(device: ADBUnderTest) -> ADBConnection:
    connection = ADBConnection(open_tcp(device.phone.address, device.phone.port, PATIENCE_S))

    def unwanted() -> Any:
        raise AssertionError("asked for a key")

    connection.log_in(unwanted, Deadline(S))
    return connection


@pytest.mark.parametrize("features", [None, frozenset()])
def test_a_shell_command(device: ADBUnderTest, features: frozenset[str] | None) -> None:
    connection = connected(device)
    if features is not None:
        connection.features = features
    ran = run(connection, "echo out; echo err >&2; exit 7", S)
    assert ran.status == 7
    assert b"out" in ran.output
    assert b"err" in (ran.errors if features is None else ran.output)
    assert run(connection, "printf 'no newline'", S).output.endswith(b"no newline")
    with pytest.raises(ChannelTimeoutError):
        run(connection, "exec sleep 30", 0.3)
    with pytest.raises(TooMuchOutputError):
        run(connection, "exec tr '\\0' x </dev/zero", S)
    assert run(connection, "echo alive", S).output.endswith(b"alive\n")
    wait_until(lambda: not device.phone.processes("^(sleep 30|tr )"), "what was given up lives on")
    connection.close()


def test_two_streams_at_once(device: ADBUnderTest) -> None:
    connection = connected(device)
    first = ShellProcess(connection, "exec cat", Deadline(S))
    second = ShellProcess(connection, "exec cat", Deadline(S))
    for number in range(20):
        first.write(b"first %d" % number, Deadline(S))
        second.write(b"second %d" % number, Deadline(S))
        assert second.read(Deadline(S)) == (Event.STDOUT, b"second %d" % number)
        assert first.read(Deadline(S)) == (Event.STDOUT, b"first %d" % number)
    # Far more than what either end holds back: neither may wait for the other for ever.
    first.write(b"x" * 3_000_000, Deadline(S))
    first.close_stdin(Deadline(S))
    size = 0
    while not first.ended:
        size += len(first.read(Deadline(S))[1])
    assert size == 3_000_000 + 1  # and the exit status
    connection.close()


def test_a_file_that_is_pushed_while_the_worker_talks(device: ADBUnderTest, tmp_path: Path) -> None:
    connection = connected(device)
    chatty = ShellProcess(connection, "while :; do echo chatter; done", Deadline(S))
    with io.FileIO(make_model(tmp_path / "m.onnx", 2).path) as file:
        push(connection, file, "/data/local/tmp/beside")
    assert device.phone.path("/data/local/tmp/beside").stat().st_size > 1000
    chatty.close(Deadline(S))
    connection.close()


# Ways that are cut


def lost(worker: Transport, cut: Callable[[], object], seconds: float = PATIENCE_S + GRACE_S) -> DeviceLostError:
    """How a long request ends when the device goes away in its first moments."""
    moment: list[float] = []

    def cut_now() -> None:
        moment.append(time.monotonic())
        cut()

    timer = threading.Timer(0.3, cut_now)
    timer.start()
    with pytest.raises(DeviceLostError, match="in-my-pocket") as caught:
        worker.request("time", 60, handle=1, warmup=0, runs=100_000, deadline_s=60)
    assert time.monotonic() - moment[0] < seconds
    assert caught.value.unreachable
    assert not caught.value.timed_out
    timer.join()
    return caught.value


def busy(device: ADBUnderTest, long_model: Model) -> ADBTransport:
    worker = device.connect()
    worker.start()
    hello(worker, owner="a" * 32)
    worker.push(long_model.path, long_model.sha256, long_model.suffix)
    load(worker, long_model)
    return worker


def test_a_cut_link(own_device: ADBUnderTest, long_model: Model) -> None:
    """Noticed while nothing is to be sent, only waited for; and its successor gets the device."""
    worker = busy(own_device, long_model)
    assert "no sign of life" in lost(worker, own_device.phone.link_down).message
    error = refusal(own_device.connect())
    assert (error.step, error.lasting) == ("connection", False)
    own_device.phone.link_up()
    worker.start()
    hello(worker, owner="a" * 32)
    worker.close()


def test_adbd_killed(own_device: ADBUnderTest, long_model: Model) -> None:
    worker = busy(own_device, long_model)
    error = lost(worker, own_device.phone.kill_adbd, GRACE_S)
    assert "no sign of life" not in error.message  # nobody has to wait for that: the kernel tells
    assert refusal(own_device.connect()).step == "connection"
    own_device.phone.start_adbd()
    worker.start()
    hello(worker, owner="a" * 32)
    worker.close()


def test_rebooted(own_device: ADBUnderTest, long_model: Model) -> None:
    worker = busy(own_device, long_model)
    lost(worker, own_device.phone.reboot)
    worker.start()
    hello(worker)
    worker.push(long_model.path, long_model.sha256, long_model.suffix)
    worker.close()


def test_cut_during_a_push(own_device: ADBUnderTest, tmp_path: Path) -> None:
    big = tmp_path / "big.onnx"
    big.write_bytes(os.urandom(1 << 26))
    digest = hashlib.sha256(big.read_bytes()).hexdigest()
    worker = own_device.connect()
    worker.start()
    hello(worker)
    own_device.phone.link_down()
    start = time.monotonic()
    with pytest.raises(DeviceLostError, match="in-my-pocket"):
        worker.push(big, digest, ".onnx")
    assert time.monotonic() - start < PATIENCE_S + GRACE_S
    own_device.phone.link_up()
    worker.close()


def test_closed_by_another_thread(device: ADBUnderTest, long_model: Model) -> None:
    worker = busy(device, long_model)
    pid = hello(worker)["pid"]
    threading.Timer(0.3, worker.close).start()
    start = time.monotonic()
    with pytest.raises(DeviceLostError):
        worker.request("time", 60, handle=1, warmup=0, runs=100_000, deadline_s=60)
    assert time.monotonic() - start < 0.3 + GRACE_S
    wait_until(lambda: not device.is_running(pid), f"process {pid} lives on")


# Manners


def test_it_is_woken_and_held_awake(own_device: ADBUnderTest) -> None:
    phone = own_device.phone
    phone.path(STAY_ON).write_text("2\n")
    with own_device.connect() as worker:
        hello(worker)
        assert phone.path(STAY_ON).read_text() == "15\n"
        assert phone.path("data/system/wakefulness").read_text() == "Awake\n"
    assert phone.path(STAY_ON).read_text() == "2\n"
    assert not phone.path(f"{own_device.work}/awake").exists()


def test_what_was_not_set_is_not_set_after(own_device: ADBUnderTest) -> None:
    own_device.phone.path(STAY_ON).unlink()
    with own_device.connect() as worker:
        hello(worker)
        assert own_device.phone.path(STAY_ON).read_text() == "15\n"
    assert not own_device.phone.path(STAY_ON).exists()


def test_restored_after_the_worker_died(own_device: ADBUnderTest) -> None:
    with own_device.connect() as worker:
        own_device.signal(hello(worker)["pid"], signal.SIGKILL)
        with pytest.raises(DeviceLostError):
            worker.request("telemetry", S)
    assert own_device.phone.path(STAY_ON).read_text() == "0\n"


def test_restored_by_the_next_one_after_the_controller_was_killed(own_device: ADBUnderTest) -> None:
    phone = own_device.phone
    program = (
        "import time\nfrom latlab.harness.transports.adb.transport import ADBTransport\n"
        "from latlab.harness.transports.adb.config import ADBDevice\n"
        f"t = ADBTransport('x', ADBDevice(host={phone.address!r}, python={phone.python!r}, work={own_device.work!r}))\n"
        "t.start()\nt.request('hello', 20, protocol=1)\nprint('ready', flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as controller:
        assert controller.stdout is not None
        assert controller.stdout.readline() == "ready\n"
        controller.kill()
    assert phone.path(STAY_ON).read_text() == "15\n"
    with own_device.connect() as worker:
        hello(worker)
        assert phone.path(STAY_ON).read_text() == "15\n"
    assert phone.path(STAY_ON).read_text() == "0\n"


def test_who_is_told_that_it_is_busy_changes_nothing(own_device: ADBUnderTest) -> None:
    with own_device.connect() as first:
        hello(first)
        with own_device.connect() as second, pytest.raises(WorkerError):
            hello(second)
        assert own_device.phone.path(STAY_ON).read_text() == "15\n"
    assert own_device.phone.path(STAY_ON).read_text() == "0\n"


def test_the_tools_need_not_be_there(own_device: ADBUnderTest) -> None:
    for tool in ("settings", "input", "svc"):
        own_device.phone.path(f"/system/bin/{tool}").unlink()
    with own_device.connect() as worker:
        hello(worker)


def test_a_client_that_is_not_connected_hangs_up_quietly() -> None:
    Client("x", ADBDevice(host="127.0.0.1")).disconnect(None)


def test_a_connection_that_is_closed_says_so(device: ADBUnderTest) -> None:
    connection = connected(device)
    connection.close()
    with pytest.raises(ChannelLostError, match="closed"):
        run(connection, "true", S)


def test_messages_are_never_a_whole_number_of_usb_packets(
    device: ADBUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is to be seen of USB without a cable: the same session, cut into pieces as USB wants them."""
    sizes = []
    write = MendedTcpTransport.bulk_write

    def note(transport: MendedTcpTransport, data: bytes | memoryview, timeout_s: float) -> int:
        sizes.append(len(data))
        return write(transport, data, timeout_s)

    monkeypatch.setattr(MendedTcpTransport, "bulk_write", note)
    transport = MendedTcpTransport(device.phone.address, device.phone.port, PATIENCE_S)
    transport.connect(PATIENCE_S)
    connection = ADBConnection(Link(transport, usb=True))
    connection.log_in(lambda: pytest.fail("asked for a key"), Deadline(S))
    path = tmp_path / "file"
    path.write_bytes(os.urandom((1 << 21) + 512))
    with path.open("rb", buffering=0) as file:
        push(connection, file, "/data/local/tmp/usb")
    assert device.phone.path("/data/local/tmp/usb").read_bytes() == path.read_bytes()
    for length in range(500, 520):
        assert run(connection, f"echo {'x' * length}", S).output == b"x" * length + b"\n"
    connection.close()
    assert max(sizes) > 1 << 19
    assert not [size for size in sizes if size % 512 == 0]
