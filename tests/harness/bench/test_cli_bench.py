"""Tests of `latlab bench` as a person uses it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from latlab.harness.bench.predictor_spec import parse_specs
from latlab.harness.bench.tables import read_table
from latlab.harness.bench.tasks import PUBLISHED, published_task
from latlab.harness.cli.main import main
from latlab.harness.errors import BadInputError
from latlab.predictors import Predictor

FIELDS = {
    "task", "predictor", "samples", "selection", "spearman_mean", "spearman_std", "kendall_mean", "mape_percent",
    "within_10_percent", "coverage_90", "per_device", "pretrain_s", "adapt_s", "predict_per_s", "protocol", "seeds",
    "source_samples",
}  # fmt: skip


class Bench:
    """A function that runs the command in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch

    def __call__(self, *words: object) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["latlab", "bench", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        return int(ended.value.code or 0), out, err


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.delenv("LATLAB_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("latlab.harness.bench.evaluate.TIMED", 300)
    return Bench(capsys, monkeypatch)


def on_table(table_file: Path) -> list[object]:
    return ["predictors", "--table", table_file, "--space", "fbnet", "--source", "fast,launch", "--target", "slow,odd",
            "--predictor", "ridge", "--seeds", "2", "--samples", "5,10"]  # fmt: skip


def test_a_table_of_ones_own(bench: Bench, table_file: Path) -> None:
    code, out, err = bench(*on_table(table_file), "--json")
    records = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [record["samples"] for record in records] == [5, 10]
    assert all(set(record) >= FIELDS for record in records)
    ten = records[1]
    assert list(ten["per_device"]) == ["slow", "odd"]
    devices = [one["spearman"] for one in ten["per_device"].values()]
    assert ten["spearman_mean"] == pytest.approx(np.mean(devices))
    assert ten["spearman_mean"] > 0.9
    assert ten["spearman_std"] > 0
    assert 0 < ten["mape_percent"] < 20
    assert 50 < ten["coverage_90"] <= 100

    code, out, err = bench(*on_table(table_file), "--selection", "designed", "--ceiling")
    assert code == 0
    assert "flexible fit" in out
    assert "ridge designed" in out
    assert "Spearman" in out
    assert "1/1 table ridge" in err


def test_what_is_finished_is_not_done_again(
    bench: Bench, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results.jsonl"
    _, first, _ = bench(*on_table(table_file), "--json", "--out", results)
    with results.open("a") as file:  # cut off while it was written
        file.write('{"task": "ta')
    monkeypatch.setattr("latlab.harness.bench.run.evaluate", lambda unit: pytest.fail("computed again"))
    code, again, _ = bench(*on_table(table_file), "--json", "--out", results)
    assert code == 0
    assert [json.loads(line) for line in again.splitlines()] == [json.loads(line) for line in first.splitlines()]
    results.write_text("{}\n")
    code, _, err = bench(*on_table(table_file), "--out", results)
    assert code == 2
    assert f"{results}, line 1" in err
    code, _, err = bench(*on_table(table_file), "--out", tmp_path / "nowhere" / "results.jsonl")
    assert code == 2
    assert "cannot write" in err


def test_a_predictor_that_fails_does_not_take_the_others_with_it(
    bench: Bench, table_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Predictor, sources: object) -> None:
        raise FloatingPointError("no luck")

    monkeypatch.setattr("latlab.predictors.ridge.Ridge.pretrain", fail)
    code, out, err = bench(*on_table(table_file), "--json")
    assert (code, out) == (1, "")
    assert "ridge on table: FloatingPointError: no luck (test_cli_bench.py, line" in err


def test_two_processes_agree_with_one(bench: Bench, table_file: Path) -> None:
    def figures(*words: object) -> list[float]:
        code, out, err = bench(*on_table(table_file), "--json", *words)
        assert (code, err) == (0, "")
        return [json.loads(line)["spearman_mean"] for line in out.splitlines()]

    assert figures("--jobs", "2") == pytest.approx(figures())


def test_tasks_are_made_and_read_back(bench: Bench, table_file: Path, tmp_path: Path) -> None:
    out_file = tmp_path / "tasks.json"
    words = ["tasks", "--table", table_file, "--space", "fbnet", "--sources", "2", "--targets", "2"]
    code, out, _ = bench(*words, "--out", out_file, "--json")
    made = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert made[0]["correlation"] <= made[-1]["correlation"]
    assert not set(made[0]["source"]) & set(made[0]["target"])
    code, out, _ = bench("predictors", "--tasks", out_file, "--predictor", "ridge", "--samples", "0,5", "--seeds", "1",
                         "--json")  # fmt: skip
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert {record["task"] for record in records} == {one["task"] for one in made}
    zero = records[0]
    assert (zero["samples"], zero["spearman_mean"], zero["per_device"]) == (0, None, {}), "ridge cannot do without"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "LATLAB_DATA"),
        (("--data", "/nowhere"), "/nowhere/nasbench201_latency_ms.parquet"),
        (("--data", "/nowhere", "--tasks", "ND,XX"), "nasbench201_latency_ms.parquet"),
        (("--tasks", "missing.json"), "cannot read missing.json"),
        (("--predictor", "nobody"), "installed are"),
        (("--predictor", "ridge:synthetic=off"), "no option 'synthetic'"),
        (("--samples", "5,ten"), "5,ten"),
        (("--source", "a"), "--table"),
        (("--table", "x.parquet"), "--space"),
        (("--table", "x.parquet", "--space", "fbnet", "--source", "a", "--target", "a"), "both"),
        (("--table", "x.parquet", "--space", "fbnet", "--source", "a", "--target", "b"), "x.parquet"),
        (("--protocol", "help", "--selection", "designed"), "protocol help"),
    ],
)
def test_what_is_wrong_is_said(bench: Bench, words: tuple[str, ...], said: str) -> None:
    code, _, err = bench("predictors", *words)
    assert code == 2
    assert said in err


