"""A device as pip sees it: the tags of its wheels (PEPs 425, 600, 656) and its environment markers (PEP 508)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from latlab.harness.errors import LatlabError

__all__ = ["Platform"]

_ON_32_BITS = {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}
"""Names of the 32-bit machine by 64-bit name: a 64-bit kernel reports its own name even to 32-bit programs, as on many
Raspberry Pis.
"""
_NAMES = {"arm64": "aarch64", "amd64": "x86_64", "i386": "i686", "i586": "i686"}
_OLDEST_GLIBC = {"x86_64": 5, "i686": 5}
_OLDEST_GLIBC_ELSEWHERE = 17
_NAMED_GLIBC = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_COMMON_MUSL = (1, 2)
"""A musl version that every system since 2020 has at least; it is assumed if the device does not report one."""


@dataclass(frozen=True)
class Platform:
    """The platform of a device, as wheels' tags describe it."""

    machine: str
    """The machine that Python runs as, not the kernel: x86_64, aarch64, armv7l, ..."""
    python: str
    """The full version, e.g. 3.11.2."""
    abi: str
    """The ABI tag, e.g. cp311."""
    libc: str
    """The C library: glibc or musl."""
    libc_version: tuple[int, int]

    @classmethod
    def of(cls, name: str, hello: Mapping[str, Any]) -> Platform:
        """Return the platform that the reply to a hello describes.

        Args:
            name: the device's name in errors.
            hello: the reply.

        Raises:
            LatlabError: no wheels of runtimes exist for the device; its hint names the alternative.
        """
        system, libc, abi = hello.get("platform"), hello.get("libc"), hello.get("abi")
        if hello.get("simulated"):
            raise LatlabError(f"device {name} is simulated: it has its runtimes already")
        if libc == "bionic":
            raise LatlabError(
                f"device {name} is Android, which the makers of runtimes publish no wheels for",
                "Install one with Termux's own packages, or name TFLite's benchmark_model in the inventory.",
            )
        if system != "linux" or not isinstance(libc, str) or not isinstance(abi, str):
            raise LatlabError(
                f"device {name} runs {system or 'an unknown system'}: latlab sets up Linux alone",
                f"Install the runtimes there for {hello.get('executable') or 'its Python'}.",
            )
        if not abi.startswith("cp"):
            raise LatlabError(
                f"the Python of device {name} ({abi}) is not CPython, which the runtimes are made for",
                "Name another with `python` in the inventory.",
            )
        machine = str(hello.get("machine") or "").lower()
        machine = _NAMES.get(machine, machine)
        if hello.get("bits") == 32:
            machine = _ON_32_BITS.get(machine, machine)
        kind, _, version = libc.partition(" ")
        found = re.match(r"([0-9]+)\.([0-9]+)", version)
        numbers = (int(found[1]), int(found[2])) if found else _COMMON_MUSL
        if kind not in ("glibc", "musl") or (kind == "glibc" and not found):
            raise LatlabError(f"device {name} has a C library that no wheels are made for: {libc}")
        return cls(machine, str(hello["python"]), abi, kind, numbers)

    def __str__(self) -> str:
        return f"{self.machine}, Python {self.python}, {self.libc} {self.libc_version[0]}.{self.libc_version[1]}"

    @property
    def python_short(self) -> str:
        """Python's version without the patch number, e.g. 3.11."""
        return ".".join(self.python.split(".")[:2])

    @property
    def tags(self) -> list[str]:
        """The platform tags of wheels that run there, the most specific first."""
        major, minor = self.libc_version
        if self.libc == "musl":
            return [*(f"musllinux_{major}_{n}_{self.machine}" for n in range(minor, -1, -1)), f"linux_{self.machine}"]
        tags = []
        for n in range(minor, _OLDEST_GLIBC.get(self.machine, _OLDEST_GLIBC_ELSEWHERE) - 1, -1):
            tags.append(f"manylinux_{major}_{n}_{self.machine}")
            if n in _NAMED_GLIBC:
                tags.append(f"{_NAMED_GLIBC[n]}_{self.machine}")
        return [*tags, f"linux_{self.machine}"]

    @property
    def pip_arguments(self) -> list[str]:
        """Options that make pip choose wheels for this platform instead of its own."""
        words = ["--python-version", self.python_short, "--implementation", "cp"]
        for abi in (self.abi, "abi3", "none"):
            words += ["--abi", abi]
        for tag in self.tags:
            words += ["--platform", tag]
        return words

    @property
    def markers(self) -> dict[str, str]:
        """The environment in which the markers of requirements are evaluated."""
        full = re.match(r"[0-9.]+((a|b|rc)[0-9]+)?", self.python)
        return {
            "implementation_name": "cpython",
            "implementation_version": full[0] if full else self.python,
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": full[0] if full else self.python,
            "python_version": self.python_short,
            "sys_platform": "linux",
        }
