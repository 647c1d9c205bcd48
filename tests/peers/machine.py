"""A machine made of namespaces: its own root, disk, processes, network and name. It can be rebooted and filled up."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .namespaces import ENVIRONMENT, Holder, find_program
from .network import Network
from .processes import all_pids, command_line, status, wait_until

_DISK = """
folder=$1 size=$2 layers=$3; shift 3
hostname "$1"; shift
mount -t tmpfs -o "mode=755,size=$size" disk "$folder/disk"
mkdir "$folder/disk/upper" "$folder/disk/work"
mount -t overlay -o "lowerdir=$layers,upperdir=$folder/disk/upper,workdir=$folder/disk/work" root "$folder/root"
for shared; do
    mkdir -p "$folder/root$shared"
    mount -o bind,ro "$shared" "$folder/root$shared"
done
"""
"""A process outside of the machine keeps the disk, so that it outlives a reboot. Shared folders are read-only."""

_BOOT = """
root=$1 boot_id=$2; shift 2
read -r pid _ </proc/self/stat # the proc still mounted here is the outer one: this process as the test sees it
mkdir -p "$root/dev" "$root/proc" "$root/sys" "$root/run" "$root/tmp"; chmod 1777 "$root/tmp"
mount -t tmpfs -o mode=755,size=1m dev "$root/dev"
node() { mknod -m 666 "$root/dev/$1" c "$2" "$3"; }
node null 1 3; node zero 1 5; node full 1 7; node random 1 8; node urandom 1 9; node tty 5 0
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"; ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs -o mode=1777,size=64m shm "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"; ln -s fd/1 "$root/dev/stdout"; ln -s fd/2 "$root/dev/stderr"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755,size=16m run "$root/run"
mount --bind "$boot_id" "$root/proc/sys/kernel/random/boot_id"
mount -t sysfs -o ro sysfs "$root/sys"
while [ $# -gt 0 ]; do mount --bind "$1" "$root$2"; shift 2; done
echo "$pid"
"""
"""The script of the machine's first process. It mounts nothing of the host's /dev, so no deletion reaches the host."""


class Machine:
    """A machine that is switched on.

    Args:
        name: its host name.
        folder: an empty folder for its parts; it holds nothing once the machine is closed but logs.
        layers: trees that its root consists of, upper ones first; they are never written to.
        shared: folders of this machine that it sees at the same place, read-only.
        disguise: what its kernel's files are replaced by: path on the machine -> file or folder here.
        disk_mb: size of its disk, which lies in memory.
    """

    environment: Mapping[str, str] = ENVIRONMENT
    """The environment of the processes that tests start, among them the daemon that starts the others."""

    def __init__(
        self,
        network: Network,
        name: str,
        folder: Path,
        layers: Sequence[Path],
        shared: Sequence[Path] = (),
        disguise: Mapping[str, Path] | None = None,
        disk_mb: int = 256,
    ) -> None:
        self.name = name
        self.log = folder / "log"
        """What the processes wrote that were started here: the first place to look when a test fails."""
        self._folder = folder
        self._disguise = dict(disguise or {})
        for part in ("root", "disk"):
            (folder / part).mkdir()
        self._keeper = Holder(
            ["unshare", "--mount", "--net", "--uts", "--ipc", "--propagation", "private"],
            _DISK,
            str(folder),
            f"{disk_mb}m",
            ":".join(map(str, layers)),
            name,
            *map(str, shared),
        )
        self._link = network.attach(self._keeper.pid)
        self.address = self._link.address
        self._switch_on()

    def path(self, path: str) -> Path:
        """A file on its disk, as the test reaches it. Not to be resolved: it leads through /proc."""
        return Path(f"/proc/{self._keeper.pid}/root{self._folder}/root/{path.lstrip('/')}")

    # Processes. Process ids are the machine's own, as its programs tell them.

    def run(self, *command: str, timeout: float = 60, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command on the machine, as root, not through its daemon."""
        return subprocess.run(
            [*self._enter(), *command],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def start(self, *command: str, user: int = 0) -> None:
        """Starts a command on the machine and lets it run; it writes to the machine's log."""
        identity = ["--setuid", str(user), "--setgid", str(user)]
        in_background = ["sh", "-c", '"$@" &', "sh"]  # else nsenter, its parent, would be stopped together with it
        with self.log.open("ab") as log:
            subprocess.run(
                [*self._enter(), *identity, *in_background, *command],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                check=True,
            )

    def processes(self, pattern: str = "") -> list[int]:
        """Return the ids of processes whose command line matches the regular expression; zombies do not count."""
        return sorted(pid for pid, outer in self._outer_pids().items() if re.search(pattern, command_line(outer)))

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Sends a signal to a process.

        Raises:
            ProcessLookupError: there is no such process.
        """
        outer = self._outer_pids().get(pid)
        if outer is None:
            raise ProcessLookupError(f"no process {pid} on {self.name}")
        os.kill(outer, number)

    def kill(self, pattern: str) -> list[int]:
        """Kills all processes whose command line contains the regular expression; returns when they are gone."""
        pids = self.processes(pattern)
        for pid in pids:
            with suppress(ProcessLookupError):
                self.signal(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(self.is_running, pids)), f"{self.name}: still running: {pids}")
        return pids

    def is_running(self, pid: int) -> bool:
        return pid in self._outer_pids()

    # Faults

    def link_down(self) -> None:
        """Pulls the network cable."""
        self._link.down()

    def link_up(self) -> None:
        self._link.up()

    def reboot(self) -> None:
        """Kills all processes and starts again what the machine starts by itself. The disk keeps its files.

        The kernel closes open connections, as when a user reboots; pull the cable first for a power cut.
        """
        self._switch_off()
        self._switch_on()

    def fill_disk(self) -> None:
        """Fill the disk to its last byte."""
        with self._filler.open("ab", buffering=0) as file, suppress(OSError):
            space = os.statvfs(file.fileno())
            os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_bsize)
            while True:  # whatever was freed meanwhile
                file.write(bytes(4096))

    def free_disk(self) -> None:
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Switches the machine off and takes it apart."""
        self._switch_off()
        self._link.remove()
        self._keeper.kill()
        for part in ("root", "disk"):
            (self._folder / part).rmdir()  # fails, and deletes nothing, should anything still be mounted

    def start_services(self) -> None:
        """Starts what the machine runs from boot on. Each kind of machine has its own."""

    def _switch_on(self) -> None:
        boot_id = self._folder / "boot_id"
        boot_id.write_text(f"{uuid.uuid4()}\n")
        binds = [text for inside, outside in self._disguise.items() for text in (str(outside), inside)]
        self._boot = Holder(
            [
                *("nsenter", "--target", str(self._keeper.pid), "--mount", "--net", "--uts", "--ipc"),
                *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"),
            ],
            _BOOT,
            str(self._folder / "root"),
            str(boot_id),
            *binds,
        )
        self._init = int(self._boot.words[0])
        self._pid_namespace = os.readlink(f"/proc/{self._init}/ns/pid")
        self.start_services()

    def _switch_off(self) -> None:
        os.kill(self._init, signal.SIGKILL)  # the kernel then kills all the others
        self._boot.kill()

    def _enter(self) -> list[str]:
        root = f"/proc/{self._init}/root{self._folder}/root"
        namespaces = ("--mount", "--net", "--uts", "--ipc", "--pid")
        return [find_program("nsenter"), "--target", str(self._init), *namespaces, f"--root={root}", f"--wd={root}"]

    def _outer_pids(self) -> dict[int, int]:
        """Return the machine's processes but the first: id inside -> id outside."""
        found = {}
        for outer in all_pids():
            try:
                if os.readlink(f"/proc/{outer}/ns/pid") != self._pid_namespace:
                    continue
            except OSError:  # it has just ended
                continue
            if fields := status(outer):
                found[int(fields["NSpid"].split()[-1])] = outer
        found.pop(1, None)
        return found

    @property
    def _filler(self) -> Path:
        return Path(f"/proc/{self._keeper.pid}/root{self._folder}/disk/filler")
