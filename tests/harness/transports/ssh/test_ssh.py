"""The SSH transport, against real sshd processes: the conformance suite, ways in that are barred, ways that are cut."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from paramiko.packet import Packetizer
from peers.fixtures import Peers
from peers.linux_host import LinuxHost
from peers.loopback_host import LoopbackHost
from peers.namespaces import find_program
from peers.processes import command_line, descendants, status, wait_until
from peers.ssh import Key
from transport_conformance import DeviceUnderTest, Model, S, TransportConformance, hello, load

from latlab.harness.transports import ConnectError, DeviceLostError, Transport, WorkerError
from latlab.harness.transports.ssh import connection as ssh_connection
from latlab.harness.transports.ssh import session as ssh_session
from latlab.harness.transports.ssh.config import SSHDevice
from latlab.harness.transports.ssh.known_hosts import fingerprint, read_known_hosts
from latlab.harness.transports.ssh.sftp import Files
from latlab.harness.transports.ssh.transport import SSHTransport

PATIENCE_S = 2.0
"""Less than the default, to save time."""
GRACE_S = 5.0
"""What a busy machine may add; whatever waits without this transport's own bounds waits far longer."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without keys and settings, and no agent."""
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return folder


@pytest.fixture(scope="module")
def shared_host(peers: Peers) -> Iterator[LoopbackHost]:
    host = peers.loopback_host("shared")
    yield host
    peers.close(host)


class SSHUnderTest(DeviceUnderTest):
    name = "over-there"

    def __init__(self, host: LoopbackHost, folder: Path, **settings: Any) -> None:
        self.host = host
        self.work = folder / "work"
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text(host.access.known_hosts)
        self._folder = folder
        self._settings: dict[str, Any] = {
            "host": host.address,
            "port": host.port,
            "user": host.user,
            "key": host.access.client_key,
            "known_hosts": self.known_hosts,
            "python": sys.executable,
            "work": str(self.work),
            "patience_s": PATIENCE_S,
            **settings,
        }

    def connect(self, **changes: Any) -> SSHTransport:
        settings = {key: value for key, value in {**self._settings, **changes}.items() if value is not None}
        return SSHTransport(self.name, SSHDevice(**settings))

    def impostor(self, program: str) -> Transport:
        """Its interpreter is a script that is a genuine one for as long as it is only looked at."""
        code, script = self._folder / "impostor.py", self._folder / "impostor"
        code.write_text(f"import sys, time\n{program}\n")
        python = shlex.quote(sys.executable)
        script.write_text(f'#!/bin/sh\n[ "$1" != -S ] || exec {python} "$@"\nexec {python} {shlex.quote(str(code))}\n')
        script.chmod(0o755)
        return self.connect(python=str(script))

    def signal(self, pid: int, number: signal.Signals) -> None:
        os.kill(pid, number)

    def is_running(self, pid: int) -> bool:
        return bool(status(pid))

    def model_file(self, name: str) -> Path:
        return self.work / "models" / name


@pytest.fixture
def device(shared_host: LoopbackHost, tmp_path: Path) -> SSHUnderTest:
    return SSHUnderTest(shared_host, tmp_path)


class TestSSH(TransportConformance):
    @pytest.fixture
    def device(self, shared_host: LoopbackHost, tmp_path: Path) -> SSHUnderTest:
        return SSHUnderTest(shared_host, tmp_path)

    def test_how_it_died_is_named(self, worker: Transport, device: SSHUnderTest) -> None:
        device.signal(hello(worker)["pid"], signal.SIGSEGV)
        with pytest.raises(DeviceLostError, match=r"(?s)killed by SIGSEGV during 'telemetry'.*Segmentation fault"):
            worker.request("telemetry", S)

    def test_a_hung_worker_is_ended_with_its_connection(self, worker: Transport, device: SSHUnderTest) -> None:
        """It does not notice the end of its input; and its successor must not find the device busy."""
        pid = hello(worker)["pid"]
        device.signal(pid, signal.SIGSTOP)
        start = time.monotonic()
        worker.close()
        assert time.monotonic() - start < GRACE_S
        assert not device.is_running(pid)
        worker.start()
        hello(worker)

    def test_a_damaged_program_is_replaced(self, device: SSHUnderTest) -> None:
        with device.connect() as transport:
            hello(transport)
        (program,) = device.work.glob("*.pyz")
        whole = program.read_bytes()
        for damaged in (whole[:1000], whole[:-1] + b"x"):
            program.write_bytes(damaged)
            with device.connect() as transport:
                hello(transport)
            assert program.read_bytes() == whole
        assert [path.name for path in device.work.glob("*.pyz*")] == [program.name]


