"""Replies that are in order, one of each verb: examples that tests of the reply checks start from."""

from __future__ import annotations

from typing import Any

__all__ = ["COMPLETE", "OPTIONAL", "REQUEST", "REQUIRED"]

REQUEST: dict[str, Any] = {"warmup": 1, "runs": 2, "environment": "0123456789abcdef"}
"""The fields of a request that replies are checked against."""
REQUIRED: dict[str, dict[str, Any]] = {
    "hello": {
        "protocol": 1,
        "worker_version": "0123",
        "pid": 7,
        "cpus": {"count": 4, "affinity": [0, 1, 2, 3], "model": "Cortex-A72", "governor": ["ondemand"]},
        "fingerprint": {"id": "0123456789abcdef", "os": "Debian 12", "runtimes": {"tflite": {"version": "2.14"}}},
        "runtimes": {"tflite": {"version": "2.14.0", "why": None}, "onnxruntime": {"version": None, "why": "no"}},
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
    },
    "time": {
        "warmup_ns": [9],
        "samples_ns": [5, 6],
        "telemetry": {"before": {"load": [0.5], "temperature_c": {"soc": 41.5}}, "after": {"load": [0.5]}},
    },
    "profile": {
        "runs": 2,
        "samples_ns": [5, 6],
        "kept": [0, 1],
        "operators": [
            {
                "name": "/stem/Conv",
                "kind": "Conv",
                "provider": "CPUExecutionProvider",
                "mean_ns": 4,
                "median_ns": 3,
                "fused": ["Conv", "Relu"],
            }
        ],
        "left_out": {"operators": 0, "mean_ns": 0},
        "overhead_ns": 1,
        "resolution_ns": 1000,
    },
    "unload": {},
    "telemetry": {},
    "install": {"environment": "0123456789abcdef"},
    "bye": {},
}
"""Replies in which every field is needed."""
OPTIONAL: dict[str, dict[str, Any]] = {
    "hello": {
        "python": "3.11.2",
        "executable": "/usr/bin/python3",
        "platform": "linux",
        "machine": "aarch64",
        "bits": 64,
        "abi": "cp311",
        "libc": "glibc 2.36",
        "gpus": [{"name": "NVIDIA H200", "driver": "570.1", "cuda": "12.8"}],
        "memory_bytes": 4 << 30,
        "clock_resolution_ns": 1,
        "lease": {"folder": "0123456789abcdef", "token": 3},
        "work": {"folder": "/home/pi/.cache/latlab", "free_bytes": 0, "total_bytes": 1 << 40},
        "environment": {"id": "0123456789abcdef", "runtimes": ["tflite"]},
    },
    "load": {"delegated": {"operators": 65, "delegated": 64, "partitions": 1}},
    "time": {
        "at_s": 100.5,
        "launch_ns": [1, 2],
        "sm_mhz": [1980, 1500],
        "discarded": 3,
        "throttled": True,
        "warnings": ["other processes compute on the GPU: 12"],
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
}
"""Further fields, which real workers send or may send."""
COMPLETE = {verb: {**fields, **OPTIONAL.get(verb, {})} for verb, fields in REQUIRED.items()}
"""Replies with all of these fields."""
