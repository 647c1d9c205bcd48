"""Tests of the emulator: it works whatever the machine has mounted or registered, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from .emulator import FORMAT, Emulator
from .namespaces import ENVIRONMENT, Holder, require_namespaces, run
from .pi import PACKAGES
from .processes import wait_until

pytestmark = pytest.mark.peers

FOREIGN = {
    "an emulator that only the machine's own root has": ("/usr/bin/qemu-aarch64-static:P", ""),
    "an emulator that is no longer installed": ("/no/such/emulator:", ""),
    "an emulator that the kernel holds open": ("/bin/true:F", ""),
    "an entry that is switched off": ("/no/such/emulator:", "0"),
}
"""What another package may have registered: interpreter and flags, and what was written to its entry then.

`/bin/true` stands for an emulator held open: it prints nothing, whatever it is asked to run.
"""
FORMATS = "/proc/sys/fs/binfmt_misc"
MOUNT = f"{{ mount -t binfmt_misc binfmt_misc {FORMATS} || grep -q {FORMATS} /proc/self/mounts; }}"
BOXED = ["unshare", "--mount", "--propagation", "private"]
OWN_FORMATS = [*BOXED, "--user", "--map-root-user"]
"""Since Linux 6.7 each user namespace has a list of formats of its own."""


@pytest.fixture
def tree() -> Path:
    """A root filesystem for arm64."""
    require_namespaces()
    return PACKAGES.ensure()


@pytest.fixture
def formats(tmp_path: Path) -> Iterator[Path]:
    """The kernel's list of formats, mounted all the time, as on a desktop: no entry vanishes by itself."""
    require_namespaces()
    folder = tmp_path / "formats"
    folder.mkdir()
    holder = Holder(BOXED, 'mount -t binfmt_misc binfmt_misc "$1"', str(folder))
    yield Path(f"/proc/{holder.pid}/root{folder}")
    holder.kill()


def machine_of(tree: Path) -> str:
    """What a program for arm64 says of the machine that it runs on; its root has no emulator."""
    command = ["chroot", str(tree), "uname", "-m"]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False).stdout.strip()


def python(program: str) -> list[str]:
    """The command that runs a program with this module's names."""
    start = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); from peers.test_emulator import *\n"
    return [sys.executable, "-c", start + textwrap.dedent(program)]


@pytest.mark.parametrize("foreign", FOREIGN)
def test_whatever_is_registered_already(tmp_path: Path, tree: Path, foreign: str) -> None:
    if run(*OWN_FORMATS, "sh", "-c", MOUNT, check=False).returncode:
        pytest.skip("this kernel has one list of formats for all, and it is not the tests' to change")
    registered, then = FOREIGN[foreign]
    line = f":foreign:{FORMAT}:{registered}"
    program = f"""
        formats, tree = Path({FORMATS!r}), Path({str(tree)!r})
        (formats / "register").write_text({line!r})
        if {then!r}:
            (formats / "foreign").write_text({then!r})
        before = (formats / "foreign").read_text()
        print(machine_of(tree) or "nothing")
        emulator = Emulator(Path({str(tmp_path)!r}))
        print(machine_of(tree))
        emulator.close()
        print((formats / "foreign").read_text() == before, len(list(formats.iterdir())))
    """
    done = run(*OWN_FORMATS, "sh", "-c", f'{MOUNT} && exec "$@"', "sh", *python(program))
    assert done.stdout.split() == ["nothing", "aarch64", "True", "3"]


@pytest.mark.parametrize("propagation", ["private", "shared"])
@pytest.mark.parametrize("mounted", [MOUNT, f"{MOUNT} && mount -o remount,bind,ro {FORMATS}", "true"])
def test_wherever_the_formats_are_mounted(tmp_path: Path, tree: Path, mounted: str, propagation: str) -> None:
    """What the emulator mounts is not seen by the test process either."""
    program = f"""
        before = Path("/proc/self/mounts").read_text()
        emulator = Emulator(Path({str(tmp_path)!r}))
        print(machine_of(Path({str(tree)!r})), Path("/proc/self/mounts").read_text() == before)
        emulator.close()
    """
    shell = f'mount --make-r{propagation} / && {mounted} && exec "$@"'
    assert run(*BOXED, "sh", "-c", shell, "sh", *python(program)).stdout.split() == ["aarch64", "True"]


def test_two_at_a_time(tmp_path: Path, tree: Path, formats: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one, other = Emulator(tmp_path / "one"), Emulator(tmp_path / "other")
    one.close()
    assert machine_of(tree) == "aarch64"
    other.close()
    assert not {one.entry, other.entry} & {entry.name for entry in formats.iterdir()}


def test_nothing_is_left_by_a_killed_test_run(tmp_path: Path, formats: Path) -> None:
    (tmp_path / "own").mkdir()
    program = f"""
        print(Emulator(Path({str(tmp_path / "own")!r})).entry, flush=True)
        sys.stdin.read()
    """
    with subprocess.Popen(python(program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        entry = other.stdout.readline().strip()
        assert (formats / entry).exists()
        other.kill()
    wait_until(lambda: not (formats / entry).exists(), "an emulator is left over")
