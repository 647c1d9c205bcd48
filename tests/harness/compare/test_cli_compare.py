"""Tests of `latlab compare` as a person uses it: output, exit codes, one clear error for every mistake."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from chains import chain
from waiting import wait_until

from latlab.harness.cli.main import main
from latlab.harness.store.store import Store

SMALL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"
LARGE = "|nor_conv_3x3~0|+|nor_conv_3x3~0|skip_connect~1|+|nor_conv_3x3~0|none~1|skip_connect~2|"
NETWORKS = ("--space", "nasbench201", "--arch", SMALL, "--arch", LARGE)
INVENTORY = """
devices:
  sim: {transport: simulated, kind: ideal, noise: {sigma: 0.02}}
  other: {transport: simulated, kind: pi4, noise: {sigma: 0.02}}
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inventory.yaml").write_text(INVENTORY)

    def latlab(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["latlab", "compare", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return latlab


def test_words_and_figures(run: Run) -> None:
    code, out, _ = run("sim", *NETWORKS, "--budget", "8", "--markdown", "m.md")
    assert code == 0
    assert "is faster" in out
    assert "(simulated)" in out
    assert "faster" in Path("m.md").read_text()
    code, out, _ = run("sim", "other", *NETWORKS, "--budget", "8", "--json")
    told = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [one["device"] for one in told] == ["sim", "other"]
    assert {one["pairs"][0]["verdict"] for one in told} == {"faster"}


def test_the_gate(run: Run) -> None:
    code, out, _ = run("sim", *NETWORKS, "--budget", "8", "--fail-if-slower", "3%", "--junit", "j.xml")
    assert code == 1
    assert "more than 3 %" in out
    assert ElementTree.parse("j.xml").getroot().get("failures") == "1"
    turned = ("--space", "nasbench201", "--arch", LARGE, "--arch", SMALL)
    code, out, _ = run("sim", *turned, "--budget", "8", "--fail-if-slower", "3", "--json", "--markdown", "m.md")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["gate"] == "passed"
    assert "Latency gate: passed" in Path("m.md").read_text()
    same = ("--space", "nasbench201", "--arch", SMALL, "--arch", SMALL)
    code, _, err = run("sim", *same, "--budget", "0.2", "--fail-if-slower", "0%")
    assert code == 0
    assert "undecided, which passes" in err


def test_the_gate_against_another_day(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["latlab", "measure", "sim", "--space", "nasbench201", "--arch", SMALL,
                                      "--store", "base.db"])  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    arguments = ("sim", "--space", "nasbench201", "--arch", SMALL, "--baseline", "base.db")
    code, out, _ = run(*arguments, "--fail-if-slower", "20%", "--junit", "j.xml")
    assert code == 0
    assert "base.db of 20" in out
    assert ElementTree.parse("j.xml").getroot().get("tests") == "1"
    code, _, err = run(*arguments)
    assert code == 2
    assert "--fail-if-slower" in err
    code, _, err = run("sim", "--space", "nasbench201", "--arch", LARGE, "--baseline", "base.db",
                       "--fail-if-slower", "3")  # fmt: skip
    assert code == 1


def test_two_targets(run: Run) -> None:
    targets = ("sim/onnxruntime/cpu/fp32/t1/b1", "other/tflite/cpu/fp32/t1/b1")
    code, out, _ = run("--targets", *targets, "--space", "nasbench201", "--count", "5", "--out", "t.html")
    assert code == 0
    assert "Spearman" in out
    assert Path("t.html").read_text().startswith("<!DOCTYPE html>")
    code, out, _ = run("--targets", *targets, "--space", "nasbench201", "--count", "5", "--json")
    assert json.loads(out)["networks"] == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "say what to compare"),
        (("sim",), "say what to compare"),
        (("a.onnx", "b.onnx"), "there is no model file a.onnx"),
        (("notes.txt", "b.onnx"), "neither a model nor a device"),
        (("sim", "--arch", SMALL, "--arch", LARGE), "--space"),
        (("sim", "--space", "nasbench201", "--arch", SMALL), "at least two"),
        (("sim", *NETWORKS, "--ties", "-1"), "percentage"),
        (("sim", *NETWORKS, "--confidence", "1"), "confidence"),
        (("sim", *NETWORKS, "--budget", "0"), "budget"),
        (("sim", *NETWORKS, "--fail-if-slower", "much"), "percentage"),
        (("sim", *NETWORKS, "--junit", "j.xml"), "--fail-if-slower"),
        (("sim", *NETWORKS, "--count", "3"), "--targets"),
        (("sim", *NETWORKS, "--out", "x.html"), "--targets"),
        (("sim", *NETWORKS, "--policy", "help"), "--policy"),
        (("--targets", "sim", "--space", "nasbench201", "--count", "3"), "two targets"),
        (("--targets", "sim", "other", "--count", "3"), "--space"),
        (("--targets", "sim", "other", "--space", "nasbench201", "--count", "3", "--out", "x.pdf"), ".html"),
        (("sim", *NETWORKS, "--fail-if-slower", "3", "--baseline", "none.db"), "no store"),
    ],
)
def test_mistakes_have_one_clear_error(run: Run, words: tuple[str, ...], message: str) -> None:
    code, out, err = run(*words)
    assert code == 2
    assert not out
    assert err.startswith("latlab: ")
    assert message in err


def test_ctrl_c_keeps_and_shows_what_was_measured(tmp_path: Path) -> None:
    small, large = chain(tmp_path / "small.onnx", 1), chain(tmp_path / "large.onnx", 20)
    words = [sys.executable, "-m", "latlab.harness", "compare", str(small), str(small), str(large), "--ties", "0",
             "--budget", "600", "--store", str(tmp_path / "s.db"), "--json"]  # fmt: skip
    environment = {**os.environ, "LATLAB_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def measured() -> bool:
        if not (tmp_path / "s.db").exists():
            return False
        store = Store(tmp_path / "s.db")
        with store.transaction() as connection:
            blocks = connection.exec_driver_sql(
                "SELECT max(json_extract(telemetry, '$.block')) FROM passes"
            ).scalar_one()
        store.close()
        return (blocks or 0) >= 2

    wait_until(measured, "two blocks were measured", 120)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    told = json.loads(out)
    assert told["status"] == "interrupted"
    assert told["blocks"] >= 2
    rows = Store(tmp_path / "s.db").table(sustained=True)
    assert list(rows["status"]) == ["ok"] * 3