# Getting in


def refusal(transport: Transport) -> ConnectError:
    """Why it cannot be started; it must have left nothing behind."""
    with pytest.raises(ConnectError) as caught, transport:
        pass
    error = caught.value
    assert error.step in transport.STEPS
    assert transport.name in error.message
    assert error.unreachable
    assert not [thread.name for thread in threading.enumerate() if "ssh" in thread.name or "watch" in thread.name]
    return error


def test_an_unknown_host(device: SSHUnderTest) -> None:
    device.known_hosts.write_text("")
    error = refusal(device.connect())
    assert (error.step, error.lasting) == ("host key", True)
    assert shown(device.host) in error.message
    assert f"ssh-keyscan -p {device.host.port} {device.host.address}" in error.advice
    command = error.advice.split("Record it: `")[1].split("`")[0]
    # What it advises works, with OpenSSH's own client.
    client = [*shlex.split(command)[:-1], "-o", "StrictHostKeyChecking=accept-new", "-o", "BatchMode=yes"]
    client += ["-i", str(device.host.access.client_key), shlex.split(command)[-1], "true"]
    subprocess.run(client, check=True, capture_output=True, timeout=30)
    with device.connect() as transport:
        hello(transport)


def test_a_host_with_another_key(device: SSHUnderTest, tmp_path: Path) -> None:
    other = Key.generate(tmp_path / "other")
    host = device.host
    device.known_hosts.write_text(f"# mine\n\n[{host.address}]:{host.port} {other.public}\n")
    error = refusal(device.connect())
    assert (error.step, error.lasting) == ("host key", True)
    assert "may be an attack" in error.message
    assert f"{device.known_hosts} line 3" in error.message
    expected = fingerprint(read_known_hosts([device.known_hosts], f"[{host.address}]:{host.port}")[0].key)
    assert expected in error.message
    assert shown(host) in error.message
    assert f"(3) Forget the old key: `ssh-keygen -R '[{host.address}]:{host.port}'" in error.advice
    assert "(4) Record it: `ssh " in error.advice


def test_a_key_for_another_port_vouches_for_nothing(device: SSHUnderTest) -> None:
    device.known_hosts.write_text(device.host.access.known_hosts.replace(f":{device.host.port}", ":22"))
    assert "not known yet" in refusal(device.connect()).message


def shown(host: LoopbackHost) -> str:
    """The fingerprint of its key, as OpenSSH tells it."""
    found = subprocess.run(
        ["ssh-keygen", "-lf", "-"], input=host.access.host_key, capture_output=True, text=True, check=True
    )
    return found.stdout.split()[1]


def test_a_refused_key(device: SSHUnderTest, tmp_path: Path) -> None:
    stranger = Key.generate(tmp_path / "stranger")
    error = refusal(device.connect(key=stranger.private))
    assert (error.step, error.lasting) == ("login", True)
    assert str(stranger.private) in error.message
    assert f"ssh-copy-id -i {stranger.private} -p {device.host.port}" in error.advice


def test_no_key_at_all(device: SSHUnderTest) -> None:
    error = refusal(device.connect(key=None))
    assert (error.step, error.lasting) == ("login", True)
    assert "ssh-keygen -t ed25519" in error.advice
    error = refusal(device.connect(key=Path("~/.ssh/nothing")))
    assert "nothing does not exist" in error.message
    assert re.search(
        r"Does `key` in the inventory .*`ssh-keygen -t ed25519 -f \S+/nothing`.*ssh-copy-id -i \S+/nothing",
        error.advice,
    )


def test_too_many_keys(device: SSHUnderTest, home: Path) -> None:
    """The server hangs up before the right one has its turn."""
    keys = [Key.generate(home / f"key{n}").private for n in range(8)]
    files = "".join(f"IdentityFile {key}\n" for key in keys)
    (home / ".ssh/config").write_text(f"Host *\n{files}")
    error = refusal(device.connect(key=None))
    assert "hung up" in error.message
    assert "name the right one with `key`" in error.advice


