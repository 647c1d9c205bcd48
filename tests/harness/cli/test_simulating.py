"""Tests of `latlab simulate`: what it prints and writes, and what it says of bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from latlab.harness.cli.main import main
from latlab.search_spaces import get

SPACE = get("nasbench201")


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    archs = SPACE.sample(60, 0)
    latency = [1 + sum(arch.genes) + 0.1 * arch.genes[0] for arch in archs]
    pd.DataFrame({"arch": [arch.text for arch in archs], "pi": latency}).to_csv("table.csv", index=False)
    return "simulate --table table.csv --space nasbench201 --target pi --predictor ridge --seeds 2"


def run(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["latlab", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_prints_and_writes(table: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*table.split(), "--until", "6 samples, 1 h", "--out", "runs.csv"]
    code, out, _ = run(words, monkeypatch, capsys)
    assert code == 0
    assert "2 runs ended by 6 samples, after 6 samples" in out
    points = pd.read_csv("runs.csv")
    assert points["seed"].tolist() == [0] * 6 + [1] * 6
    assert {"n", "device_s", "spearman", "mape_percent", "within_10_percent", "expected_spearman"} <= set(points)
    code, out, _ = run([*table.split(), "--budget", "3", "--json"], monkeypatch, capsys)
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(one["seed"], len(one["points"]), one["reached"]) for one in lines] == [(0, 3, None), (1, 3, None)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--target phone", "no column 'phone'"),
        ("--target pi --budget 60", "has 60 latencies of pi, too few"),
        ("--target pi --noise -1", "--noise takes a percentage"),
        ("--target pi --near 0", "takes a time above 0"),
        ("--target pi --until soon", "that is no goal"),
        ("--target pi --predictor none", "unknown predictor"),
        ("--target pi --out runs.txt", "does not say what to write"),
    ],
)
def test_bad_input(
    table: str, options: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["simulate", "--table", "table.csv", "--space", "nasbench201", *options.split()]
    code, _, err = run(words, monkeypatch, capsys)
    assert (code, message in " ".join(err.split())) == (2, True), err
    assert "Traceback" not in err
