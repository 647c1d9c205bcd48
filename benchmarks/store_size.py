"""Time and memory of every command that reads or keeps a store, and of one commit, on stores of many rows.

    python benchmarks/store_size.py 200000 1000000

A synthetic store has labels of NAS-Bench-201 on as many simulated targets as the number of rows needs: 15,625 networks
in a first session and 9,375 of them in a second one, each with one pass of 20 samples and the telemetry of a Pi.
Every command runs in a process of its own. Its CPU time and its largest memory are what the system counted for it.
An older version is timed with its own code, which PYTHONPATH or --python finds, and --name before.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import RESULTS, save, show

from latlab.harness.store.store import Campaign, Store
from latlab.harness.targets import Target
from latlab.harness.timing_policy import PRESETS
from latlab.search_spaces import get

SPACE = "nasbench201"
PER_TARGET = 25_000
FIRST_SESSION = 15_625
FIXED = {
    "facts": {"simulated": True, "platform": "simulated", "cpus": {"count": 4, "model": "simulated Raspberry Pi 4"}},
    "artifact": {
        "key": "b6a1cc72376cb50cb594fd3fd1a474d46b0f641b",
        "size_bytes": 3347850,
        "format": "onnx",
        "input_shape": [1, 3, 32, 32],
        "parity": {"inputs": 4, "max_abs_diff": 1.85e-05, "tolerance": 0.0023, "passed": True, "contrast": 1.0},
        "operators": {"Add": 32, "AveragePool": 17, "Conv": 67, "Gemm": 1, "ReduceMean": 1, "Relu": 35},
    },
    "times_s": dict.fromkeys(("build_s", "export_s", "parity_s", "push_s", "load_s", "warm_s", "measure_s"), 0.25),
    "metrics": {"file_bytes": 3347850.0, "first_ms": 53.0, "open_ms": 18.7, "peak_memory_mb": 6.9, "energy_mj": 143.1,
                "p50_ms": 10.0, "p90_ms": 10.5, "p95_ms": 10.7, "p99_ms": 11.0, "jitter_percent": 2.0},
}  # fmt: skip
INVENTORY = """\
devices:
  pi000: {transport: simulated, kind: pi4, seed: 0}
  pi001: {transport: simulated, kind: pi4, seed: 1}
"""
COMMITS = 200
COMMIT = """
import json, sys, time
from latlab.harness.store.store import Store
from latlab.harness.targets import Target
from latlab.harness.telemetry.recorded_pass import RecordedPass
from latlab.harness.timing_policy import PRESETS

store, count = Store(sys.argv[1]), int(sys.argv[2])
recorded = RecordedPass([36052275], list(range(10**7, 10**7 + 20)), json.loads(sys.argv[3]))
with store.writing():
    campaign = store.campaign(Target("new", "onnxruntime"), "nasbench201", PRESETS["quick"], time.time_ns(), "random")
    begin = time.process_time()
    for number in range(count):
        row = store.begin(campaign, 1, f"network {number}", "listed")
        store.add_pass(row.id, recorded)
        store.finish(row.id, "ok", latency_ms=10.0, stderr_ms=0.1, raw_ms=10.0)
    print(json.dumps({"cpu_ms": 1000 * (time.process_time() - begin) / count}))
