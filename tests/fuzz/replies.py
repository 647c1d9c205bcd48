"""A fuzzer of replies to every verb, on the check of replies alone: faster than whole conversations."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from fuzz.core import check_printable
from fuzz.mutations import LINE_EDITS, TREE_EDITS, Edit, edit_line
from latlab.agents.protocol.errors import AgentError
from latlab.harness.devices.health_checks import conditions, facts, step_details
from latlab.harness.transports.reply_validation import MAX_CHARACTERS, BrokenReplyError, check_reply

__all__ = ["REPLIES", "REPLY_REGRESSIONS", "check_spoiled_reply"]

NUMBER = 4
REQUEST = {"warmup": 1, "runs": 2, "environment": "0123456789abcdef"}
GOOD: dict[str, dict[str, Any]] = {
    "hello": {
        "protocol": 1,
        "worker_version": "0123",
        "pid": 7,
        "python": "3.11.2",
        "executable": "/usr/bin/python3",
        "platform": "linux",
        "machine": "aarch64",
        "bits": 64,
        "abi": "cp311",
        "libc": "glibc 2.36",
        "cpus": {"count": 4, "affinity": [0, 1, 2, 3], "model": "Cortex-A72", "governor": ["ondemand"]},
        "gpus": [{"name": "NVIDIA H200", "driver": "570.1", "cuda": "12.8"}],
        "memory_bytes": 4 << 30,
        "clock_resolution_ns": 1,
        "fingerprint": {"id": "0123456789abcdef", "os": "Debian 12", "runtimes": {"tflite": {"version": "2.14"}}},
        "runtimes": {"tflite": {"version": "2.14.0", "why": None}, "onnxruntime": {"version": None, "why": "no"}},
        "lease": {"folder": "0123456789abcdef", "token": 3},
        "work": {"folder": "/home/pi/.cache/latlab", "free_bytes": 1 << 33, "total_bytes": 1 << 40},
        "environment": None,
    },
    "put": {"have": True},
    "load": {
        "handle": 1,
        "import_ns": 0,
        "load_ns": 5,
        "first_ns": 6,
        "runtime_version": "1.31.1",
        "provider": "CPUExecutionProvider",
        "inputs": [{"name": "x", "dtype": "float32", "shape": [1, 3, 32, 32]}],
        "delegated": {"operators": 65, "delegated": 64, "partitions": 1},
    },
    "time": {
        "warmup_ns": [9],
        "samples_ns": [5, 6],
        "at_s": 100.5,
        "launch_ns": [1, 2],
        "sm_mhz": [1980, 1500],
        "discarded": 3,
        "throttled": True,
        "warnings": ["other processes compute on the GPU: 12"],
        "telemetry": {"before": {"load": [0.5], "temperature_c": {"soc": 41.5}}, "after": {"load": [0.5]}},
    },
    "unload": {"loaded": 0},
    "telemetry": {
        "load": [0.5],
        "temperature_c": {"soc": 41.5, "x": None},
        "frequency_mhz": [1800.0],
        "throttled": 5 << 16,
        "memory_mb": {"peak": 10.0, "available": 4000.0},
        "clocks": {"wall_s": 1.7e9, "steady_s": 100.5},
    },
    "install": {"environment": "0123456789abcdef"},
    "bye": {},
}
FAILURE = {"id": NUMBER, "ok": False, "error": {"kind": "unsupported_op", "message": "operator Foo is not known"}}
REPLIES = st.tuples(
    st.sampled_from(sorted(GOOD)),
    st.sampled_from([True, True, True, False]),
    st.lists(TREE_EDITS | TREE_EDITS | LINE_EDITS, min_size=1, max_size=4),
)
REPLY_REGRESSIONS = tuple(
    (verb, True, [Edit("whole", 0, line)])
    for verb, line in (
        ("telemetry", b'{"id":4,"ok":true,"load":[1e999]}'),  # became Infinity, which is not JSON, in the store
        ("telemetry", b'{"id":4,"ok":true,"x":' + b"9" * 4000 + b"}"),
        ("unload", b'{"id":4,"ok":true,"id":5,"id":4}'),
        ("time", b'{"id":true,"ok":true}'),
        ("time", b'{"id":4,"ok":true,"warmup_ns":' + b"[" * 900 + b"]" * 900 + b"}"),
        ("hello", b'{"id":4,"ok":true,"protocol":' + b"[" * 900 + b"]" * 900 + b"}"),
        ("bye", b'{"id":4,"ok":true,"x":"\\ud800"}'),
    )
)


def check_spoiled_reply(case: tuple[str, bool, list[Edit]]) -> None:
    """Refused, or tidy: samples as asked for, text that can be printed, JSON that can be stored; and what the doctor
    makes of it is told without a fault."""
    verb, ok, edits = case
    reply = {"id": NUMBER, "ok": True, **GOOD[verb]} if ok else FAILURE
    spoiled = edit_line(json.dumps(reply).encode() + b"\n", edits).split(b"\n")[0]
    try:
        result = check_reply(spoiled, NUMBER, verb, REQUEST)
    except (BrokenReplyError, AgentError) as error:
        refusal = str(error)
    else:
        _check_result(verb, result)
        return
    assert len(refusal) < 5000
    assert refusal.isprintable()


def _check_result(verb: str, result: dict[str, Any]) -> None:
    text = json.dumps(result, allow_nan=False)
    assert len(text) <= 12 * MAX_CHARACTERS + 1_000_000
    check_printable(result)
    if verb == "time":
        for name, count in (("warmup_ns", REQUEST["warmup"]), ("samples_ns", REQUEST["runs"])):
            assert len(result[name]) == count
            assert all(type(sample) is int and 0 <= sample <= 10**15 for sample in result[name])
    if verb == "hello":
        findings = [*facts(result, on_this_machine=False), *conditions({}, result)]
        assert all(f"{one.found}{one.advice}".isprintable() for one in findings)
        step_details(result)
    if verb == "telemetry":
        findings = list(conditions(result, GOOD["hello"]))
        assert all(f"{one.found}{one.advice}".isprintable() for one in findings)
