"""Tests that the peers are what they claim to be: an error here would make the tests that use them worthless."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from .fixtures import Peers
from .linux_host import LinuxHost
from .loopback_host import LoopbackHost
from .machine import Machine
from .phone import AdbClient, Phone
from .pi import Pi
from .processes import all_pids, wait_until
from .ssh_machine import SSHMachine
from .sysfs import write


def ssh(peer: SSHMachine | LoopbackHost, folder: Path, *remote: str, options: Sequence[str] = ()) -> str:
    """Run a command on a peer with OpenSSH's client, and return its output."""
    command = peer.access.command(folder, *remote, options=options)
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def long_ssh(
    peer: SSHMachine | LoopbackHost, folder: Path, *remote: str, options: Sequence[str] = ()
) -> subprocess.Popen[str]:
    command = peer.access.command(folder, *remote, options=options)
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def greets(peer: Machine, port: int) -> bool:
    try:
        with socket.create_connection((peer.address, port), timeout=1) as connection:
            return bool(connection.recv(1))
    except OSError:
        return False


class TestLoopbackHost:
    def test_log_in(self, loopback_host: LoopbackHost, tmp_path: Path) -> None:
        assert ssh(loopback_host, tmp_path, "echo", "$((6*7))") == "42\n"

    def test_another_key_is_not_let_in(self, loopback_host: LoopbackHost, peers: Peers, tmp_path: Path) -> None:
        other = tmp_path / "other"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
        command = loopback_host.access.command(tmp_path, "true")
        command[command.index(str(peers.client_key.private))] = str(other)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert "Permission denied (publickey)" in done.stderr

    def test_sshd_killed_and_started_again(self, loopback_host: LoopbackHost, tmp_path: Path) -> None:
        with long_ssh(loopback_host, tmp_path, "echo $$; exec sleep 60") as session:
            assert session.stdout is not None
            pid = int(session.stdout.readline())
            try:
                assert loopback_host.is_running(pid)
                assert len(loopback_host.kill_sshd()) >= 2
                assert session.wait(30) == 255
            finally:
                loopback_host.signal(pid, signal.SIGKILL)
        loopback_host.start_sshd()
        assert ssh(loopback_host, tmp_path, "echo back") == "back\n"