def test_a_column_that_is_not_there(bench: Bench, table_file: Path) -> None:
    words = on_table(table_file)
    words[words.index("slow,odd")] = "slow,even"
    code, _, err = bench(*words)
    assert code == 2
    assert "'even'" in err
    assert "launch" in err


@pytest.mark.parametrize("wrong", [-1.0, 0.0, np.inf])
def test_a_latency_that_is_none(table_file: Path, tmp_path: Path, wrong: float) -> None:
    frame = pd.read_parquet(table_file)
    frame.loc[7, "slow"] = wrong
    path = tmp_path / "wrong.csv"
    frame.to_csv(path, index=False)
    with pytest.raises(BadInputError, match=r"wrong\.csv, line 9.*slow"):
        read_table(path, "fbnet")


def test_options_of_predictors() -> None:
    assert [spec.text for spec in parse_specs("ridge, ridge")] == ["ridge", "ridge"]
    with pytest.raises(BadInputError, match="no predictor before"):
        parse_specs("a=1,ridge")
    with pytest.raises(BadInputError, match="no option"):
        parse_specs("ridge:robust=off,noise=0.5")
    with pytest.raises(BadInputError, match="no option 'settings'"):  # which no text can give
        parse_specs("help:settings=1")
    with pytest.raises(BadInputError, match="steps is given twice"):
        parse_specs("help:steps=0,steps=1")
    assert parse_specs("help:episodes=5,trimmed=0,modulate=off,checkpoint=a.pt")[0].name == "help"


@pytest.mark.parametrize(
    ("wrong", "wanted"),
    [
        *((f"help:episodes={value}", "a whole number") for value in ("x", "", "-1", "1e99", "on")),
        *((f"ofa-mlp:rate={value}", "a number") for value in ("nan", "inf", "-0.1", "off")),
        ("help:condition=3", "on or off"),
        ("help:checkpoint=", "a text"),
    ],
)
def test_an_option_of_a_predictor_with_a_wrong_value(wrong: str, wanted: str) -> None:
    name, _, option = wrong.partition(":")
    with pytest.raises(BadInputError, match=rf"predictor {name}: {option.partition('=')[0]} is .* must be {wanted}"):
        parse_specs(wrong)


@pytest.mark.data
def test_published_tasks_have_their_columns(data_folder: Path) -> None:
    for name in PUBLISHED:
        table = published_task(name, data_folder).table()
        assert len(table.genes) > 1000, name
