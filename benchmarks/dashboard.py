"""What the live page costs and how far it is behind, on a store that grows by 200 rows a second with 200 devices.

    python benchmarks/dashboard.py --seconds 60

A process of its own writes the store: for each row a beginning, two passes and, about a second later, a label. It
writes twenty transactions a second, so that it leaves the machine to what is measured.
A headless Chromium has the page open. "Interactive" is the time from the navigation to the first table of devices;
"behind" is the time from a label's commit to its text in the browser, where its latency is unmistakable. The server's
share of a core is its CPU time over the wall-clock time, from /proc.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from common import RESULTS, save, show

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "harness" / "dashboard"))

from growing_store import GrowingStore
from headless_browser import Browser

BURST_S = 0.05
"""Seconds between two transactions."""
MARK_S = 3.0
"""Seconds between two labels whose way to the browser is timed."""
TICK = os.sysconf("SC_CLK_TCK")


def write(path: Path, devices: int, rate: float, earlier: int, seconds: float, pipe: Any) -> None:
    """Write `rate` rows a second until the time is over; tell the number of rows and when each marked label came."""
    growing = GrowingStore(path, devices, 5000)
    state = {"temperature_c": {"cpu": 51.5}}
    telemetry = json.dumps({"before": state, "after": state})
    samples = json.dumps([2_000_000] * 9)
    insert = (
        'INSERT INTO measurements (campaign_id, session, arch, role, status, "order", fingerprint_id, artifact, '
        "times_s, metrics, verdict, started_at) VALUES (?, 1, ?, 'listed', 'running', ?, ?, '{}', '{}', '{}', '', ?)"
    )
    add = (
        "INSERT INTO passes (measurement_id, number, warmup_ns, samples_ns, telemetry, at, kind) "
        "SELECT id, ?, '[]', ?, ?, ?, 'label' FROM measurements WHERE campaign_id = ? AND session = 1 AND arch = ?"
    )
    finish = (
        "UPDATE measurements SET status = 'ok', latency_ms = ?, stderr_ms = .02, low_ms = ?, high_ms = ?, "
        "finished_at = ? WHERE campaign_id = ? AND session = 1 AND arch = ?"
    )
    with growing.store.writing():
        for number in range(earlier):
            growing.measure(number % devices, number // devices)
        pipe.send("ready")
        pipe.recv()
        began, rows, marked = time.monotonic(), 0, 0
        under_way: list[tuple[str, str]] = []
        while (passed := time.monotonic() - began) < seconds:
            time.sleep(BURST_S)
            due = int(passed * rate) - rows
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            numbers = range(earlier + rows, earlier + rows + due)
            new = [(growing.campaigns[one % devices].id, growing.archs[one // devices]) for one in numbers]
            under_way += new
            ended, under_way = under_way[: max(0, len(under_way) - devices)], under_way[-devices:]
            rows += due
            is_marked = bool(ended) and passed >= MARK_S * (marked + 1)
            with growing.store.transaction() as connection:
                run = connection.exec_driver_sql
                if new:
                    run(insert, [(*one, at, growing.mark, now) for at, one in enumerate(new)])
                    run(add, [(place, samples, telemetry, now, *one) for one in new for place in range(2)])
                if ended:
                    values = [101.0 + marked if is_marked and one == ended[0] else 2.0 for one in ended]
                    run(finish, [(ms, ms, ms, now, *one) for ms, one in zip(values, ended, strict=True)])
            if is_marked:
                pipe.send((str(101 + marked), time.time()))
                marked += 1
        pipe.send(("end", rows))


def cpu_s(pid: int) -> float:
    """Return the seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def rss_mb(pid: int) -> float:
    """Return the memory of a process in megabytes."""
    line = next(one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def run(devices: int, rate: float, earlier: int, seconds: float) -> dict[str, Any]:
    """Return the figures of one run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "latlab.db"
        pipe, theirs = multiprocessing.Pipe()
        writer = multiprocessing.Process(target=write, args=(path, devices, rate, earlier, seconds, theirs))
        writer.start()
        pipe.recv()
        began = time.monotonic()
        server = subprocess.Popen(
            [sys.executable, "-m", "latlab.harness", "dashboard", "--store", str(path), "--port", "0", "--json"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        started_s = time.monotonic() - began
        try:
            with Browser() as browser:
                browser.look(1280)
                pipe.send("go")
                time.sleep(2)
                loads = []
                for _ in range(5):
                    browser.open("about:blank")
                    browser.open(url)
                    browser.wait_for("document.querySelectorAll('tbody tr').length > 0")
                    loads.append(browser.evaluate("performance.now()") / 1000)
                used, memory, since = cpu_s(server.pid), rss_mb(server.pid), time.monotonic()
                behind: list[float] = []
                rows = 0
                while True:
                    told = pipe.recv()
                    if told[0] == "end":
                        rows = told[1]
                        break
                    text, at = told
                    browser.wait_for(f"document.querySelector('tbody').textContent.includes('{text} ms')", 20)
                    behind.append(time.time() - at)
                wall = time.monotonic() - since
                share = (cpu_s(server.pid) - used) / wall
                later = rss_mb(server.pid)
                complaints = browser.complaints()
            writer.join()
        finally:
            server.terminate()
            server.wait()
        return {
            "devices": devices,
            "rows before": earlier,
            "rows/s": round(rows / seconds, 1),
            "start s": started_s,
            "interactive s": max(loads),
            "behind s, median": median(behind),
            "behind s, most": max(behind),
            "server, % of a core": 100 * share,
            "MB at first": memory,
            "MB at the end": later,
            "errors": len(complaints),
        }


def main() -> None:
    """Print the table and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--rate", type=float, default=200.0, help="rows a second")
    parser.add_argument("--earlier", type=int, default=2000, help="rows before")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=RESULTS / "dashboard.json")
    options = parser.parse_args()
    row = run(options.devices, options.rate, options.earlier, options.seconds)
    show("The live page on a growing store", [row])
    save(options.out, {"run": row})


if __name__ == "__main__":
    main()