@pytest.mark.peers
class TestLinuxHost:
    def test_log_in(self, linux_host: LinuxHost, tmp_path: Path) -> None:
        assert ssh(linux_host, tmp_path, "hostname; id -un; pwd") == f"{linux_host.name}\nroot\n{linux_host.home}\n"

    def test_it_has_the_tests_runtimes(self, linux_host: LinuxHost, tmp_path: Path) -> None:
        import onnxruntime

        program = "import onnxruntime; print(onnxruntime.__version__)"
        assert ssh(linux_host, tmp_path, linux_host.python, "-c", f"'{program}'").strip() == onnxruntime.__version__

    def test_another_hosts_key_is_noticed(self, peers: Peers, linux_host: LinuxHost, tmp_path: Path) -> None:
        other = peers.linux_host("other")
        assert other.access.host_key != linux_host.access.host_key
        command = other.access.command(tmp_path, "true")
        (tmp_path / "known_hosts").write_text(f"{other.address} {linux_host.access.host_key}\n")
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert "Host key verification failed" in done.stderr
        peers.close(other)

    def test_hosts_reach_each_other(self, peers: Peers, linux_host: LinuxHost, tmp_path: Path) -> None:
        other = peers.linux_host("other")
        jump = linux_host.access.command(tmp_path, "-W", f"{other.address}:22")
        (tmp_path / "second").mkdir()
        options = [f"ProxyCommand={' '.join(jump[:-3])} -W %h:%p {jump[-3]}"]
        assert ssh(other, tmp_path / "second", "hostname", options=options) == "other\n"
        peers.close(other)

    def test_its_files_and_processes_are_its_own(self, linux_host: LinuxHost, tmp_path: Path) -> None:
        ssh(linux_host, tmp_path, "echo mine >/root/here; echo mine >/tmp/latlab-peer; touch /dev/there")
        assert linux_host.path("/root/here").read_text() == "mine\n"
        assert linux_host.path("/tmp/latlab-peer").exists()
        assert not any(Path(name).exists() for name in ("/root/here", "/tmp/latlab-peer", "/dev/there"))
        for folder in ("/usr", str(Path(linux_host.python).parent)):
            assert "Read-only" in linux_host.run("touch", f"{folder}/latlab-peer").stderr
        assert len(linux_host.run("sh", "-c", "echo /proc/[0-9]*").stdout.split()) < 10 < len(all_pids())

    def test_signals_take_its_own_pids(self, linux_host: LinuxHost, tmp_path: Path) -> None:
        with long_ssh(linux_host, tmp_path, "echo $$; exec sleep 61") as session:
            assert session.stdout is not None
            pid = int(session.stdout.readline())
            wait_until(lambda: linux_host.processes("sleep 61") == [pid], f"it has not become process {pid}")
            linux_host.signal(pid, signal.SIGTERM)
            session.wait(30)
            assert not linux_host.is_running(pid)
        with pytest.raises(ProcessLookupError):
            linux_host.signal(pid, signal.SIGTERM)

    def test_a_pulled_cable(self, linux_host: LinuxHost, tmp_path: Path) -> None:
        impatient = ["ServerAliveInterval=1", "ServerAliveCountMax=3"]
        with long_ssh(linux_host, tmp_path, "echo $$; exec sleep 60", options=impatient) as session:
            assert session.stdout is not None
            pid = int(session.stdout.readline())
            linux_host.link_down()
            assert not greets(linux_host, 22)
            assert session.poll() is None  # nobody tells it
            assert session.wait(30) == 255
            assert linux_host.is_running(pid)
        linux_host.link_up()
        wait_until(lambda: greets(linux_host, 22), "the link does not come up again")

    def test_a_cable_pulled_for_a_moment(self, linux_host: LinuxHost, tmp_path: Path) -> None:
        with long_ssh(linux_host, tmp_path, "cat") as session:
            assert session.stdin is not None
            assert session.stdout is not None
            linux_host.link_down()
            session.stdin.write("still there\n")
            session.stdin.flush()
            time.sleep(0.5)
            linux_host.link_up()
            assert session.stdout.readline() == "still there\n"
            session.stdin.close()

    def test_sshd_killed_and_started_again(self, linux_host: LinuxHost, tmp_path: Path) -> None:
        with long_ssh(linux_host, tmp_path, "echo $$; exec sleep 60") as session:
            assert session.stdout is not None
            assert linux_host.is_running(int(session.stdout.readline()))
            assert len(linux_host.kill_sshd()) >= 2
            assert session.wait(30) == 255
        assert not greets(linux_host, 22)
        linux_host.start_sshd()
        assert ssh(linux_host, tmp_path, "echo back") == "back\n"

    def test_a_frozen_sshd(self, linux_host: LinuxHost) -> None:
        (pid,) = linux_host.processes(r"sshd: .*\[listener\]")
        linux_host.signal(pid, signal.SIGSTOP)
        assert not greets(linux_host, 22)
        linux_host.reboot()
        assert greets(linux_host, 22)

    def test_reboot(self, linux_host: LinuxHost, tmp_path: Path) -> None:
        boot_id = "/proc/sys/kernel/random/boot_id"
        before = ssh(linux_host, tmp_path, f"cat {boot_id}; echo kept >/root/kept; echo lost >/run/lost")
        with long_ssh(linux_host, tmp_path, "echo $$; exec sleep 62") as session:
            assert session.stdout is not None
            session.stdout.readline()
            linux_host.reboot()
            assert session.wait(30) == 255
        assert linux_host.processes("sleep") == []
        after = ssh(linux_host, tmp_path, f"cat {boot_id}; cat /root/kept; ls /run/lost 2>/dev/null || echo gone")
        assert after.split()[1:] == ["kept", "gone"]
        assert after.split()[0] != before.split()[0] != Path(boot_id).read_text().strip()

    def test_a_full_disk(self, linux_host: LinuxHost, tmp_path: Path) -> None:
        write = "dd if=/dev/zero of=/root/more bs=4096 count=1 2>&1 || true; stat -c %s /root/more"
        linux_host.fill_disk()
        full = ssh(linux_host, tmp_path, write)
        assert "No space left on device" in full
        assert full.split()[-1] == "0"
        linux_host.free_disk()
        assert ssh(linux_host, tmp_path, write).split()[-1] == "4096"


