"""Figure 6: a run that is killed with SIGKILL again and again still ends with every row once.

    python benchmarks/kill_nine.py

The script starts `latlab measure` over 40 networks and kills it as soon as it has at least one new row, 20 times; then
it lets the command end. It looks for rows that are missing, double or changed since they were first seen, and for
artifacts that are not whole.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import RESULTS, save, show

from latlab.harness.store.store import Store
from latlab.search_spaces import get


def rows(store: Path) -> dict[str, Any]:
    if not store.exists():
        return {}
    table = Store(store).table(raw=True)
    assert len(table) == table["arch"].nunique(), "a row stands twice"
    return dict(zip(table["arch"], table["passes"], strict=True))


def whole_artifacts(cache: Path) -> tuple[int, int]:
    """Return the number of artifacts, and of those that are not what their entry says."""
    entries = sorted((cache / "artifacts" / "entries").glob("*.json"))
    broken = 0
    for entry in entries:
        facts = json.loads(entry.read_text())
        file = next(iter((cache / "artifacts" / "files").glob(f"{facts['sha256']}*")), None)
        broken += file is None or hashlib.sha256(file.read_bytes()).hexdigest() != facts["sha256"]
    return len(entries), broken


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", type=int, default=40)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--seed", type=int, default=0, help="of the moments between a new row and the kill")
    parser.add_argument("--out", type=Path, default=RESULTS / "kill_nine.json")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        store, cache = Path(name) / "latlab.db", Path(name) / "cache"
        command = [sys.executable, "-m", "latlab.harness", "measure", "local", "--space", "nasbench201", "--json"]
        command += ["--count", str(arguments.networks), "--runtime", arguments.runtime, "--store", str(store)]
        environment = {**os.environ, "LATLAB_CACHE": str(cache)}
        seen: dict[str, Any] = {}
        kills, changed, ended_early = [], 0, 0
        while len(kills) < arguments.kills:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
            while process.poll() is None and len(rows(store)) <= len(seen):
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.1))
            ended_early += process.poll() is not None
            process.kill()
            process.wait()
            now = rows(store)
            changed += sum(now.get(arch) != passes for arch, passes in seen.items())
            kills.append({"rows": len(now), "new": len(now) - len(seen)})
            seen = now
        last = subprocess.run(command, capture_output=True, text=True, env=environment)
        final = rows(store)
        artifacts, broken = whole_artifacts(cache)
    wanted = {arch.text for arch in get("nasbench201").sample(arguments.networks, 0)}
    figures = {
        "networks": arguments.networks,
        "kills": len(kills),
        "kills_that_came_too_late": ended_early,
        "rows_at_the_end": len(final),
        "missing": len(wanted - set(final)),
        "foreign": len(set(final) - wanted),
        "changed_or_lost_after_a_kill": changed + sum(final.get(arch) != passes for arch, passes in seen.items()),
        "exit_code_of_the_last_run": last.returncode,
        "artifacts": artifacts,
        "artifacts_not_whole": broken,
    }
    show("kill -9", [figures])
    save(arguments.out, {**figures, "each_kill": kills})


if __name__ == "__main__":
    main()
