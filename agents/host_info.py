"""Facts about the device that influence latency and do not change while a worker lives."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
import time
from contextlib import suppress
from glob import glob
from importlib import metadata
from typing import Any

from latlab.agents import runtimes
from latlab.agents.protocol.errors import AgentError
from latlab.agents.system.sensor_files import Files, gpus
from latlab.agents.system.telemetry import Governor, HighestClock
from latlab.agents.workspace.environments import Environments

__all__ = ["describe", "disk", "private_environment"]


def describe() -> dict[str, Any]:
    """Return the facts in the reply to `hello`: Python, machine, CPUs, GPUs, memory, runtimes, clock, fingerprint.

    Units are in the names, clocks of CPUs in MHz. The `id` of the fingerprint is a hash of the facts that can change
    latency.
    """
    found, native = _runtimes()
    model, governor = _cpu_model(), Governor(Files()).read()
    cards = [gpu.facts() for gpu in gpus()]
    fingerprint: dict[str, Any] = {
        "os": _os_name(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": model,
        "cpu_count": os.cpu_count(),
        "governor": governor,
        "python": platform.python_version(),
        "runtimes": native,
    }
    if cards:  # devices without a GPU get no key: they keep the fingerprint from before GPUs were supported
        fingerprint["gpus"] = cards
    text = json.dumps(fingerprint, sort_keys=True)
    fingerprint["id"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": sys.platform,
        "machine": platform.machine(),
        "bits": 64 if sys.maxsize > 1 << 32 else 32,  # Python's: a 64-bit kernel may run 32-bit programs
        "abi": _abi(),
        "libc": _libc(),
        "cpus": {
            "count": os.cpu_count(),
            "model": model,
            "governor": governor,
            "max_mhz": HighestClock(Files()).read(),
            "affinity": affinity(),
            "virtual": _is_virtual(),
        },
        "gpus": cards,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "runtimes": found,
        "clock_resolution_ns": round(time.get_clock_info("perf_counter").resolution * 1e9),
        "fingerprint": fingerprint,
    }


def disk(folder: str) -> dict[str, Any]:
    """Return the folder's absolute path, and the free and total bytes of its disk."""
    status = os.statvfs(folder)
    return {
        "folder": os.path.abspath(folder),
        "free_bytes": status.f_bavail * status.f_frsize,
        "total_bytes": status.f_blocks * status.f_frsize,
    }


def private_environment(environments: Environments) -> dict[str, Any] | None:
    """Return the id of the private environment in use and the runtimes that come from it, or None if there is none."""
    name = environments.current()
    if name is None:
        return None
    private_runtimes = []
    for runtime in runtimes.NAMES:
        with suppress(AgentError):
            if environments.holds(runtimes.find(runtime).module):
                private_runtimes.append(runtime)
    return {"id": name, "runtimes": private_runtimes}


def affinity() -> list[int] | None:
    """Return the CPUs that this process may use, sorted, or None where the system does not report them (macOS)."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _runtimes() -> tuple[dict[str, dict[str, str | None]], dict[str, dict[str, str | None]]]:
    """Return two tables by runtime: its version or why there is none; and, of those found, version and build."""
    found: dict[str, dict[str, str | None]] = {}
    native: dict[str, dict[str, str | None]] = {}
    for name in runtimes.NAMES:
        try:
            package = runtimes.find(name)
        except AgentError as error:
            found[name] = {"version": None, "why": error.message}
        else:
            found[name] = {"version": package.version, "package": package.distribution, "why": None}
            native[name] = {"version": package.version, "build": _build(package.distribution)}
    return found, native


def _build(distribution: str) -> str | None:
    """Return a hash over the native libraries of an installed package, from the hashes that its installer recorded.

    Two builds of one version can differ a lot in speed. None if nothing was recorded.
    """
    try:
        record = metadata.distribution(distribution).read_text("RECORD") or ""
    except metadata.PackageNotFoundError:
        return None
    libraries = sorted(line for line in record.splitlines() if ".so" in line.split(",")[0])
    return hashlib.sha256("\n".join(libraries).encode()).hexdigest()[:16] if libraries else None


def _abi() -> str:
    """Return the ABI tag of this Python as in the names of wheels: cp311, or cp313t without the GIL."""
    prefix = {"cpython": "cp", "pypy": "pp"}.get(sys.implementation.name, sys.implementation.name)
    return f"{prefix}{sys.version_info[0]}{sys.version_info[1]}{getattr(sys, 'abiflags', '')}"


def _libc() -> str | None:
    """Return the C library that Python runs on, with its version: wheels are built for one, from a version on."""
    if hasattr(sys, "getandroidapilevel"):
        return "bionic"
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, ValueError, OSError):
        pass
    for path in sorted(glob("/lib/ld-musl-*.so.1")):
        with suppress(OSError), open(path, "rb") as file:
            found = re.search(rb"\0(1\.\d+\.\d+)\0", file.read())
            return f"musl {found.group(1).decode()}" if found else "musl"
    return None


def _cpu_model() -> str | None:
    fields: dict[str, str] = {}
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    board = _read("/proc/device-tree/model").strip("\0 \n")  # ARM boards name themselves here
    arm = " ".join(f"{key} {fields[key]}" for key in ("CPU implementer", "CPU part") if key in fields)
    return fields.get("model name") or fields.get("Hardware") or board or arm or platform.processor() or None


def _is_virtual() -> bool:
    """Return whether other machines may share these CPUs without being seen here, as far as Linux says."""
    lines = _read("/proc/cpuinfo").splitlines()
    flags: list[str] = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return "hypervisor" in flags or bool(_read("/sys/hypervisor/type").strip())


def _os_name() -> str:
    for line in _read("/etc/os-release").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip('"')
    return platform.platform()


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