@pytest.mark.peers
class TestPi:
    def test_what_it_is(self, pi: Pi, tmp_path: Path) -> None:
        program = "import os, platform, sys; print(platform.machine(), os.cpu_count(), *sys.version_info[:2])"
        shown = ssh(pi, tmp_path, f"uname -n; uname -m; cat /proc/cpuinfo; {pi.python} -c '{program}'").splitlines()
        assert shown[:2] == ["pi", "aarch64"]
        assert shown[-1] == f"aarch64 {os.cpu_count()} 3 11"
        assert "Model\t\t: Raspberry Pi 5 Model B Rev 1.0" in shown

    def test_its_sensors(self, pi: Pi, tmp_path: Path) -> None:
        write(pi.sys, "class/thermal/thermal_zone0/temp", 82_000)
        files = "thermal/thermal_zone0/temp ../devices/system/cpu/cpu0/cpufreq/scaling_governor"
        assert ssh(pi, tmp_path, f"cd /sys/class; cat {files}").split() == ["82000", "ondemand"]

    def test_runtimes(self, pi: Pi, tmp_path: Path) -> None:
        import onnxruntime

        imports = "import onnxruntime, ai_edge_litert.interpreter; print(onnxruntime.__version__)"
        assert ssh(pi, tmp_path, f"{pi.python} -c '{imports}'").strip() == onnxruntime.__version__

    def test_no_runtimes(self, peers: Peers) -> None:
        bare = peers.pi("bare", with_runtimes=False)
        assert "No module named 'numpy'" in bare.run(bare.python, "-c", "import numpy").stderr
        peers.close(bare)

    def test_faults(self, pi: Pi, tmp_path: Path) -> None:
        with long_ssh(pi, tmp_path, "echo kept >/root/kept; echo $$; exec sleep 64") as session:
            assert session.stdout is not None
            pid = int(session.stdout.readline())
            # The shell has told its id, but may not have become `sleep` yet.
            wait_until(lambda: pid in pi.processes("sleep 64"), "there is no such process on the Pi", 60)
            pi.signal(pid, signal.SIGKILL)
            session.wait(60)
            wait_until(lambda: not pi.is_running(pid), f"process {pid} lives on")
        pi.link_down()
        assert not greets(pi, 22)
        pi.link_up()
        assert pi.kill_sshd()
        assert not greets(pi, 22)
        pi.reboot()
        pi.fill_disk()
        full = ssh(pi, tmp_path, "cat /root/kept; dd if=/dev/zero of=/root/more bs=4096 count=1 2>&1 || true")
        assert full.startswith("kept\n")
        assert "No space left on device" in full


@pytest.fixture(scope="module")
def client(peers: Peers) -> Iterator[AdbClient]:
    made = peers.adb_client()
    yield made
    peers.close(made)


