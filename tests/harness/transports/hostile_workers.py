"""Workers that mean harm: programs that stand in for the device's Python, and say or do what a test likes.

Each begins with `PREAMBLE` and ends with `serve(twist)`, where `twist(request, reply)` gets what an honest worker
would say and returns what is said instead: a dict, raw bytes, or None for nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["write_worker"]

PREAMBLE = """
import hashlib, json, os, signal, subprocess, sys, time
WORK = sys.argv[-1]
HERE = os.path.dirname(os.path.abspath(sys.argv[0]))
OUTSIDE = os.path.join(HERE, "outside")
HELLO = {
    "protocol": 1, "worker_version": "0", "pid": os.getpid(), "cpus": {"count": 2, "affinity": [0, 1], "model": "x"},
    "fingerprint": {"id": "0" * 16}, "runtimes": {"onnxruntime": {"version": "1", "why": None}}, "platform": "linux",
    "lease": {"folder": "0" * 16, "token": 1},
}
LOADED = {"handle": 1, "import_ns": 0, "load_ns": 1, "first_ns": 1000000, "runtime_version": "1", "provider": "P",
          "inputs": [], "delegated": None}

def honest(request):
    verb = request["verb"]
    if verb == "hello":
        return dict(HELLO)
    if verb == "put":
        return {"have": os.path.isfile(os.path.join(WORK, "incoming", request["sha256"]))}
    if verb == "load":
        return dict(LOADED)
    if verb == "time":
        samples = [1000000 + 1000 * n for n in range(request["warmup"] + request["runs"])]
        return {"warmup_ns": samples[:request["warmup"]], "samples_ns": samples[request["warmup"]:],
                "telemetry": {"before": {}, "after": {}}}
    return {}

def say(data):
    while data:
        data = data[os.write(1, data):]

def serve(twist=lambda request, reply: reply):
    for line in sys.stdin:
        request = json.loads(line)
        said = twist(request, {"id": request["id"], "ok": True, **honest(request)})
        if isinstance(said, dict):
            said = json.dumps(said).encode() + b"\\n"
        if said:
            say(said)

def failure(request, kind, message):
    return {"id": request["id"], "ok": False, "error": {"kind": kind, "message": message}}
"""


def write_worker(folder: Path, program: str) -> Path:
    """A file that can stand for `python` in the inventory."""
    path = folder / "hostile"
    path.write_text(f"#!{sys.executable} -S\n{PREAMBLE}\n{program}\n")
    path.chmod(0o755)
    return path
