"""What a killed command, or one on a full disk, may not harm: commands that write, and a judge of what they left.

The tests and `benchmarks/harm.py` share it.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
from forked_commands import CommandServer

TOY, PI = "toy/onnxruntime/cpu/fp32/t1/b1", "pi/onnxruntime/cpu/fp32/t1/b1"
SPACE = "nasbench201"
FIRST = "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
SECOND = "|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|"
INVENTORY = """devices:
  toy: {transport: simulated, kind: ideal}
  pi: {transport: simulated, kind: pi4, seed: 3}
"""
GATE = ["compare", "toy", "--space", SPACE, "--arch", FIRST, "--arch", SECOND, "--budget", "2"]
GATE += ["--fail-if-slower", "900%", "--junit", "gate.xml", "--markdown", "gate.md"]


BUSY_S = 20
"""Seconds that a command's own processes may outlive it."""

Labels = dict[int, tuple[str, float]]
"""Architecture and milliseconds by the number of the row."""


@dataclass(frozen=True)
class Command:
    """A command that writes files."""

    words: Sequence[str]
    outputs: Sequence[str]
    """The files that it replaces."""
    first: Sequence[str] = ()
    """Other words of the run that makes the earlier output, if it must not be the same."""


COMMANDS: Mapping[str, Command] = {
    "export csv": Command(["export", "--out", "labels.csv"], ["labels.csv"]),
    "export parquet": Command(["export", "--out", "labels.parquet"], ["labels.parquet"]),
    "export raw": Command(["export", "--out", "raw.csv", "--raw"], ["raw.csv"]),
    "report": Command(["report", "--target", TOY, "--space", SPACE, "--out", "report.html"], ["report.html"]),
    "quality": Command(["quality", "--out", "quality.html"], ["quality.html"]),
    "embed": Command(["embed", "toy", "--space", SPACE, "--out", "embedding.json"], ["embedding.json"]),
    "onboard": Command(
        ["onboard", "toy", "--space", SPACE, "--budget", "7", "--out", "results"],
        ["results"],
        first=["onboard", "toy", "--space", SPACE, "--budget", "6", "--out", "results"],
    ),
    "sustain": Command(
        ["sustain", "toy", "--space", SPACE, "--arch", FIRST, "--minutes", "0.05", "--out", "heat.svg"], ["heat.svg"]
    ),
    "compare": Command(GATE, ["gate.xml", "gate.md"]),
    "compare --targets": Command(
        ["compare", "--targets", TOY, PI, "--space", SPACE, "--arch", FIRST, "--arch", SECOND, "--out", "targets.html"],
        ["targets.html"],
    ),
    "profile": Command(["profile", FIRST, "toy", "--space", SPACE, "--out", "profile.html"], ["profile.html"]),
    "predict": Command(
        ["predict", "--target", TOY, "--space", SPACE, "--all", "--top", "500", "--out", "fastest.csv"], ["fastest.csv"]
    ),
    "predict --onnx": Command(
        ["predict", "--target", TOY, "--space", SPACE, "--onnx", "predictor.onnx"], ["predictor.onnx"]
    ),
    "search": Command(
        ["search", "--target", TOY, "--space", SPACE, "--max-latency-ms", "15", "--accuracy", "macs", "--budget", "3",
         "--out", "found"],
        ["found"],
        first=["search", "--target", TOY, "--space", SPACE, "--max-latency-ms", "15", "--accuracy", "macs", "--budget",
               "2", "--out", "found"],
    ),
    "store copy": Command(["store", "copy", "latlab.db", "copy.db", "--force"], ["copy.db"]),
    "store merge": Command(
        ["store", "merge", "latlab.db", "other.db", "--into", "merged.db", "--force"], ["merged.db"]
    ),
    "store compact": Command(["store", "compact"], []),
    "measure": Command(["measure", "toy", "--space", SPACE, "--count", "4", "--new-session"], []),
    "import": Command(["import", "large.csv", "--space", SPACE], [], first=["import", "table.csv", "--space", SPACE]),
    "init": Command(["init", "--out", "first.yaml", "--force"], ["first.yaml", "first.schema.json"]),
    "bench tasks": Command(
        ["bench", "tasks", "--table", "table.csv", "--space", SPACE, "--sources", "1", "--targets", "1", "--out",
         "tasks.json"],
        ["tasks.json"],
    ),
    "simulate": Command(
        ["simulate", "--table", "table.csv", "--space", SPACE, "--target", "a", "--predictor", "ridge", "--budget", "3",
         "--seeds", "1", "--out", "runs.csv"],
        ["runs.csv"],
    ),
    "bench predictors": Command(
        ["bench", "predictors", "--table", "table.csv", "--space", SPACE, "--source", "a,b", "--target", "c",
         "--predictor", "flops,params", "--samples", "5", "--seeds", "1", "--out", "scores.jsonl"],
        ["scores.jsonl"],
    ),
}  # fmt: skip
"""All commands that write files here. `setup` writes on a device: its tests are those of the environments there."""