@pytest.mark.peers
class TestPhone:
    def test_shell(self, phone: Phone, client: AdbClient) -> None:
        words = client.adb("shell", "id -un; getprop ro.product.model; uname -m; which sh; which cp", phone=phone)
        assert words == "shell\nTest Phone\nx86_64\n/system/bin/sh\n/system/bin/cp\n"
        with pytest.raises(RuntimeError, match="ended with 3"):
            client.adb("shell", "exit 3", phone=phone)

    def test_files(self, phone: Phone, client: AdbClient) -> None:
        client.path("/root/file").write_bytes(bytes(range(256)) * 10_000)
        client.adb("push", "/root/file", "/data/local/tmp/file", phone=phone)
        assert phone.path("/data/local/tmp/file").read_bytes() == client.path("/root/file").read_bytes()
        with pytest.raises(RuntimeError, match=r"Permission denied|couldn't create"):
            client.adb("push", "/root/file", "/system/file", phone=phone)

    def test_runtimes(self, phone: Phone, client: AdbClient) -> None:
        import onnxruntime

        imports = "import onnxruntime, ai_edge_litert.interpreter; print(onnxruntime.__version__)"
        found = client.adb("shell", f"{phone.python} -c '{imports}'", phone=phone)
        assert found.strip() == onnxruntime.__version__

    def test_no_runtimes(self, peers: Peers) -> None:
        bare = peers.phone("bare", with_runtimes=False)
        assert "No module named 'numpy'" in bare.run(bare.python, "-c", "import numpy").stderr
        peers.close(bare)

    def test_what_android_remembers(self, phone: Phone, client: AdbClient) -> None:
        def after(command: str) -> list[str]:
            asked = "settings get global stay_on_while_plugged_in; dumpsys power | grep mWakefulness="
            return client.adb("shell", f"{command}; {asked}", phone=phone).split()

        assert after("true") == ["0", "mWakefulness=Asleep"]
        assert after("input keyevent KEYCODE_WAKEUP; svc power stayon usb") == ["2", "mWakefulness=Awake"]
        assert after("input keyevent 26; settings put global stay_on_while_plugged_in 3") == [
            "3",
            "mWakefulness=Asleep",
        ]
        phone.reboot()
        words = after("settings delete global stay_on_while_plugged_in")
        assert words == ["Deleted", "1", "rows", "null", "mWakefulness=Asleep"]

    def test_its_sensors(self, phone: Phone, client: AdbClient) -> None:
        write(phone.sys, "class/thermal/thermal_zone0/temp", 61_000)
        shown = client.adb("shell", "cat /sys/class/thermal/thermal_zone0/*; dumpsys battery", phone=phone)
        assert shown.split()[:2] == ["61000", "cpu-0-0"]
        assert "level: 83" in shown

    def test_a_pulled_cable(self, phone: Phone, client: AdbClient) -> None:
        assert client.adb("shell", "echo there", phone=phone) == "there\n"
        phone.link_down()
        with pytest.raises(subprocess.TimeoutExpired):
            client.run("/usr/bin/adb", "-s", f"{phone.address}:5555", "shell", "echo there", timeout=3)
        phone.link_up()
        assert client.adb("shell", "echo there", phone=phone) == "there\n"

    def test_adbd_killed_and_started_again(self, phone: Phone, client: AdbClient) -> None:
        assert len(phone.kill_adbd()) == 1
        with pytest.raises(RuntimeError, match="Connection refused"):
            client.adb("shell", "true", phone=phone)
        phone.start_adbd()
        assert client.adb("shell", "echo back", phone=phone) == "back\n"

    def test_reboot(self, phone: Phone, client: AdbClient) -> None:
        started = client.adb(
            "shell", "touch /data/local/tmp/kept; setsid sleep 63 >/dev/null 2>&1 & echo $!", phone=phone
        )
        wait_until(lambda: phone.processes("^sleep 63") != [], f"no process {started}")
        phone.reboot()
        assert phone.processes("sleep 63") == []
        assert client.adb("shell", "ls /data/local/tmp", phone=phone) == "kept\n"

    def test_a_full_disk(self, phone: Phone, client: AdbClient) -> None:
        client.path("/root/file").write_bytes(bytes(100_000))
        phone.fill_disk()
        with pytest.raises(RuntimeError, match="No space left on device"):
            client.adb("push", "/root/file", "/data/local/tmp/file", phone=phone)
        phone.free_disk()
        client.adb("push", "/root/file", "/data/local/tmp/file", phone=phone)

    def test_a_key_that_is_refused_then_authorised(self, peers: Peers, phone: Phone, client: AdbClient) -> None:
        gate = peers.auth_gate(phone)
        serial = f"{gate.address}:{gate.port}"
        assert "failed to authenticate" in client.run("/usr/bin/adb", "connect", serial).stdout
        key = client.path("/root/.android/adbkey.pub").read_text()
        wait_until(lambda: key.split()[0] in [offered.split()[0] for offered in gate.offered], "no key was offered")
        assert "unauthorized" in client.run("/usr/bin/adb", "-s", serial, "shell", "true").stderr
        gate.keys.append(key)
        client.run("/usr/bin/adb", "disconnect", serial)
        client.run("/usr/bin/adb", "connect", serial)
        assert client.run("/usr/bin/adb", "-s", serial, "shell", "id", "-un").stdout == "shell\n"
        peers.close(gate)


def existing_namespaces(*kinds: str) -> set[str]:
    found = set()
    for pid in all_pids():
        for kind in kinds:
            with suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
    return found


@pytest.mark.peers
def test_nothing_is_left_of_a_closed_peer(peers: Peers) -> None:
    kinds = ("mnt", "net", "pid")
    host = peers.linux_host()
    host.start("sleep", "60")
    own = set(host.run("readlink", *(f"/proc/1/ns/{kind}" for kind in kinds)).stdout.split())
    assert len(own) == 3
    assert own <= existing_namespaces(*kinds)
    folder = str(host.log.parent)
    peers.close(host)
    wait_until(lambda: not own & existing_namespaces(*kinds), "namespaces are left over")
    assert folder not in Path("/proc/self/mounts").read_text()


@pytest.mark.peers
def test_nothing_is_left_by_a_killed_test_run(peers: Peers, tmp_path: Path) -> None:
    program = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from pathlib import Path
        from peers.linux_host import LinuxHost
        from peers.network import Network
        from peers.ssh import Key

        network = Network()
        host = LinuxHost(network, "host", Path({str(tmp_path)!r}), Key(Path({str(peers.client_key.private)!r})))
        host.start("sleep", "65")
        print(network.interface, host.run("readlink", "/proc/1/ns/pid").stdout, flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        interface, namespace = other.stdout.readline().split()
        assert interface in os.listdir("/sys/class/net")
        assert namespace in existing_namespaces("pid")
        other.kill()
    wait_until(lambda: namespace not in existing_namespaces("pid"), "processes are left over")
    wait_until(lambda: interface not in os.listdir("/sys/class/net"), "a network interface is left over")
