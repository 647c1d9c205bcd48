"""A store in PostgreSQL: two controllers on one campaign, rows a second, and large stores.

    python benchmarks/postgresql.py                      # all of it, with a server of its own from Debian's package
    python benchmarks/postgresql.py --rows 10000 1000000 --only large

Controllers: two processes with 20 simulated devices each, of the same names, measure the same 200 networks on each.
They share the work. The server is stopped as by a crash after a third of the rows, and started again. Networks are
exported beforehand. Writes: rows with one pass each, in three transactions a row (begin, pass, finish), from threads of
one and of two processes. Large: a store in SQLite is copied to the server and back, and commands run in processes of
their own. The server waits for its disk at each commit, as PostgreSQL does by default.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import store_size
from common import RESULTS, save, show
from fleet import export_first

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from peers.postgresql import PostgreSQLServer

SPACE = "nasbench201"
CONTROLLER = """
import json, sys, time
from latlab.harness.fleet.jobs import Incident, RunListener
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.lab import Lab
from latlab.harness.transports.simulated.config import SimulatedDevice

lab = Lab(sys.argv[1])
devices, networks = int(sys.argv[2]), int(sys.argv[3])
lab.inventory = Inventory({f"sim{n:02}": SimulatedDevice(seed=n) for n in range(devices)})
own = []
observe = lambda event: own.append(isinstance(event, Incident))
print("begins", flush=True)
sys.stdin.readline()
begin = time.monotonic()
found = lab.measure("all", space="nasbench201", count=networks, policy="quick", listener=RunListener(observe=observe))
said = {"seconds": time.monotonic() - begin, "own rows": own.count(False), "incidents": own.count(True)}
print(json.dumps({**said, "rows": len(found.rows), "errors": [str(one) for one in found.failures]}), flush=True)
"""
WRITER = """
import json, sys, threading, time
from latlab.harness.store.store import Store
from latlab.harness.targets import Target
from latlab.harness.telemetry.recorded_pass import RecordedPass
from latlab.harness.timing_policy import PRESETS

