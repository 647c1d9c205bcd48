"""The emulator of ARM processors: while it is on, the kernel runs programs for arm64 with it, whatever their root."""

from __future__ import annotations

import shutil
import struct
import uuid
from pathlib import Path

from .namespaces import ENVIRONMENT, Holder, unavailable

_PROGRAMS = ("/usr/libexec/qemu-binfmt/aarch64-binfmt-P", "qemu-aarch64-static", "qemu-aarch64")
"""Names of QEMU's emulator. By the first an old QEMU knows that a program's argv[0] is to be kept."""
FORMAT = (
    r"M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
)
"""How the file of a program for 64-bit ARM begins, and which bits count: ELF, little-endian, for EM_AARCH64."""
_FLAGS = "OPF"
"""F: the kernel opens the emulator now, since in the peer's root there is none. P: programs keep their argv[0]."""
_PT_INTERP = 3
_SWITCH_ON = """
formats=$1 entry=$2 line=$3
mount -t binfmt_misc binfmt_misc "$formats"
read -r state <"$formats/status"
[ "$state" = enabled ] || { echo "binfmt_misc is $state" >&2; exit 1; }
printf %s "$line" >"$formats/register"
"""
_SWITCH_OFF = 'echo -1 >"$formats/$entry"'


class Emulator:
    """A registration of QEMU with the kernel, under a unique name. It is removed with the test process, if not before.

    The kernel has one list of formats for all that share a user namespace, and asks the youngest entry first. So this
    entry counts, whatever the machine has registered already: an emulator that a peer's root would have to contain,
    one that is switched off, or that of another test run. The list is mounted in a folder of this emulator, because
    where it usually is, it may be mounted already, or be read-only.

    Args:
        folder: an empty folder, in which nothing is to be seen from outside.
    """

    def __init__(self, folder: Path) -> None:
        self.entry = f"latlab-{uuid.uuid4().hex}"
        """The name of the registration."""
        line = f":{self.entry}:{FORMAT}:{_find_static()}:{_FLAGS}"
        launcher = ["unshare", "--mount", "--propagation", "private"]
        try:
            self._holder = Holder(launcher, _SWITCH_ON, str(folder), self.entry, line, at_the_end=_SWITCH_OFF)
        except RuntimeError as error:
            unavailable(f"this machine's kernel takes no emulator: {error}")

    def close(self) -> None:
        """Remove the registration; programs that already run go on."""
        self._holder.release()


def _find_static() -> str:
    """Return the path of a static emulator, since a peer's root has no libraries for it; skip the test without one."""
    for name in _PROGRAMS:
        path = shutil.which(name, path=ENVIRONMENT["PATH"])
        if path and not _has_interpreter(Path(path)):
            return path
    return unavailable("qemu-user-static is not installed")


def _has_interpreter(program: Path) -> bool:
    """Return whether a 64-bit ELF program asks for a dynamic linker."""
    with program.open("rb") as file:
        header = file.read(64)
        (offset,) = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        file.seek(offset)
        table = file.read(size * count)
    return any(struct.unpack_from("<I", table, size * number)[0] == _PT_INTERP for number in range(count))