"""
STATE = {"temperature_c": {"soc": 48.1}, "frequency_mhz": [1500.0], "throttled": 0, "load": [1.0]}


def make(path: Path, rows: int, device: str = "pi") -> None:
    """Write a store with so many rows to `path`, of devices whose names begin with `device`."""
    store = Store(path)
    targets = [Target(f"{device}{at:03d}", "onnxruntime") for at in range(max(1, rows // PER_TARGET))]
    campaigns = [store.campaign(one, SPACE, PRESETS["quick"], 0, "random", {"as_written": False}) for one in targets]
    fingerprint = store.fingerprint(FIXED["facts"])
    store.close()
    space = get(SPACE)
    rng = random.Random(0)
    archs = [one.text for one in space.enumerate()]
    base = [rng.uniform(5, 60) for _ in archs]
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    with connection:
        for campaign in campaigns:
            speed = rng.uniform(0.5, 2)
            _fill(connection, campaign, fingerprint, archs, [one * speed for one in base], rng)
    connection.close()


def _fill(
    connection: sqlite3.Connection,
    campaign: Campaign,
    fingerprint: str,
    archs: list[str],
    base: list[float],
    rng: random.Random,
) -> None:
    (first,) = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM measurements").fetchone()
    artifact, times_s, metrics = (json.dumps(FIXED[name]) for name in ("artifact", "times_s", "metrics"))
    telemetry = json.dumps({"before": STATE, "after": STATE})
    rows, passes = [], []
    for at in range(PER_TARGET):
        session, network = (1, at) if at < FIRST_SESSION else (2, at - FIRST_SESSION)
        moment = f"2026-{session + 9:02d}-{1 + network // 2000:02d}T{network // 100 % 20:02d}:{network % 60:02d}:03.175"
        ms = base[network] * rng.gauss(1, 0.01)
        status = "timeout" if network % 1000 == 999 else "ok"
        good = status == "ok"
        values = (ms, ms / 200, ms, ms * 0.99, ms * 1.01) if good else (None,) * 5
        rows.append(
            (first + at, campaign.id, session, archs[network], "listed", status, network, fingerprint,
             f"{network:064x}", artifact, *values, "", metrics if good else "{}", times_s,
             None if good else "no answer within 30 s", f"{moment}+00:00", f"{moment}+00:00")
        )  # fmt: skip
        if good:
            samples = json.dumps([int(1e6 * ms * rng.gauss(1, 0.02)) for _ in range(20)])
            passes.append((first + at, 0, "[36052275]", samples, telemetry, f"{moment}+00:00", "label"))
    connection.executemany(
        "INSERT INTO measurements (id, campaign_id, session, arch, role, status, \"order\", fingerprint_id, "
        "artifact_sha256, artifact, latency_ms, stderr_ms, raw_ms, low_ms, high_ms, verdict, metrics, times_s, error, "
        f"started_at, finished_at) VALUES ({', '.join('?' * 21)})",
        rows,
    )  # fmt: skip
    connection.executemany(
        "INSERT INTO passes (measurement_id, number, warmup_ns, samples_ns, telemetry, at, kind) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        passes,
    )


def commands(store: Path, scratch: Path) -> dict[str, list[str]]:
    """Return the commands by name, as words for `latlab`; those that write have `copy.db` and `merged.db` for it."""
    first, second = (f"pi{number:03d}/onnxruntime/cpu/fp32/t1/b1" for number in (0, 1))
    arch = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_3x3~2|"
    at, copy = ["--store", str(store)], str(scratch / "copy.db")
    inventory = str(scratch / "inventory.yaml")
    return {
        "start-up": ["spaces", "--json"],
        "show": ["show", str(store)],
        "show --json": ["show", str(store), "--json"],
        "sources": ["sources", *at],
        "predict --arch": ["predict", "--target", first, "--arch", arch, *at],
        "report": ["report", "--target", first, "--space", SPACE, "--out", str(scratch / "report.html"), *at],
        "quality TARGET": ["quality", first, "--json", *at],
        "export --target, CSV": ["export", "--target", first, "--out", str(scratch / "one.csv"), *at],
        "export, Parquet": ["export", "--out", str(scratch / "all.parquet"), *at],
        "export, CSV": ["export", "--out", str(scratch / "all.csv"), *at],
        "compare --targets": ["compare", "--targets", first, "--targets", second, "--space", SPACE, "--arch", arch,
                              "--store", copy, "--inventory", inventory],
        "store info": ["store", "info", str(store)],
        "store check": ["store", "check", str(store)],
        "store copy": ["store", "copy", str(store), str(scratch / "copied.db")],
        "store compact": ["store", "compact", copy],
        "store merge": ["store", "merge", str(store), str(scratch / "other.db"), "--into", str(scratch / "merged.db")],
    }  # fmt: skip


def prepare(store: Path, scratch: Path, python: str, words: list[str]) -> None:
    """Make what the commands need: a copy to write to, in which what `compare` asks for is measured, and a small store.

    Args:
        words: of `compare`.
    """
    (scratch / "inventory.yaml").write_text(INVENTORY)
    for name in ("copied.db", "merged.db"):
        (scratch / name).unlink(missing_ok=True)
    shutil.copy(store, scratch / "copy.db")
    if not (scratch / "other.db").exists():
        make(scratch / "other.db", PER_TARGET, "other")
    run(python, words, 600.0)


def commit(python: str, store: Path) -> dict[str, Any]:
    """Return the CPU milliseconds of one row and its pass, each committed, in `store`."""
    words = [python, "-c", COMMIT, str(store), str(COMMITS), json.dumps({"before": STATE, "after": STATE})]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return {"command": "commit of a row, ms", "cpu_s": json.loads(said)["cpu_ms"] / 1000, "exit": 0}


def run(python: str, words: list[str], limit_s: float) -> dict[str, Any]:
    """Run `latlab` with these words, and return its wall and CPU seconds, its peak memory, and its exit code."""
    begin = time.monotonic()
    process = subprocess.Popen(
        [python, "-m", "latlab.harness", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    code = None
    while time.monotonic() - begin < limit_s and code is None:
        done, status, used = os.wait4(process.pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
        else:
            time.sleep(0.02)
    if code is None:
        process.kill()
        _, _, used = os.wait4(process.pid, 0)
    process.returncode = code if code is not None else -9
    assert process.stderr is not None
    said = process.stderr.read().decode()[-200:].strip() if code else ""
    return {
        "wall_s": time.monotonic() - begin,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss / 1000,
        "exit": "over the limit" if code is None else code,
        "said": said,
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+", type=int)
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the latlab that is timed")
    parser.add_argument("--name", default="now", help="name of the figures in the results: before, now")
    parser.add_argument("--only", nargs="*", default=[], help="only commands that begin so")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds after which a command is given up")
    parser.add_argument("--folder", type=Path, default=None, help="folder of the stores, to use them again")
    parser.add_argument("--out", type=Path, default=RESULTS / "store_size.json")
    options = parser.parse_args()
    known = json.loads(options.out.read_text()) if options.out.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        for rows in options.rows:
            store = folder / f"{rows}.db"
            if not store.exists():
                make(store, rows)
            found = []
            words_of = commands(store, Path(scratch))
            prepare(store, Path(scratch), options.python, words_of["compare --targets"])
            for name, words in words_of.items():
                if not options.only or name.startswith(tuple(options.only)):
                    found.append({"command": name, **run(options.python, words, options.limit)})
                    print(found[-1], flush=True)
            if not options.only or "commit" in options.only:
                found.append(commit(options.python, Path(scratch, "copy.db")))
                print(found[-1], flush=True)
            show(f"{rows:,} rows ({store.stat().st_size / 1e6:,.0f} MB), {options.name}", found)
            earlier = {one["command"]: one for one in known.get(options.name, {}).get(str(rows), [])}
            merged = earlier | {one["command"]: one for one in found}
            known.setdefault(options.name, {})[str(rows)] = list(merged.values())
    save(options.out, {key: value for key, value in known.items() if key != "machine"})


if __name__ == "__main__":
    main()
