"""Tests of commands on several targets of which some fail: each is named where it happens and at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from latlab.harness import Lab
from latlab.harness.errors import BadInputError, LatlabError

BUDGET = ["--space", "nasbench201", "--budget", "3"]
ARCHS = ["--space", "fbnet", "--count", "2"]
GOOD, GONE = {"transport": "simulated", "kind": "ideal"}, {"transport": "local", "python": "/nowhere/python3"}


def inventory(folder: Path, **devices: dict[str, object]) -> None:
    (folder / "inventory.yaml").write_text(json.dumps({"devices": devices}))


def latlab(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "latlab.harness", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, env={**os.environ})


@pytest.mark.parametrize(
    "words",
    [["onboard", "good", "gone", *BUDGET], ["measure", "good", "gone", *ARCHS], ["embed", "good", "gone", *ARCHS[:2]]],
    ids=lambda words: words[0],
)
def test_some_of_several_devices_fail(tmp_path: Path, words: list[str]) -> None:
    inventory(tmp_path, good=GOOD, gone=GONE)
    done = latlab(tmp_path, *words)
    assert done.returncode == 3, done.stderr
    happened, _, end = done.stderr.partition("latlab: 1 of 2 targets failed:")
    assert "gone" in happened, "where it happens"
    assert "  gone/onnxruntime/cpu/fp32/t1/b1: cannot start /nowhere/python3" in end, "and again at the end"
    assert "inventory" in end, "with what to do"


def test_one_of_two_targets_of_one_device(tmp_path: Path) -> None:
    """It was neither said where it happened nor at the end: the device is one."""
    targets = [{"runtime": ["onnxruntime", "tflite"], "threads": [1]}, {"runtime": ["onnxruntime"], "threads": [512]}]
    inventory(tmp_path, here={"transport": "local", "work": str(tmp_path / "work"), "targets": targets})
    done = latlab(tmp_path, "onboard", "here", *BUDGET[:2], "--budget", "3")
    assert done.returncode == 3, done.stderr
    happened, _, end = done.stderr.partition("latlab: 1 of 3 targets failed:")
    assert "here/onnxruntime/cpu/fp32/t512/b1" in happened
    assert "here/onnxruntime/cpu/fp32/t512/b1" in end
    assert "take turns" in end


def test_all_fail(tmp_path: Path) -> None:
    inventory(tmp_path, gone=GONE, lost={**GONE, "python": "/nowhere/else"})
    done = latlab(tmp_path, "onboard", "gone", "lost", *BUDGET)
    assert done.returncode == 2, "both are faults of the inventory"
    assert "all 2 targets failed" in done.stderr
    assert "/nowhere/python3" in done.stderr
    assert "/nowhere/else" in done.stderr


def test_json_lines_have_them(tmp_path: Path) -> None:
    inventory(tmp_path, good=GOOD, gone=GONE)
    done = latlab(tmp_path, "onboard", "good", "gone", *BUDGET, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["target"].partition("/")[0] for line in lines] == ["good", "gone"]
    assert "cannot start" in lines[1]["error"]


def test_python_has_them(tmp_path: Path) -> None:
    inventory(tmp_path, good=GOOD, gone=GONE)
    lab = Lab(tmp_path / "latlab.db", inventory=tmp_path / "inventory.yaml")
    found = lab.onboard_fleet(["good", "gone"], space="nasbench201", budget=3, out=tmp_path / "out")
    assert [one.target.partition("/")[0] for one in found] == ["good"]
    (failure,) = found.failures
    assert failure.target == "gone/onnxruntime/cpu/fp32/t1/b1"
    assert "cannot start" in failure.message
    with pytest.raises(BadInputError, match="cannot start") as caught:
        lab.onboard("gone", space="nasbench201", budget=3, out=tmp_path / "out")
    assert isinstance(caught.value, LatlabError)


def test_a_gate_stays_closed_for_a_device_that_nothing_was_measured_on(tmp_path: Path) -> None:
    inventory(tmp_path, good=GOOD, gone=GONE)
    assert latlab(tmp_path, "measure", "good", *ARCHS, "--store", "old.db").returncode == 0
    archs = [word for arch in Lab(tmp_path / "old.db").store.table()["arch"] for word in ("--arch", arch)]
    words = ["compare", "good", "gone", "--space", "fbnet", *archs, "--baseline", "old.db", "--fail-if-slower", "50%"]
    done = latlab(tmp_path, *words)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "gone/onnxruntime" in done.stdout
    assert "cannot start" in done.stdout
