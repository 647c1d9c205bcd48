"""A fuzzer of inventory files: spoiled good ones, made-up YAML, and raw bytes."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from fuzz.mutations import BYTE_EDITS, edit_bytes
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.inventory.inventory import Inventory, load_inventory
from latlab.harness.text import plain
from latlab.harness.transports import open_transport
from latlab.harness.transports.simulated.config import SimulatedDevice

__all__ = ["INVENTORIES", "REGRESSIONS", "check_inventory"]

GOOD = [
    (Path(__file__).parents[2] / "inventory.yaml").read_bytes(),
    b"""\
devices:
  pi1: &pi
    transport: ssh
    host: pi1.lan
    port: 22
    user: pi
    jump: [gate.example.org, me@inner:2222]
    work: .cache/latlab
    patience_s: 4.0
    targets: &usual
      - {runtime: [tflite, onnxruntime], threads: [1, 4], batch_size: 1, priority: -1}
  pi2: {<<: *pi, host: "pi2.lan", key: ~/.ssh/id_pi, affinity: [2, 3]}
  phone: {transport: adb, serial: 'ABC', benchmark_model: bin/benchmark_model, targets: *usual}
  tv: {transport: adb, host: 192.168.0.9, port: 5555}
  box: {transport: local, python: /opt/python, work: /tmp/work, description: |
    several
    lines}
""",
    b"""\
devices:
  sim:
    transport: simulated
    kind: phone
    seed: 3
    pace: 0.5
    cost: {peak_gflops: 20, memory_gb_s: 8.5, overhead_us: 1e1, variation: .1}
    noise: {sigma: 0.02, outliers: {probability: 0.01}, bursts: {per_minute: 2}, slow_clock: {share: 0.2}}
    heating: {watts: 4, throttle_c: 80}
    faults:
      hangs: 0.001
      unsupported_kinds: [hswish]
      schedule:
        - {kind: disconnect, after_requests: 5, connects: 2}
        - {kind: crash, verb: time}
""",
]
WORDS = st.sampled_from(
    ["devices", "local", "all", "a b", "transport", "affinity", "targets", "runtime", "threads", "batch_size", "host",
     "port", "user", "key", "jump", "work", "python", "serial", "benchmark_model", "patience_s", "kind", "seed", "pace",
     "cost", "noise", "heating", "faults", "schedule", "table", "column", "description", "priority", "<<", "?", "",
     "reconnect_s", "known_hosts", "accelerator"]
)  # fmt: skip
SCALARS = st.sampled_from(
    ["ssh", "adb", "simulated", "local", "telepathy", "tflite", "onnxruntime", "benchmark_model", "cuda", "yes", "~",
     "null", "true", "1", "-1", "0", "0.5", "1e999", "-1e400", ".inf", ".nan", "1" * 400, "0x1F", "0o7", "12:30",
     "2024-01-02", "1_000", "[]", "{}", "&a x", "*a", "!!x", "!!python/object/apply:os.system [x]", "!!binary aGk=",
     "'", '"', '"\\x1b[2J"', '"\\u202e"', '"\\0"', '"\\ud800"', "|", ">", "%", "@", "`", "- -", ": :", "# x", "'a/b'",
     "~nobody-of-that-name/x", "$HOME", "a" * 300, "me@", "@host", "host:", "host:0", "[::1]:22", "host:99999", "é",
     "-oProxyCommand=x", "a b", "..", "/", "\\", "pi4", "gpu", "[0]", "[0, 0]", "[1, x]", "[[1]]", "{a: 1}"]
)  # fmt: skip
PLAIN = SCALARS | st.integers().map(str) | st.floats().map(str) | st.text(max_size=5).map(repr)
NESTED = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda values: f"[{', '.join(values)}]")
        | st.lists(st.tuples(WORDS | PLAIN, inner), max_size=5).map(
            lambda pairs: f"{{{', '.join(f'{key}: {value}' for key, value in pairs)}}}"
        )
    ),
    max_leaves=12,
)
FIELDS = st.lists(st.tuples(WORDS, NESTED), max_size=5).map(
    lambda pairs: f"{{{', '.join(f'{key}: {value}' for key, value in pairs)}}}"
)
LINES = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["", "- ", "? "]), WORDS, PLAIN), max_size=10).map(
    lambda lines: "\n".join(f"{' ' * indent}{dash}{key}: {value}" for indent, dash, key, value in lines)
)
MADE_UP = st.one_of(
    st.lists(st.tuples(st.sampled_from(["a", "b", "local", "pi"]) | PLAIN, FIELDS), max_size=4).map(
        lambda devices: "devices:\n" + "".join(f"  {name}: {fields}\n" for name, fields in devices)
    ),
    st.tuples(st.sampled_from(["local", "ssh", "adb", "simulated"]), WORDS, NESTED, WORDS, NESTED).map(
        lambda x: f"devices: {{d: {{transport: {x[0]}, host: h, {x[1]}: {x[2]}, {x[3]}: {x[4]}}}}}"
    ),
    NESTED,
    LINES,
    st.text(alphabet="{}[]:,&*!|>?-'\"#% \n\tab1~<", max_size=80),
    st.text(max_size=80),
).map(lambda text: text.encode("utf-8", "surrogatepass"))


def _spoiled_words(parts: tuple[bytes, list[tuple[int, str]]]) -> bytes:
    """Replace words by others: the file stays YAML more often than when bytes change."""
    text, edits = parts[0].decode(), parts[1]
    lines = text.split("\n")
    for place, value in edits:
        at = place % len(lines)
        head, colon, _ = lines[at].partition(": ")
        lines[at] = f"{head}{colon}{value}" if colon else lines[at] + value
    return "\n".join(lines).encode("utf-8", "surrogatepass")


INVENTORIES = st.one_of(
    st.tuples(st.sampled_from(GOOD), st.lists(st.tuples(st.integers(0, 100), NESTED), min_size=1, max_size=4)).map(
        _spoiled_words
    ),
    st.tuples(st.sampled_from(GOOD), st.lists(BYTE_EDITS, min_size=1, max_size=5)).map(lambda x: edit_bytes(*x)),
    MADE_UP,
    MADE_UP,
    st.tuples(MADE_UP, st.lists(BYTE_EDITS, min_size=1, max_size=3)).map(lambda x: edit_bytes(*x)),
    st.binary(max_size=100),
)
REGRESSIONS = (
    b"devices: {d: {targets: [{runtime: []}]}}",  # a device without any target
    b"devices: {d: {affinity: []}}",
)
_folder: list[Any] = []


def check_inventory(content: bytes) -> None:
    """Assert that a file gives one clear error that names it, or devices with targets, addresses and transports."""
    if not _folder:
        _folder.append(tempfile.TemporaryDirectory())
    path = Path(_folder[0].name) / "inventory.yaml"
    path.write_bytes(content)
    try:
        inventory = load_inventory(path)
    except BadInputError as error:
        message = error.message
    else:
        _use(inventory)
        return
    assert "inventory.yaml" in message
    assert plain(message) == message
    assert len(message) < 20_000


def _use(inventory: Inventory) -> None:
    for name, device in inventory.devices.items():
        assert inventory.device(name) is device
        targets = device.all_targets(name)
        assert targets
        assert device.timing_cpus(range(4), 1) is None or isinstance(device.timing_cpus(range(4), 1), list)
        assert isinstance(device.address, str)
        if isinstance(device, SimulatedDevice) and device.table is not None:
            continue  # it would read a file
        for target in targets[:2]:
            with contextlib.suppress(LatlabError):
                open_transport(device, name, target.runtime)
    inventory.select(["all"] if inventory.devices else [])