store, count, threads, telemetry = Store(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
recorded = RecordedPass([36052275], list(range(10**7, 10**7 + 20)), telemetry)
with store.writing():
    print("begins", flush=True)
    sys.stdin.readline()

    def write(thread):
        target, seed = Target(f"pi{thread}", "onnxruntime"), time.time_ns()
        campaign = store.campaign(target, "letters", PRESETS["quick"], seed, "random")
        for number in range(count // threads):
            row = store.begin(campaign, 1, f"network {number}", "listed")
            store.add_pass(row.id, recorded)
            store.finish(row.id, "ok", latency_ms=10.0, stderr_ms=0.1, raw_ms=10.0)

    begin = time.monotonic()
    own = [threading.Thread(target=write, args=(one,)) for one in range(threads)]
    for thread in own:
        thread.start()
    for thread in own:
        thread.join()
    print(json.dumps({"rows": count // threads * threads, "seconds": time.monotonic() - begin}), flush=True)
"""


def together(code: str, places: list[list[str]]) -> list[subprocess.Popen[str]]:
    """Start processes that begin at the same moment, after their imports."""
    processes = [
        subprocess.Popen([sys.executable, "-c", code, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for words in places
    ]
    for one in processes:
        assert one.stdout is not None
        assert one.stdout.readline() == "begins\n"
    for one in processes:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    return processes


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what a process has printed at its end."""
    found: dict[str, Any] = json.loads(process.communicate(timeout=1800)[0].splitlines()[-1])
    return found


def controllers(server: PostgreSQLServer, devices: int, networks: int) -> dict[str, Any]:
    """Measure with two controllers over a restart of the server, and count rows."""
    export_first(networks, 0)
    place = server.new_database()
    name = place.rpartition("/")[2]
    begin = time.monotonic()
    both = together(CONTROLLER, [[place, str(devices), str(networks)]] * 2)

    def count(what: str) -> int:
        return int(server.execute(f"SELECT count({what}) FROM latlab.measurements WHERE status = 'ok'", name)[0][0])

    while not server.execute("SELECT to_regclass('latlab.measurements')", name)[0][0]:
        time.sleep(0.2)
    while count("*") < devices * networks / 3:
        time.sleep(0.2)
    before, stopped = count("*"), time.monotonic()
    server.stop("immediate")
    time.sleep(5)
    server.start()
    back = time.monotonic()
    while count("*") <= before + 2 * devices:
        time.sleep(0.1)
    again = time.monotonic()
    found = [result(one) for one in both]
    seconds = time.monotonic() - begin
    return {
        "devices": devices,
        "networks each": networks,
        "rows": count("*"),
        "lost": devices * networks - count("DISTINCT campaign_id || arch"),
        "double": count("*") - count("DISTINCT campaign_id || arch"),
        "of the first": found[0]["own rows"],
        "of the second": found[1]["own rows"],
        "errors": len(found[0]["errors"]) + len(found[1]["errors"]),
        "server away, s": back - stopped,
        "next rows after, s": again - back,
        "passes": server.execute("SELECT count(*) FROM latlab.passes", name)[0][0],
        "double passes": server.execute(
            "SELECT count(*) - count(DISTINCT (measurement_id, number)) FROM latlab.passes", name
        )[0][0],
        "seconds": seconds,
    }


def writes(server: PostgreSQLServer, rows: int) -> list[dict[str, Any]]:
    """Return rows a second of one thread, of eight, and of two processes with eight each."""
    telemetry = json.dumps({"before": store_size.STATE, "after": store_size.STATE})
    found = []
    for processes, threads in ((1, 1), (1, 8), (2, 8)):
        place = server.new_database()
        each = rows if threads > 1 else rows // 4
        done = [result(one) for one in together(WRITER, [[place, str(each), str(threads), telemetry]] * processes)]
        rate = sum(one["rows"] for one in done) / max(one["seconds"] for one in done)
        found.append({"processes": processes, "threads": threads, "rows": each * processes, "rows a second": rate})
        print(found[-1], flush=True)
    return found


def large(server: PostgreSQLServer, sizes: list[int], folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Copy stores of so many rows to the server, and time commands on them."""
    found: dict[str, list[dict[str, Any]]] = {}
    per_target, first_session = store_size.PER_TARGET, store_size.FIRST_SESSION
    for rows in sizes:
        store = folder / f"{rows}.db"
        if rows < per_target:
            store_size.PER_TARGET, store_size.FIRST_SESSION = rows, rows * 5 // 8
        if not store.exists():
            store_size.make(store, rows)
        store_size.PER_TARGET, store_size.FIRST_SESSION = per_target, first_session
        place = server.new_database()
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            one_csv, all_parquet = f"{scratch}/one.csv", f"{scratch}/all.parquet"
            target = "pi000/onnxruntime/cpu/fp32/t1/b1"
            arch = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_3x3~2|"
            commands = {
                "store copy, to the server": ["store", "copy", str(store), place],
                "show": ["show", place],
                "sources": ["sources", "--store", place],
                "quality of one target": ["quality", target, "--json", "--store", place],
                "predict --arch": ["predict", "--target", target, "--arch", arch, "--store", place],
                "predict --arch, again": ["predict", "--target", target, "--arch", arch, "--store", place],
                "export of one target, CSV": [
                    "export",
                    "--target",
                    target,
                    "--out",
                    one_csv,
                    "--store",
                    place,
                ],
                "export of everything, Parquet": ["export", "--out", all_parquet, "--store", place],
                "store info": ["store", "info", place],
                "store copy, back": ["store", "copy", place, f"{scratch}/back.db"],
            }
            for name, words in commands.items():
                one = {"command": name, **store_size.run(sys.executable, words, 1200.0)}
                found.setdefault(f"{rows}", []).append(one)
                print(one, flush=True)
        show(f"{rows:,} rows", found[f"{rows}"])
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--rows", nargs="+", type=int, default=[10_000, 1_000_000])
    parser.add_argument("--only", choices=["controllers", "writes", "large"], nargs="+", default=None)
    parser.add_argument("--folder", type=Path, default=None, help="folder of the stores in SQLite, to use them again")
    parser.add_argument("--out", type=Path, default=RESULTS / "postgresql.json")
    options = parser.parse_args()
    wanted = options.only or ["controllers", "writes", "large"]
    figures = json.loads(options.out.read_text()) if options.out.exists() else {}
    server = PostgreSQLServer(durable=True)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            if "writes" in wanted:
                figures["writes"] = writes(server, 4_000)
            if "controllers" in wanted:
                figures["controllers"] = controllers(server, options.devices, options.networks)
                show("two controllers", [figures["controllers"]])
            if "large" in wanted:
                figures.setdefault("large", {}).update(large(server, options.rows, options.folder or Path(scratch)))
    finally:
        server.close()
    save(options.out, {key: value for key, value in figures.items() if key != "machine"})


if __name__ == "__main__":
    main()
