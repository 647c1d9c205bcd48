"""`latlab search` from the words of the command line to its files, on simulated devices."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest

from latlab.harness import Lab
from latlab.harness.cli.main import main
from latlab.harness.store.lock import locked
from latlab.search_spaces import get

SPACE = get("nasbench201")
ARCHS = [arch.text for arch in SPACE.sample(120, 3)]
TOY = "toy/onnxruntime/cpu/fp32/t1/b1"
BASE = ["search", "--space", "nasbench201", "--candidates", "some.txt", "--predictor", "ridge"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("inventory.yaml").write_text(
        "devices:\n  toy: {transport: simulated, kind: ideal}\n  pi: {transport: simulated, kind: pi4, pace: 0}\n"
    )
    Path("some.txt").write_text("\n".join(ARCHS) + "\n")
    accuracy = 50 + np.random.default_rng(0).normal(size=len(ARCHS)).cumsum()
    pd.DataFrame({"arch": ARCHS, "accuracy": accuracy}).to_csv("acc.csv", index=False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["latlab", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


def test_from_a_device_never_seen_to_a_measured_answer(run: Run) -> None:
    words = [
        *BASE,
        "--target",
        "toy",
        "--accuracy",
        "acc.csv",
        "--max-latency-ms",
        "9",
        "--budget",
        "6",
        "--out",
        "found",
    ]
    code, out, err = run(*words, "--json", "--export", "winner")
    result = json.loads(out)
    assert code == 0, err
    winner = result["winner"]
    assert winner["measured"]
    (latency,) = winner["latencies"]
    assert (latency["target"], latency["limit_ms"]) == (TOY, 9.0)
    assert latency["measured_ms"] < latency["measured_upper_ms"] <= 9.0
    costs = result["costs"]
    assert costs["onboarded"] == 3
    assert 0 < costs["measured"] <= 3
    labels = Lab("latlab.db").store.table(target=TOY, space="nasbench201")
    assert labels["arch"].nunique() <= 6
    assert winner["arch"] in set(labels["arch"])
    assert winner["accuracy"] == pytest.approx(pd.read_csv("acc.csv").set_index("arch")["accuracy"][winner["arch"]])
    page = Path(result["report"]).read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert winner["arch"] in page.replace("<wbr>", "").replace("&#34;", '"')
    assert "The answer&#39;s cell" in page
    assert ">nor_conv_3x3</text>" in page or ">nor_conv_1x1</text>" in page
    assert json.loads(Path("found/result.json").read_text())["winner"] == winner
    assert {Path(one).name for one in result["exported"]} == {"winner.onnx", "winner.pt", "winner.tflite"}
    onnx.checker.check_model(onnx.load("winner/winner.onnx"))

    code, out, err = run(*words)  # again, in words: nothing is left to measure
    assert code == 0
    assert winner["arch"] in out
    assert "measured" in out
    assert "continuing the search" in err
    assert len(Lab("latlab.db").store.table(target=TOY, space="nasbench201")) == len(labels)


def _imported(run: Run, target: str, factor: float) -> float:
    """Import labels of a target without a device, and return their median in ms."""
    latency = factor * SPACE.features(SPACE.genes([SPACE.parse(arch) for arch in ARCHS])).sum(axis=1) ** 0.5
    pd.DataFrame({"arch": ARCHS[:40], "latency_ms": latency[:40]}).to_csv("mine.csv", index=False)
    assert run("import", "mine.csv", "--as-target", target)[0] == 0
    return float(np.median(latency))


def test_two_targets_with_a_limit_each(run: Run) -> None:
    watch, phone = "watch/tflite/cpu/fp32/t1/b1", "phone/tflite/cpu/fp32/t4/b1"
    limits = [1.2 * _imported(run, watch, 1.0), 0.9 * _imported(run, phone, 0.3)]
    words = ["--target", "watch", "--target", phone, "--max-latency", f"watch={limits[0]}ms"]
    words += ["--max-latency", f"{phone}={limits[1] / 1000}s", "--max-macs", "100M"]
    code, out, err = run(*BASE, *words, "--accuracy", "macs", "--json", "--no-measure")
    assert code == 0, err
    result = json.loads(out)
    for one, target, limit in zip(result["winner"]["latencies"], (watch, phone), limits, strict=True):
        assert (one["target"], one["limit_ms"]) == (target, pytest.approx(limit))
        assert one["predicted_ms"] < limit
    assert 0.9 <= result["winner"]["probability"] <= 1
    assert result["winner"]["macs"] <= 100e6
    assert any("independent" in one for one in result["remarks"])


def test_options_choose_the_targets_of_a_device(run: Run) -> None:
    words = ["--target", "toy", "--accuracy", "acc.csv", "--max-latency", "toy=30ms", "--budget", "6", "--json"]
    code, out, err = run(*BASE, *words, "--runtime", "tflite", "--threads", "1,4", "--resolve")
    assert code == 0, err
    targets = ["toy/tflite/cpu/fp32/t1/b1", "toy/tflite/cpu/fp32/t4/b1"]
    result = json.loads(out)
    assert [one["target"] for one in result["limits"]] == targets
    assert [one["measured_ms"] is not None for one in result["winner"]["latencies"]] == [True, True]
    words = ["--target", targets[0], "--accuracy", "acc.csv", "--max-latency-ms", "9", "--threads", "1"]
    code, _, err = run(*BASE, *words)
    assert code == 2
    assert f"{targets[0]} says it all" in err


def test_limits_of_memory_and_of_what_a_device_does_not_tell(run: Run) -> None:
    words = [*BASE, "--target", "toy", "--accuracy", "params", "--max-latency-ms", "30", "--budget", "8"]
    code, out, err = run(*words, "--max-peak-memory-mb", "2.2MB", "--json", "--out", "found")
    assert code == 0, err
    result = json.loads(out)
    assert [one["metric"] for one in result["limits"]] == ["latency_ms", "peak_memory_mb"]
    assert result["limits"][1]["max_mb"] == 2.2
    memory = result["winner"]["latencies"][1]
    assert memory["measured_mb"] <= memory["limit_mb"] == 2.2
    assert "measured_ms" not in memory
    rows = Lab("latlab.db").store.table(target=TOY, only=("arch", "peak_memory_mb")).set_index("arch")
    assert memory["measured_mb"] == pytest.approx(rows["peak_memory_mb"][result["winner"]["arch"]])
    assert (rows["peak_memory_mb"] > 2.2).any(), "it is a limit that some networks break"
    page = Path("found/search.html").read_text()
    assert "peak memory on" in page
    code, _, err = run(*words, "--max-energy-mj", "5")
    assert code == 2
    assert f"has no energy_mj of {TOY}" in err
    assert "peak_memory_mb" in err
    code, _, err = run(*words, "--max-energy-mj", "none")
    assert code == 2
    assert "--max-energy-mj takes a number above 0, in mj" in err


def test_a_target_that_fails_and_what_is_still_possible(run: Run) -> None:
    Path("inventory.yaml").write_text(
        "devices:\n  toy: {transport: simulated, kind: ideal}\n"
        "  weak: {transport: simulated, kind: ideal, faults: {schedule: [{kind: refuse, after_requests: 4}]}}\n"
    )
    words = [*BASE, "--accuracy", "acc.csv", "--max-latency-ms", "9", "--budget", "4", "--out", "found"]
    words += ["--target", "toy", "--target", "weak", "--policy", "quick"]
    code, _, err = run(*words)
    assert code in (1, 2), "it fails before it has a label"
    assert "Traceback" not in err
    weak = "weak/onnxruntime/cpu/fp32/t1/b1"
    assert f"what was measured on {TOY} is kept" in err
    assert f"The same command goes on once {weak} can be measured" in err
    labels = Lab("latlab.db").store.table(space="nasbench201")
    assert (labels["target"] == TOY).sum() > 0


def test_labels_without_a_device_are_not_measured(run: Run) -> None:
    limit = str(_imported(run, "watch/tflite/cpu/fp32/t1/b1", 1.0))
    code, out, err = run(*BASE, "--target", "watch", "--accuracy", "acc.csv", "--max-latency-ms", limit)
    assert code == 0, err
    assert "Nothing was measured: this is a prediction" in out
    assert "no device for the targets" in err
    code, out, _ = run(
        *BASE, "--target", "watch", "--accuracy", "acc.csv", "--max-latency-ms", limit, "--no-measure", "--json"
    )
    assert code == 0
    assert json.loads(out)["found"] == "not measured"
    code, _, err = run(*BASE, "--target", "watch", "--accuracy", "os:getcwd", "--max-latency-ms", limit)
    assert code == 2
    assert "os:getcwd failed: TypeError" in err
    code, _, err = run(*BASE, "--target", "watch", "--accuracy", "acc.csv", "--max-latency-ms", "0.001")
    assert code == 2
    assert "the fastest of these candidates takes" in err
    assert "or lower --confidence" not in err, "it would not help"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--target toy --max-latency-ms 9", "say where accuracies come from: --accuracy SOURCE"),
        ("--target toy --max-latency-ms 9 --accuracy none.csv", "there is no file none.csv"),
        ("--target toy --max-latency-ms 0 --accuracy macs", "--max-latency-ms takes a time above 0, not '0'"),
        ("--target toy --max-latency-ms=-1 --accuracy macs", "--max-latency-ms takes a time above 0, not '-1'"),
        ("--target toy --max-latency-ms nan --accuracy macs", "--max-latency-ms takes a time above 0, not 'nan'"),
        ("--target toy --max-latency-ms 1e-320 --accuracy macs", "A limit is a time of 1 ns to a day"),
        ("--target toy --accuracy macs", "there is no limit to search under"),
        ("--target toy --accuracy macs --max-peak-memory-mb 3", "there is no limit on the latency to search under"),
        ("--target toy --max-latency 9ms --accuracy macs", "names no target"),
        ("--target toy --max-latency toy=fast --accuracy macs", "--max-latency toy takes a time above 0, not 'fast'"),
        ("--target toy --max-latency-ms 9ms --accuracy macs --no-measure --predictor roost", f"{TOY} has no labels"),
        ("--target toy --max-latency-ms 9ms --accuracy macs --no-measure", f"no measurements of {TOY}"),
        ("--target toy --max-latency-ms 9 --accuracy macs --population 1", "evolution takes a population"),
        ("--target toy --max-latency-ms 9 --accuracy macs --export some.txt", "some.txt"),
        ("--target toy --max-latency-ms 9 --accuracy macs --predictor help --budget 9", "needs 10 networks of its own"),
        ("--target toy --max-latency toy=9ms --max-latency toy=8ms --accuracy macs", "gives toy two limits"),
        ("--target toy --max-latency mars=9ms --accuracy macs", "there is a limit for mars, which is no target"),
        ("--target toy --target pi --max-latency toy=9ms --accuracy macs", "pi has no limit"),
        ("--target toy --target toy --max-latency-ms 9 --accuracy macs", "a target is named twice"),
        ("--target toy --max-latency-ms 9 --accuracy macs --resolve --no-measure", "--no-measure forbids it"),
        ("--target toy --max-latency-ms 9 --accuracy macs --threads none", "--threads"),
        ("--target toy --max-latency-ms 9 --accuracy macs --runtime abacus", "abacus"),
        ("--max-latency-ms 9 --accuracy macs", "say for which target to search"),
        ("--target mars --max-latency-ms 9 --accuracy macs", "device 'mars' is not in the inventory"),
        ("--target toy --max-latency-ms 9 --accuracy macs --confidence 0", "confidence must be between 0 and 1"),
        ("--target toy --max-latency-ms 9 --accuracy macs --confidence 1.5", "confidence must be between 0 and 1"),
        ("--target toy --max-latency-ms 9 --accuracy macs --budget 0", "the budget must be at least 1, not 0"),
        ("--target toy --max-latency-ms 9 --accuracy macs --top 0", "top must be at least 1, not 0"),
        ("--target toy --max-latency-ms 9 --accuracy macs --max-macs lots", "--max-macs takes a number such as 300M"),
        ("--target toy --max-latency-ms 9 --accuracy macs --max-params -2", "must be a positive number"),
        ("--target toy --max-latency-ms 9 --accuracy macs --out some.txt", "some.txt"),
        ("--target toy --max-latency-ms 9 --accuracy macs --out /proc/found", "/proc/found"),
        ("--target toy --max-latency-ms 9 --accuracy macs --candidates no.txt", "no.txt"),
        ("--target toy --max-latency-ms 9 --accuracy macs --accuracy-column x", "--accuracy-column is for a table"),
        ("--target toy --max-latency-ms 9 --accuracy acc.csv --accuracy-column x", "acc.csv has no column 'x'"),
        ("--target toy --max-latency-ms 9 --accuracy os:nothing", "os:nothing cannot be imported"),
    ],
)
def test_one_clear_error_for_every_mistake(run: Run, words: str, message: str) -> None:
    base = [word for word in BASE if word not in ("--candidates", "some.txt") or "--candidates" not in words]
    base = base[:-2] if "--predictor" in words else base
    code, out, err = run(*base, *words.split())
    assert code == 2, err
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert not Path("latlab.db").exists() or Lab("latlab.db").store.labelled() == []


def test_networks_of_another_space_are_no_candidates(run: Run) -> None:
    Path("some.txt").write_text("0_1_2\n")
    code, _, err = run(*BASE, "--target", "toy", "--accuracy", "macs", "--max-latency-ms", "9")
    assert code == 2
    assert "some.txt" in err


def test_dead_edges_are_no_part_of_a_network_that_is_measured_without_them(run: Run) -> None:
    limit = str(2 * _imported(run, "watch/tflite/cpu/fp32/t1/b1", 1.0))
    dead = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    live = SPACE.canonical(SPACE.parse(dead))
    Path("some.txt").write_text(f"{dead}\n")
    words = ["--target", "watch", "--accuracy", "params", "--max-latency-ms", limit, "--no-measure", "--json"]
    found = [json.loads(run(*BASE, *words, *more)[1])["winner"] for more in ([], ["--as-written"])]
    for one, arch in zip(found, (live, SPACE.parse(dead)), strict=True):
        layers = SPACE.layers(arch)
        assert one["arch"] == dead
        assert one["macs"] == sum(layer.macs for layer in layers)
        assert one["params"] == sum(layer.params for layer in layers)
    assert found[0]["macs"] < found[1]["macs"]


def test_two_searches_in_one_folder(run: Run) -> None:
    limit = str(2 * _imported(run, "watch/tflite/cpu/fp32/t1/b1", 1.0))
    words = ["--target", "watch", "--accuracy", "macs", "--max-latency-ms", limit, "--no-measure", "--out", "found"]
    Path("found").mkdir()
    with locked(Path("found/.search").resolve(), "folder of a search"):
        code, _, err = run(*BASE, *words)
    assert code == 1
    assert "folder of a search" in err
    assert "is being written by another latlab" in err
    assert run(*BASE, *words)[0] == 0