def prepare(server: CommandServer, folder: Path, names: Sequence[str] = tuple(COMMANDS)) -> None:
    """Write what the commands need, and run each once, so that it has an earlier output."""
    from latlab.search_spaces import get

    (folder / "inventory.yaml").write_text(INVENTORY)
    space = get(SPACE)
    archs = space.sample(60, 0)
    costs = [sum(layer.macs for layer in space.layers(arch, live=True)) / 1e7 for arch in archs]
    chance = random.Random(0)
    columns = {name: [cost * chance.uniform(0.8, 1.2) + 0.5 for cost in costs] for name in "abcd"}
    pd.DataFrame({"arch": [arch.text for arch in archs], **columns}).to_csv(folder / "table.csv", index=False)
    others = {"arch": [arch.text for arch in space.sample(2000, 1)], "e": [chance.uniform(1, 9) for _ in range(2000)]}
    pd.DataFrame(others).to_csv(folder / "large.csv", index=False)
    run(server, ["measure", "toy", "pi", "--space", SPACE, "--count", "4"], folder)
    run(server, ["measure", "toy", "--space", SPACE, "--count", "4", "--seed", "1", "--store", "other.db"], folder)
    for name in names:
        run(server, COMMANDS[name].first or COMMANDS[name].words, folder)


def run(server: CommandServer, words: Sequence[str], folder: Path) -> float:
    """Run a command, which must succeed, and return how many seconds it took."""
    began = time.monotonic()
    command = server.start(words, folder)
    assert command.wait(600) == 0, (words, command.stderr)
    return time.monotonic() - began


def unfinished(folder: Path) -> list[str]:
    """Return the unfinished files in a folder, which have hidden names."""
    return [str(one.relative_to(folder)) for one in folder.rglob(".*.part")]


def state(folder: Path, outputs: Sequence[str]) -> dict[str, str]:
    """Return the digest of each output file; of an output that is a folder, of each file in it."""
    found = {}
    for name in outputs:
        # A lock holds the number of the process that has it, whatever becomes of that.
        files = [one for one in (folder / name).rglob("*") if one.is_file() and one.suffix != ".lock"]
        for one in files or [folder / name]:
            if one.is_file():
                found[str(one.relative_to(folder))] = hashlib.sha256(one.read_bytes()).hexdigest()
    return found


def labels(store: Path) -> Labels:
    """Return the finished labels of a store by the numbers of their rows, after SQLite's own check of the file."""
    with closing(sqlite3.connect(store)) as connection:
        (checked,) = connection.execute("PRAGMA integrity_check").fetchone()
        assert checked == "ok", checked
        rows = connection.execute("SELECT id, arch, latency_ms FROM measurements WHERE status = 'ok'")
        return {number: (arch, latency) for number, arch, latency in rows}


def harm(folder: Path, command: Command, before: Mapping[str, str], known: Labels) -> list[str]:
    """Return what a command that did not end well has harmed.

    Args:
        folder: where it ran.
        command: the command.
        before: `state` before it ran.
        known: `labels` before it ran.
    """
    faults = []
    after = state(folder, command.outputs)
    faults += [f"{name} is gone" for name in before if name not in after]
    for name in after:
        if after[name] != before.get(name) and (reason := _broken(folder / name)):
            faults.append(f"{name}: {reason}")
    for output in command.outputs:
        if not (folder / output).is_dir():
            continue
        telling = [name for name in before if name.startswith(f"{output}/") and not name.endswith(".json")]
        kept = [name for name in telling if after.get(name) == before[name]]
        if kept and len(kept) < len(telling):
            faults.append(f"{output}: {kept} are old, the others new")
    try:
        now = labels(folder / "latlab.db")
    except (sqlite3.Error, AssertionError) as error:
        return [*faults, f"latlab.db: {error}"]
    faults += [f"latlab.db: the label of row {row} is lost" for row, label in known.items() if now.get(row) != label]
    return faults


def _broken(path: Path) -> str:
    """Return why a file is not whole; "" if it is."""
    try:
        content = path.read_bytes()
        assert content, "it is empty"
        if path.suffix in (".csv", ".yaml", ".md", ".jsonl"):
            assert content.endswith(b"\n"), "its last line is cut"
        if path.suffix == ".csv":
            pd.read_csv(path)
        elif path.suffix == ".parquet":
            pd.read_parquet(path)
        elif path.suffix == ".json":
            json.loads(content)
        elif path.suffix == ".jsonl":
            [json.loads(line) for line in content.splitlines()]
        elif path.suffix in (".xml", ".svg"):
            ElementTree.fromstring(content)
        elif path.suffix == ".html":
            assert content.endswith(b"</html>\n"), "its end is missing"
        elif path.suffix == ".db":
            labels(path)
        elif path.suffix == ".onnx":
            import onnx

            onnx.checker.check_model(onnx.load(path))
        elif path.suffix == ".safetensors":
            from safetensors.numpy import load

            load(content)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a small disk in memory on a folder (root), and yield the folder."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        # Exporters end when their command has ended, a moment later: until then the disk is busy.
        until = time.monotonic() + BUSY_S
        while subprocess.run(["umount", str(folder)], capture_output=True).returncode and time.monotonic() < until:
            time.sleep(0.05)
        if os.path.ismount(folder):
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
            raise AssertionError(f"processes in {folder} outlive their command by {BUSY_S} s")


def fill(folder: Path, leave: int) -> Path:
    """Fill the disk of a folder up to so many bytes, and return the file that fills it."""
    path = folder / "filling"
    disk = os.statvfs(folder)
    size = max(0, disk.f_bavail * disk.f_frsize - leave)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    return path