@pytest.fixture
def locked_key(device: SSHUnderTest, tmp_path: Path) -> Path:
    """The key that is let in, with a passphrase."""
    private = tmp_path / "locked"
    private.write_bytes(device.host.access.client_key.read_bytes())
    private.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "a secret", "-f", str(private)], check=True, capture_output=True)
    public = device.host.access.client_key.with_suffix(".pub").read_text()
    private.with_name("locked.pub").write_text(public)
    return private


def test_a_locked_key(device: SSHUnderTest, locked_key: Path) -> None:
    error = refusal(device.connect(key=locked_key))
    assert (error.step, error.lasting) == ("login", True)
    assert "passphrase" in error.message
    assert f"ssh-add {locked_key}" in error.advice


def test_an_agent_unlocks(
    device: SSHUnderTest, locked_key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agent"
    agent = subprocess.Popen([find_program("ssh-agent"), "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        while not path.exists():
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        assert "passphrase" in refusal(device.connect(key=locked_key)).message
        subprocess.run(["ssh-add", str(device.host.access.client_key)], check=True, capture_output=True)
        for key in (locked_key, None):
            with device.connect(key=key) as transport:
                hello(transport)
    finally:
        agent.terminate()
        agent.wait()


def test_the_usual_key_is_found(device: SSHUnderTest, home: Path) -> None:
    (home / ".ssh/id_ed25519").write_bytes(device.host.access.client_key.read_bytes())
    with device.connect(key=None) as transport:
        hello(transport)


@contextmanager
def server(greeting: bytes | None, *, hangs_up: bool = False) -> Iterator[int]:
    """Takes connections, and says one thing or nothing."""
    kept = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                if greeting:
                    connection.sendall(greeting)
                if hangs_up:
                    connection.close()
                kept.append(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        for connection in kept:
            connection.close()


def test_a_server_that_says_nothing(device: SSHUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ssh_session.GREET_S <= 10
    monkeypatch.setattr(ssh_session, "GREET_S", 2.0)
    start = time.monotonic()
    with server(None) as port:
        error = refusal(device.connect(port=port))
    assert time.monotonic() - start < 2 + GRACE_S
    assert error.step == "network"
    assert "said nothing within 2 s" in error.message
    assert not error.lasting


def test_servers_that_are_none(device: SSHUnderTest) -> None:
    with server(b"HTTP/1.1 400 Bad Request\r\n\r\n", hangs_up=True) as port:
        assert refusal(device.connect(port=port)).step == "network"
    with server(None, hangs_up=True) as port:
        assert "hung up" in refusal(device.connect(port=port)).message
    with server(b"SSH-2.0-OpenSSH_9.2\r\n", hangs_up=True) as port:
        assert "no keys could be agreed on" in refusal(device.connect(port=port)).message
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    error = refusal(device.connect(port=port))
    assert "takes no connections" in error.message
    assert "systemctl enable --now ssh" in error.advice


def test_an_address_that_is_none(device: SSHUnderTest) -> None:
    error = refusal(device.connect(host="no-such-host.invalid"))
    assert (error.step, error.lasting) == ("address", False)


def test_no_such_interpreter(device: SSHUnderTest, tmp_path: Path) -> None:
    error = refusal(device.connect(python=str(tmp_path / "python7")))
    assert (error.step, error.lasting) == ("Python", True)
    assert "python7" in error.message
    assert "not found" in error.message
    assert "apt install python3" in error.advice
    (tmp_path / "python7").write_text("#!/bin/sh\n")
    assert "ermission denied" in refusal(device.connect(python=str(tmp_path / "python7"))).message


@pytest.mark.parametrize("version", ["3, 8", "2, 7"])
def test_an_old_interpreter(device: SSHUnderTest, tmp_path: Path, version: str) -> None:
    script = tmp_path / "old"
    change = f"sed 's/v = sys.version_info/v = ({version})/'"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -S -c "$(printf %s "$3" | {change})"\n')
    script.chmod(0o755)
    error = refusal(device.connect(python=str(script)))
    assert (error.step, error.lasting) == ("Python", True)
    assert f"is Python {version.replace(', ', '.')}; the worker needs 3.9" in error.message


def test_a_work_folder_that_cannot_be(device: SSHUnderTest, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = refusal(device.connect(work=str(tmp_path / "file/work")))
    assert (error.step, error.lasting) == ("work folder", True)
    assert "`work`" in error.advice
    assert error.message.endswith("it cannot be written (Not a directory)")


def test_names_that_a_shell_would_misread(device: SSHUnderTest, tmp_path: Path) -> None:
    folder = tmp_path / "it's a \"$(touch pwned)\" & 'folder' ;"
    with device.connect(work=str(folder)) as transport:
        hello(transport)
    assert (folder / "lock").exists()


# ~/.ssh/config and jump hosts


def test_an_alias(device: SSHUnderTest, home: Path) -> None:
    host = device.host
    (home / ".ssh/more").write_text(f"Host pi\n User nobody\n HostName {host.address}\n IdentitiesOnly yes\n")
    (home / ".ssh/config").write_text(
        f"Include more\nUserKnownHostsFile {device.known_hosts}\nHost p?\n Port {host.port}\n"
        f" IdentityFile {host.access.client_key}\n"
    )
    changes = {"host": "pi", "port": None, "key": None, "known_hosts": None}
    with device.connect(**changes) as transport:
        hello(transport)
    assert "nobody@127.0.0.1" in refusal(device.connect(**changes, user="nobody")).message
    (home / ".ssh/config").write_text(f"Host pi\n ProxyCommand nc {host.address} {host.port}\n")
    error = refusal(device.connect(**changes))
    assert (error.step, error.lasting) == ("address", True)
    assert "ProxyCommand" in error.message


def test_a_host_key_alias(device: SSHUnderTest, home: Path) -> None:
    (home / ".ssh/config").write_text("Host *\n HostKeyAlias lab-pi\n")
    assert "not known yet" in refusal(device.connect()).message
    device.known_hosts.write_text(f"lab-pi {device.host.access.host_key}\n")
    with device.connect() as transport:
        hello(transport)


@pytest.fixture
def gate(peers: Peers) -> Iterator[LoopbackHost]:
    host = peers.loopback_host("gate")
    yield host
    peers.close(host)


def jump(gate: LoopbackHost) -> str:
    return f"{gate.user}@{gate.address}:{gate.port}"


def test_a_jump_host(device: SSHUnderTest, gate: LoopbackHost, home: Path) -> None:
    with device.known_hosts.open("a") as file:
        file.write(gate.access.known_hosts)
    with device.connect(jump=jump(gate)) as transport:
        hello(transport)
    assert "Accepted publickey" in gate.log.read_text()
    config = f"Host inner\n HostName {device.host.address}\n ProxyJump door\n"
    config += f"Host door\n HostName {gate.address}\n Port {gate.port}\n User {gate.user}\n"
    (home / ".ssh/config").write_text(config)
    before = gate.log.read_text().count("Accepted publickey")
    with device.connect(host="inner") as transport:
        hello(transport)
    assert gate.log.read_text().count("Accepted publickey") == before + 1


def test_a_jump_host_is_checked_as_strictly(device: SSHUnderTest, gate: LoopbackHost) -> None:
    error = refusal(device.connect(jump=jump(gate)))
    assert error.step == "host key"
    assert f"{gate.address} port {gate.port}" in error.message
    assert shown(gate) in error.message


def test_behind_a_jump_host_too(device: SSHUnderTest, gate: LoopbackHost) -> None:
    device.known_hosts.write_text(gate.access.known_hosts)
    error = refusal(device.connect(jump=jump(gate)))
    assert error.step == "host key"
    assert shown(device.host) in error.message
    assert f"ProxyJump={jump(gate)}" in error.advice


def test_jump_hosts_that_lead_nowhere(device: SSHUnderTest, gate: LoopbackHost, home: Path) -> None:
    with device.known_hosts.open("a") as file:
        file.write(gate.access.known_hosts)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    error = refusal(device.connect(jump=jump(gate), port=port))
    assert error.step == "network"
    assert "cannot reach" in error.message
    allowed = gate.log.with_name("authorized_keys")
    allowed.write_text(f"restrict {allowed.read_text()}")
    error = refusal(device.connect(jump=jump(gate)))
    assert (error.step, error.lasting) == ("network", True)
    assert "does not forward connections" in error.message
    assert "is no jump host" in refusal(device.connect(jump="a b")).message
    (home / ".ssh/config").write_text("Host one\n ProxyJump two\nHost two\n ProxyJump one\n")
    assert "circles" in refusal(device.connect(jump="one")).message


def test_a_jump_host_that_hangs(
    device: SSHUnderTest, gate: LoopbackHost, long_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    abort = ssh_session.Session.abort

    def slowly(session: ssh_session.Session) -> None:
        abort(session)
        time.sleep(0.3)  # whoever waits for what is behind wakes up in between, and is to be told the true reason

    monkeypatch.setattr(ssh_session.Session, "abort", slowly)
    with device.known_hosts.open("a") as file:
        file.write(gate.access.known_hosts)
    with device.connect(jump=jump(gate)) as transport, stopped_sshd(gate) as stop:
        lost(transport, long_model, stop, "no sign of life")


# Ways that are cut


OWNER = "0123456789abcdef" * 2
"""Who comes back after a cut takes over the worker that does not know of it yet."""


def lost(transport: Transport, model: Model, cut: Any, words: str, within_s: float = PATIENCE_S + GRACE_S) -> None:
    """Cuts the way while the device times a network, and looks how soon that is noticed."""
    hello(transport, owner=OWNER)
    transport.push(model.path, model.sha256, model.suffix)
    handle = load(transport, model)["handle"]
    moment: list[float] = []

    def cut_now() -> None:
        moment.append(time.monotonic())
        cut()

    timer = threading.Timer(0.3, cut_now)
    timer.start()
    with pytest.raises(DeviceLostError, match=words) as caught:
        transport.request("time", 60, handle=handle, warmup=0, runs=100_000, deadline_s=60)
    assert time.monotonic() - moment[0] < within_s
    assert caught.value.unreachable
    assert not caught.value.timed_out
    start = time.monotonic()
    transport.close()
    assert time.monotonic() - start < GRACE_S
    timer.join()


@contextmanager
def stopped_sshd(host: LoopbackHost) -> Iterator[Any]:
    """Stops every process of the server; they go on at the end."""
    server = next(pid for pid in descendants(os.getpid()) if f"{host.log.parent}/sshd_config" in command_line(pid))
    processes: list[int] = []

    def stop() -> None:
        processes.extend([server, *(pid for pid in descendants(server) if "sshd" in command_line(pid))])
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)

    try:
        yield stop
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


@pytest.fixture
def own_device(loopback_host: LoopbackHost, tmp_path: Path) -> SSHUnderTest:
    """With a server that the test may do anything to."""
    return SSHUnderTest(loopback_host, tmp_path)


def test_a_killed_server(own_device: SSHUnderTest, long_model: Model) -> None:
    transport = own_device.connect()
    with transport:
        lost(transport, long_model, own_device.host.kill_sshd, "is gone", GRACE_S)
    assert refusal(own_device.connect()).step == "network"
    own_device.host.start_sshd()
    with transport:
        hello(transport)


def test_a_server_that_hangs(own_device: SSHUnderTest, long_model: Model) -> None:
    with own_device.connect() as transport, stopped_sshd(own_device.host) as stop:
        lost(transport, long_model, stop, r"no sign of life from .* for [2-6]\.\d s")


def test_a_server_that_hangs_while_it_is_sent_something(
    own_device: SSHUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than all buffers hold: neither sending nor closing may wait for ever."""
    file = random_file(tmp_path, 30_000_000)
    with own_device.connect() as transport, stopped_sshd(own_device.host) as stop:
        hello(transport)
        transfer = transport._transfer
        stopped_at: list[float] = []

        def stop_and_transfer(path: Path, sha256: str) -> None:
            stop()
            stopped_at.append(time.monotonic())
            transfer(path, sha256)

        monkeypatch.setattr(transport, "_transfer", stop_and_transfer)
        with pytest.raises(DeviceLostError, match="no sign of life"):
            transport.push(file.path, file.sha256, file.suffix)
        assert time.monotonic() - stopped_at[0] < PATIENCE_S + GRACE_S
        start = time.monotonic()
        transport.close()
        assert time.monotonic() - start < GRACE_S


def test_closing_what_hangs(own_device: SSHUnderTest) -> None:
    """Before it was noticed, which here takes long."""
    with stopped_sshd(own_device.host) as stop:
        transport = own_device.connect(patience_s=30)
        transport.start()
        hello(transport)
        stop()
        start = time.monotonic()
        transport.close()
        assert time.monotonic() - start < 10


def test_a_patient_watch_over_an_idle_connection(device: SSHUnderTest) -> None:
    """Silence alone is no reason to give a device up."""
    with device.connect(patience_s=1.5) as transport:
        pid = hello(transport)["pid"]
        time.sleep(3.5)
        assert hello(transport)["pid"] == pid


# Files


def random_file(folder: Path, size: int) -> Model:
    content = os.urandom(size)
    (folder / "random").write_bytes(content)
    return Model(folder / "random", hashlib.sha256(content).hexdigest(), ".bin")


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From where on files were written."""
    pour, found = Files._write_all, []

    def noted(files: Files, source: Any, handle: bytes, path: str, start: int = 0, *then_to: str) -> None:
        if path.endswith(".part"):
            found.append(start)
        pour(files, source, handle, path, start, *then_to)

    monkeypatch.setattr(Files, "_write_all", noted)
    return found


def test_a_cut_transfer_goes_on(
    own_device: SSHUnderTest, tmp_path: Path, starts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = random_file(tmp_path, 20_000_000)
    written, count = Files._written, 0

    def cut(files: Files, number: int, path: str) -> OSError | None:
        nonlocal count
        count += 1
        if count == 200:
            own_device.host.kill_sshd()
        return written(files, number, path)

    monkeypatch.setattr(Files, "_written", cut)
    with own_device.connect() as transport:
        hello(transport)
        with pytest.raises(DeviceLostError, match="is gone") as caught:
            transport.push(file.path, file.sha256, file.suffix)
        assert caught.value.unreachable
        own_device.host.start_sshd()
        transport.start()
        hello(transport)
        transport.push(file.path, file.sha256, file.suffix)
    assert starts[0] == 0
    assert 190 << 15 <= starts[1] < 20_000_000
    assert own_device.model_file(file.sha256 + file.suffix).read_bytes() == file.path.read_bytes()


def test_new_keys_on_the_way(device: SSHUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after each half gigabyte."""
    monkeypatch.setattr(Packetizer, "REKEY_BYTES", 1 << 20)
    file = random_file(tmp_path, 10_000_000)
    with device.connect() as transport:
        hello(transport)
        transport.push(file.path, file.sha256, file.suffix)
        hello(transport)
    assert device.model_file(file.sha256 + file.suffix).read_bytes() == file.path.read_bytes()


@pytest.mark.parametrize("wrong", [b"x" * 1000, b"x" * 5000, b"x" * 9000])
def test_a_part_that_is_wrong(device: SSHUnderTest, tmp_path: Path, wrong: bytes, starts: list[int]) -> None:
    file = random_file(tmp_path, 5000)
    with device.connect() as transport:
        hello(transport)
        (device.work / "incoming" / f"{file.sha256}.part").write_bytes(wrong)
        transport.push(file.path, file.sha256, file.suffix)
    assert starts == ([len(wrong), 0] if len(wrong) <= 5000 else [0])
    assert device.model_file(file.sha256 + file.suffix).read_bytes() == file.path.read_bytes()
    assert list((device.work / "incoming").iterdir()) == []


def test_a_file_that_cannot_be_written(device: SSHUnderTest, model: Model) -> None:
    with device.connect() as transport:
        hello(transport)
        (device.work / "incoming" / f"{model.sha256}.part").mkdir()
        with pytest.raises(WorkerError, match="cannot bring") as caught:
            transport.push(model.path, model.sha256, model.suffix)
        assert caught.value.kind == "crash"
        (device.work / "incoming" / f"{model.sha256}.part").rmdir()
        transport.push(model.path, model.sha256, model.suffix)


def test_what_is_not_sftp(own_device: SSHUnderTest) -> None:
    allowed = own_device.host.log.with_name("authorized_keys")
    allowed.write_text(f'command="echo Welcome" {allowed.read_text()}')
    error = refusal(own_device.connect())
    assert (error.step, error.lasting) == ("work folder", True)
    assert "start-up file" in error.message


# What is left behind


def test_nothing_is_left_open(device: SSHUnderTest) -> None:
    def once() -> None:
        with device.connect() as transport:
            hello(transport)
        refusal(device.connect(python="/nothing"))

    once()
    before, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(3):
        once()
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before, "files are left open")
    wait_until(lambda: threading.active_count() <= threads, "threads are left over")


def test_ctrl_c_while_connecting(device: SSHUnderTest) -> None:
    before = threading.active_count()
    with server(None) as port:
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            device.connect(port=port).start()
        assert time.monotonic() - start < 0.5 + GRACE_S  # it would wait for 8 s
        timer.join()
    wait_until(lambda: threading.active_count() <= before, "a thread is left over")


def test_ctrl_c_while_waiting(device: SSHUnderTest) -> None:
    with device.impostor("time.sleep(60)") as transport:
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            transport.request("hello", 30, protocol=1)
        assert time.monotonic() - start < 0.3 + 2 * GRACE_S
        timer.join()


# A host of its own


@pytest.fixture
def far_device(linux_host: LinuxHost, tmp_path: Path) -> SSHTransport:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(linux_host.access.known_hosts)
    return SSHTransport(
        "far",
        SSHDevice(
            host=linux_host.address,
            user=linux_host.user,
            key=linux_host.access.client_key,
            known_hosts=known_hosts,
            python=linux_host.python,
            patience_s=PATIENCE_S,
        ),
    )


@pytest.mark.peers
def test_a_pulled_cable(
    far_device: SSHTransport, linux_host: LinuxHost, long_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ssh_connection.REACH_S <= 10
    monkeypatch.setattr(ssh_connection, "REACH_S", 3.0)
    with far_device:
        lost(far_device, long_model, linux_host.link_down, "no sign of life|is gone")
        start = time.monotonic()
        with pytest.raises(ConnectError, match="cannot be reached"):
            far_device.start()
        assert time.monotonic() - start < 3 + GRACE_S
        linux_host.link_up()
        far_device.start()
        hello(far_device, owner=OWNER)


@pytest.mark.peers
def test_a_reboot(far_device: SSHTransport, linux_host: LinuxHost, long_model: Model) -> None:
    with far_device:
        hello(far_device)
        linux_host.reboot()
        with pytest.raises(DeviceLostError):
            far_device.request("telemetry", S)
        far_device.start()
        hello(far_device)
        assert linux_host.path("/root/.cache/latlab/lock").exists()


@pytest.mark.peers
def test_a_full_disk(far_device: SSHTransport, linux_host: LinuxHost, tmp_path: Path) -> None:
    file = random_file(tmp_path, 3_000_000)
    with far_device:
        hello(far_device)
        linux_host.fill_disk()
        with pytest.raises(WorkerError, match="disk is full") as caught:
            far_device.push(file.path, file.sha256, file.suffix)
        assert caught.value.kind == "no_space"
        far_device.close()
        linux_host.path("/root/.cache/latlab").rename(linux_host.path("/root/.cache/before"))
        error = refusal(far_device)
        assert (error.step, error.lasting) == ("work folder", True)
        assert "Free some space" in error.advice
        linux_host.free_disk()
        far_device.start()
        hello(far_device)
        far_device.push(file.path, file.sha256, file.suffix)


@pytest.mark.peers
def test_a_disk_that_has_room_again(
    far_device: SSHTransport, linux_host: LinuxHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody makes room between the failure and the look at the disk, which then explains nothing."""
    file = random_file(tmp_path, 3_000_000)
    original = SSHTransport._disk_full_error

    def look(self: SSHTransport, error: OSError, beside: str, size: int) -> OSError | None:
        linux_host.free_disk()
        return original(self, error, beside, size)

    monkeypatch.setattr(SSHTransport, "_disk_full_error", look)
    with far_device:
        hello(far_device)
        linux_host.fill_disk()
        far_device.push(file.path, file.sha256, file.suffix)
