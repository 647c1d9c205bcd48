"""Fuzzers of what other programs and protocols give: benchmark_model, a phone's shell and files, known_hosts."""

from __future__ import annotations

import base64
import importlib.util
import json
import math
import struct
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hypothesis import strategies as st

from fuzz.mutations import BYTE_EDITS, Edit, edit_bytes
from latlab.harness.transports.adb.phone_info import describe, read_telemetry
from latlab.harness.transports.adb.services import Event, ShellProcess, TooMuchOutputError, run
from latlab.harness.transports.base import ChannelLostError, ChannelTimeoutError, Deadline
from latlab.harness.transports.benchmark_model.output import BenchmarkOutputError, parse_output
from latlab.harness.transports.ssh.known_hosts import read_known_hosts

__all__ = [
    "BENCHMARKS",
    "KNOWN_HOSTS",
    "KNOWN_HOSTS_REGRESSIONS",
    "PACKETS",
    "PHONE_FILES",
    "check_benchmark",
    "check_known_hosts",
    "check_packets",
    "check_phone_files",
]


def _recorded() -> ModuleType:
    path = Path(__file__).parents[1] / "harness" / "transports" / "benchmark_outputs.py"
    spec = importlib.util.spec_from_file_location("recorded_benchmark_outputs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# benchmark_model

RECORDED = _recorded()
OUTPUTS = [
    value for name, value in sorted(vars(RECORDED).items()) if name.startswith(("CURRENT", "OLD")) and "count=" in value
]
_NUMBERS = st.sampled_from(
    ["0", "-1", "1e999", "nan", "-nan", "inf", "1" * 30, "1e-400", "0x1", "1,5", "", " ", "1e12", "9" * 15, "٣", "¹"]
) | st.integers(0, 10**7).map(str)  # fmt: skip


def _renumbered(parts: tuple[str, list[tuple[int, str]]]) -> str:
    """Replace numbers by others."""
    text, edits = parts
    for place, value in edits:
        words = text.split("=") if place % 2 else text.split(" ")
        at = 1 + place % (len(words) - 1)
        rest = words[at].lstrip("0123456789.")
        words[at] = value + rest
        text = ("=" if place % 2 else " ").join(words)
    return text


def _shuffled(parts: tuple[str, list[tuple[int, int, int]]]) -> str:
    """Move, double or remove lines, or bring some in from another output."""
    lines = parts[0].split("\n")
    for kind, one, other in parts[1]:
        if not lines:
            break
        line = lines[one % len(lines)]
        if kind == 0:
            lines.insert(other % (len(lines) + 1), line)
        elif kind == 1:
            lines.remove(line)
        elif kind == 2:
            lines.remove(line)
            lines.insert(other % (len(lines) + 1), line)
        else:
            foreign = OUTPUTS[other % len(OUTPUTS)].split("\n")
            lines[one % len(lines)] = foreign[one % len(foreign)]
    return "\n".join(lines)


_OUTPUT = st.sampled_from(OUTPUTS)
BENCHMARKS = st.one_of(
    st.tuples(_OUTPUT, st.lists(st.tuples(st.integers(0, 500), _NUMBERS), min_size=1, max_size=3)).map(_renumbered),
    st.tuples(
        _OUTPUT,
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 100), st.integers(0, 100)), min_size=1, max_size=4),
    ).map(_shuffled),
    st.tuples(_OUTPUT, st.lists(BYTE_EDITS, min_size=1, max_size=4)).map(
        lambda x: edit_bytes(x[0].encode(), x[1]).decode("utf-8", "replace")
    ),
    st.text(max_size=200),
)


def check_benchmark(text: str) -> None:
    """Assert that an output gives no result, or one that a person who reads it would believe."""
    warmup, runs = RECORDED.WARMUP, RECORDED.RUNS
    try:
        result = parse_output(text, warmup=warmup, runs=runs)
    except BenchmarkOutputError:
        return
    assert (result.warmup.count, result.inference.count) == (warmup, runs)
    for one in (result.warmup, result.inference):
        numbers = (one.first, one.last, one.least, one.most, one.mean, one.deviation)
        assert all(math.isfinite(number) and 0 <= number <= 1e12 for number in numbers)
        assert one.least <= one.most
    assert f"count={runs}" in text
    mean = result.inference.mean
    assert f"{mean:g}" in text or str(mean) in text or str(int(mean)) in text, f"an average out of nowhere: {mean}"


# Shell protocol 2

PACKETS = st.tuples(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 1, 2, 2, 3, 4, 5, 255]), st.binary(max_size=30), st.booleans()), max_size=8
    ),
    st.lists(st.integers(1, 50), max_size=30),
    st.lists(BYTE_EDITS, max_size=2),
)


class _Stream:
    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def read(self, _: Deadline) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def write(self, *_: object) -> None:
        pass

    def close(self, *_: object) -> None:
        pass


class _Connection:
    features = frozenset({"shell_v2"})
    lost = False

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        pieces = []
        for size in sizes:
            pieces, data = [*pieces, data[:size]], data[size:]
        self._pieces = [piece for piece in [*pieces, data] if piece]

    def open(self, *_: object) -> _Stream:
        return _Stream(list(self._pieces))


