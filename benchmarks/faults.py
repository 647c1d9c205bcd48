"""Faults provoked for real during runs over real peers: how soon and in which words latlab reports each of them.

    python benchmarks/faults.py       # as root, on a machine with network namespaces; about five minutes

The faults are the tests in tests/harness/fleet (test_faults.py and test_phone_faults.py), which also check that no row
is lost, doubled or wrong and that the other device of the run has all of its rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import RESULTS, save, show

TESTS = Path(__file__).parents[1] / "tests" / "fleet"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "faults.jsonl"
        tests = [str(TESTS / name) for name in ("test_faults.py", "test_phone_faults.py")]
        env = {**os.environ, "LATLAB_FAULT_TABLE": str(table), "LATLAB_REQUIRE_PEERS": "1"}
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", *tests], env=env, cwd=TESTS.parents[1])
        rows = [json.loads(line) for line in table.read_text().splitlines()]
    shown = [{**row, "told": " | ".join(row["told"])[:110]} for row in rows]
    show("faults, and after how many seconds they were named", shown)
    save(RESULTS / "faults.json", {"faults": rows, "tests_passed": done.returncode == 0})
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
