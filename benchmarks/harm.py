"""What kill -9 and a full disk leave of earlier outputs.

    python benchmarks/harm.py [--kills 200] [--full 200] [--seed 0] [--out FILE]

Every command that writes files runs over its own earlier output. Half of the kills come at a random moment of the
command's usual duration, the other half up to 20 ms after the first unfinished file has appeared. For the full disk
(root: a small disk in memory), a random number of bytes is free, up to all that the command writes. Afterwards each
earlier output must be there, old or new, and whole; a folder of results must be all old or all new; and no label of
the store may be lost. It uses the helpers of the tests, so that it needs a clone of the repository.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from common import RESULTS, save, show

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from forked_commands import CommandServer
from harmed_outputs import COMMANDS, fill, harm, labels, prepare, run, small_disk, state, unfinished

AFTER_FIRST_S = 0.02
DISK_MB = 24
STORE_BYTES, SIDE_BYTES = 150_000, 64_000
"""What a command adds to the store, and what SQLite's files beside it take."""


def killed(
    server: CommandServer, base: Path, folder: Path, name: str, seconds: float, chance: random.Random, writing: bool
) -> dict[str, Any]:
    """Kill a command at a random moment, and return what that harmed."""
    shutil.copytree(base, folder)
    command = COMMANDS[name]
    before, known = state(folder, command.outputs), labels(folder / "latlab.db")
    writing &= bool(command.outputs)
    process = server.start(command.words, folder)
    deadline = time.monotonic() + (seconds * 2 if writing else chance.uniform(0, seconds))
    while process.poll() is None and time.monotonic() < deadline and not (writing and unfinished(folder)):
        time.sleep(0.001)
    if writing:
        time.sleep(chance.uniform(0, AFTER_FIRST_S))
    ended = process.poll() is not None
    process.kill()
    return {"ended_before": ended, "left": len(unfinished(folder)), "harm": harm(folder, command, before, known)}


def on_full_disk(server: CommandServer, base: Path, folder: Path, name: str, chance: random.Random) -> dict[str, Any]:
    """Run a command while the disk is nearly full, and return what that harmed."""
    folder.mkdir()
    with small_disk(folder / "disk", DISK_MB) as disk:
        own = disk / "own"
        shutil.copytree(base, own)
        command = COMMANDS[name]
        before, known = state(own, command.outputs), labels(own / "latlab.db")
        written = sum((own / name).stat().st_size for name in before) or STORE_BYTES
        filling = fill(disk, int(chance.uniform(0, 1.1) * (written + SIDE_BYTES)))
        process = server.start(command.words, own, said=folder)
        code = process.wait(600)
        filling.unlink()
        faults = harm(own, command, before, known)
        faults += [f"a traceback: {process.stderr[-300:]}"] if "Traceback" in process.stderr else []
        faults += ["not a word about it"] if code and not process.stderr.strip() else []
        return {"ended_before": code == 0, "left": len(unfinished(own)), "harm": faults, "said": process.stderr[-300:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--full", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    parser.add_argument("--minutes", type=float, default=1e9, help="end after so many minutes")
    parser.add_argument("--out", type=Path, default=RESULTS / "harm.json")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    trials: list[dict[str, Any]] = []
    end = time.monotonic() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        os.environ["XDG_CACHE_HOME"] = os.environ["LATLAB_CACHE"] = f"{place}/cache"
        server = stack.enter_context(CommandServer())
        base = Path(place, "base")
        base.mkdir()
        prepare(server, base, arguments.only)
        seconds = {}
        for name in arguments.only:
            seconds[name] = run(server, COMMANDS[name].words, shutil.copytree(base, Path(place, "timing")))
            shutil.rmtree(Path(place, "timing"))
        plan = [("kill -9", number) for number in range(arguments.kills)]
        plan += [("full disk", number) for number in range(arguments.full)]
        plan.sort(key=lambda one: one[1])  # alternating, so that an early end has both
        for cause, number in plan:
            if time.monotonic() > end:
                break
            name = arguments.only[number % len(arguments.only)]
            folder = Path(place, "trial")
            if cause == "kill -9":
                found = killed(
                    server, base, folder, name, seconds[name], chance, number // len(arguments.only) % 2 == 1
                )
            else:
                found = on_full_disk(server, base, folder, name, chance)
            shutil.rmtree(folder)
            trials.append({"cause": cause, "command": name, **found})
            if found["harm"]:
                print(cause, name, found["harm"], flush=True)
    rows: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for one in trials:
        row = rows[one["command"], one["cause"]]
        if not row:
            row |= {"command": one["command"], "cause": one["cause"]}
            row |= {"trials": 0, "ended before": 0, "hidden file left": 0, "harm": 0}
        row["trials"] += 1
        row["ended before"] += one["ended_before"]
        row["hidden file left"] += one["left"] > 0
        row["harm"] += bool(one["harm"])
    table = [rows[key] for key in sorted(rows)]
    show("Earlier outputs after kill -9 and on a full disk", table)
    save(arguments.out, {"rows": table, "faults": [one for one in trials if one["harm"]], "seconds": seconds})


if __name__ == "__main__":
    main()