def check_packets(case: tuple[list[tuple[int, bytes, bool]], list[int], list[Edit]]) -> None:
    """Assert that the packets' content comes out however the bytes are cut, and that nothing hangs on false lengths."""
    packets, sizes, edits = case
    data = b"".join(struct.pack("<BI", number, len(body)) + body for number, body, _ in packets)
    spoiled = edit_bytes(data, edits)
    connection: Any = _Connection(spoiled, sizes)
    try:
        ran = run(connection, "true", 5.0)
    except (ChannelLostError, ChannelTimeoutError, TooMuchOutputError):
        assert edits
        return
    if not edits:
        before = packets[: next((at for at, one in enumerate(packets) if one[0] == Event.EXIT), len(packets))]
        assert ran.output == b"".join(body for number, body, _ in before if number == Event.STDOUT)
        assert ran.errors == b"".join(body for number, body, _ in before if number == Event.STDERR)
    process = ShellProcess(connection, "true", Deadline(1.0))
    assert process.has_ended() or not spoiled


# What a phone's files say

_PHONE = b"""\
ro.product.manufacturer:Google
ro.product.model:Pixel 8
ro.soc.model:Tensor G3
ro.build.version.release:14
kernel:5.15.110
machine:aarch64
taskset:/system/bin/taskset
/proc/cpuinfo:processor : 0
/proc/cpuinfo:CPU part : 0xd46
/sys/devices/system/cpu/present:0-8
/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor:sched_pixel
/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq:1704000
/sys/class/thermal/thermal_zone0/type:BIG
/sys/class/thermal/thermal_zone0/temp:41000
/sys/class/power_supply/battery/capacity:88
/sys/class/power_supply/battery/status:Discharging
/sys/class/power_supply/battery/temp:281
/proc/loadavg:1.02 0.8 0.7 2/900 1234
/proc/pressure/cpu:some avg10=0.00 avg60=0.10 avg300=0.00 total=12345
/proc/meminfo:MemTotal:  7800000 kB
/proc/meminfo:MemAvailable:  4800000 kB
/proc/self/status:Cpus_allowed_list: 0-8
/proc/stat:cpu  1 2 3 4 5 6 7 8 9 10
"""
_VALUES = st.sampled_from(
    ["", "-1", "nan", "inf", "1e999", "9" * 400, "0-99999999", "7-3", "0-", "a", "\x1b[2J", "\0", "²", "٣",
     "0x10", "-40"]
) | st.text(max_size=10)  # fmt: skip


def _other_values(parts: tuple[list[tuple[int, str]], list[Edit]]) -> bytes:
    lines = _PHONE.decode().splitlines()
    for place, value in parts[0]:
        at = place % len(lines)
        lines[at] = lines[at].rpartition(":")[0] + ":" + value
    return edit_bytes("\n".join(lines).encode("utf-8", "surrogatepass"), parts[1])


PHONE_FILES = (
    st.tuples(st.lists(st.tuples(st.integers(0, 100), _VALUES), max_size=5), st.lists(BYTE_EDITS, max_size=3)).map(
        _other_values
    )
    | st.binary(max_size=200)
)  # fmt: skip


def check_phone_files(dump: bytes) -> None:
    """Assert that facts and telemetry can be written as JSON, whatever a phone's files say."""
    json.dumps(read_telemetry(dump), allow_nan=False)
    facts = describe(dump, {"version": "1"})
    assert len(json.dumps(facts, allow_nan=False)) < 100_000
    assert all(0 <= cpu < 5000 for cpu in facts["cpus"]["affinity"] or ())


# known_hosts

_KEY = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(32)).decode()
_HOSTS = f"""\
# comment
pi.lan,192.168.0.7 ssh-ed25519 {_KEY} me@here
[pi.lan]:2222 ssh-ed25519 {_KEY}
*.lan,!server.lan ssh-ed25519 {_KEY}
|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= ssh-ed25519 {_KEY}
@revoked * ssh-ed25519 {_KEY}
@cert-authority *.lan ssh-ed25519 {_KEY}
""".encode()
KNOWN_HOSTS = st.tuples(
    st.tuples(st.just(_HOSTS), st.lists(BYTE_EDITS, min_size=1, max_size=5)).map(lambda x: edit_bytes(*x))
    | st.binary(max_size=100)
    | st.lists(
        st.tuples(st.sampled_from(["", "@revoked ", "@", "#"]), st.text(alphabet="*?!|1,=a.[]\\(", max_size=30),
                  st.sampled_from([_KEY, "x", "ä", "", "="]))
    ).map(lambda lines: "\n".join(f"{a}{b} ssh-ed25519 {c}" for a, b, c in lines).encode()),
    st.sampled_from(["pi.lan", "[pi.lan]:2222", "192.168.0.7", "a" * 250, "é.lan"]),
)  # fmt: skip
KNOWN_HOSTS_REGRESSIONS = (
    ("pi.lan ssh-ed25519 ä\n".encode(), "pi.lan"),  # base64 takes ASCII only
    (b"*a" * 100 + b"b ssh-ed25519 " + _KEY.encode(), "a" * 250),  # took ages
)
_folder: list[Any] = []


def check_known_hosts(case: tuple[bytes, str]) -> None:
    content, name = case
    if not _folder:
        _folder.append(tempfile.TemporaryDirectory())
    path = Path(_folder[0].name) / "known_hosts"
    path.write_bytes(content)
    for known in read_known_hosts([path], name):
        assert known.marker in ("", "@revoked") or known.marker.startswith("@")
        assert 1 <= known.line <= len(content) + 1
        assert isinstance(known.key, bytes)
