"""Tests of `latlab encode`, `--acquisition` and `--encoding-table` as a person uses them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from latlab.harness import Lab
from latlab.harness.cli.main import main
from latlab.harness.cli.options import ENCODING_NAMES
from latlab.harness.encoding import compute
from latlab.harness.errors import BadInputError
from latlab.predictors.encodings import encode as encode_module
from latlab.predictors.encodings.names import ENCODINGS, PROXIES
from latlab.search_spaces import get

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setenv("LATLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["latlab", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.mark.slow
def test_proxies_in_two_processes_and_again_from_the_cache(run: Run, tmp_path: Path) -> None:
    words = ("encode", "--space", "nasbench201", "--count", 3, "--jobs", 2, "--json")
    code, out, _ = run(*words, "--out", "a.parquet")
    assert code == 0
    assert json.loads(out) | {"seconds": 0} == {
        "file": "a.parquet", "rows": 3, "columns": ["arch", *PROXIES], "computed": 3, "seconds": 0
    }  # fmt: skip
    first = pd.read_parquet(tmp_path / "a.parquet")
    assert first["arch"].tolist() == [arch.text for arch in get("nasbench201").sample(3, 0)]
    code, out, _ = run(*words, "--out", "b.csv")
    assert (code, json.loads(out)["computed"]) == (0, 0)
    assert np.allclose(pd.read_csv(tmp_path / "b.csv")[list(PROXIES)], first[list(PROXIES)], equal_nan=True)


def test_what_a_killed_run_has_finished_is_not_run_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []

    def one(space: object, arch: object, **more: object) -> dict[str, float]:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(arch)
        return dict.fromkeys(PROXIES, 1.0)

    monkeypatch.setattr(encode_module, "zero_cost_proxies", one)
    space = get("nasbench201")
    genes = space.genes(space.sample(4, 0))
    with pytest.raises(KeyboardInterrupt):
        compute.encode_networks(space, genes, "zcp")
    done.append(None)
    found = compute.encode_networks(space, genes, "zcp")
    assert found.computed == 2


def test_names_in_the_help_are_all_encodings() -> None:
    assert tuple(ENCODING_NAMES.split(", ")) == ENCODINGS


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--encoding", "zcps", "--count", 3), "unknown encoding 'zcps'; there are: totals, costs, zcp"),
        (("--count", 3, "--genes", "g.txt"), "in one way"),
        ((), "in one way"),
        (("--count", 99_999), "15625 architectures"),
        (("--genes", "none.txt"), "cannot read none.txt"),
        (("--count", 10**12), "at most 1,000,000"),
    ],
)
def test_bad_input_is_one_error(run: Run, words: tuple[object, ...], says: str) -> None:
    code, out, err = run("encode", "--space", "nasbench201", *words, "--out", "o.csv")
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) <= 3  # what is wrong, what to do, where to read more


@pytest.mark.parametrize(
    ("space", "encoding", "says"),
    [("hat-decoder", "zcp", "no gradient passes a choice"), ("hat-encoder", "arch2vec", "by no graph")],
)
def test_a_space_without_what_an_encoding_reads(run: Run, space: str, encoding: str, says: str) -> None:
    code, _, err = run("encode", "--space", space, "--encoding", encoding, "--count", 2, "--out", "o.csv")
    assert code == 2
    assert says in err


def test_a_folder_that_is_not_there_fails_before_anything_is_run(run: Run, tmp_path: Path) -> None:
    code, _, err = run("encode", "--space", "nasbench201", "--count", 2, "--out", "no/o.csv")
    assert code == 2
    assert "cannot write no/o.csv" in err
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("LATLAB_CACHE", str(tmp_path / "cache"))
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text("devices:\n  toy: {transport: simulated, kind: ideal}\n")
    return Lab(tmp_path / "latlab.db", inventory=inventory, cache=tmp_path / "artifacts")


@pytest.mark.slow
def test_onboarding_measures_what_a_sampler_has_chosen(lab: Lab, tmp_path: Path) -> None:
    how = {"space": "nasbench201", "policy": "quick", "out": tmp_path / "out", "acquisition": "kmeans:totals"}
    lab.onboard("toy", budget=4, **how)
    first = lab.store.table()["arch"].tolist()
    assert len(set(first)) == 4
    lab.onboard("toy", budget=4, **how)
    assert lab.store.table()["arch"].tolist() == first


@pytest.mark.slow
def test_measure_takes_a_sampler_and_a_table(lab: Lab, tmp_path: Path) -> None:
    archs = get("nasbench201").sample(12, 4)
    frame = pd.DataFrame({"arch": [arch.text for arch in archs], "x": np.repeat([0.0, 5.0, 9.0], 4)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    how = {"space": "nasbench201", "policy": "quick", "count": 3}
    rows = lab.measure("toy", acquisition="kmeans:zcp", encoding_table=tmp_path / "t.csv", **how).rows
    places = frame["arch"].tolist()
    assert sorted(places.index(arch) // 4 for arch in rows["arch"]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"acquisition": "latency-oracle"}, "by the latencies that are to be measured"),
        ({"acquisition": "nonsense"}, "unknown sampler"),
        ({"acquisition": "params", "encoding_table": "t.csv"}, "reads no encodings"),
        ({"acquisition": "kmeans:zcp", "encoding_table": "none.csv"}, "cannot read the table"),
        ({"acquisition": "latency-quantiles"}, "the sources have measured 0 networks"),
    ],
)
def test_a_sampler_that_cannot_choose_is_named(lab: Lab, more: dict[str, str], says: str) -> None:
    with pytest.raises(BadInputError, match=says):
        lab.measure("toy", space="nasbench201", count=3, **more)
    with pytest.raises(BadInputError, match=says):
        lab.onboard("toy", space="nasbench201", budget=3, **more)


def _latencies(space: str, count: int, path: Path) -> tuple[pd.DataFrame, np.random.Generator]:
    """Write a table of random latencies on three devices; return it, and a generator for more columns."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"arch": [arch.text for arch in get(space).sample(count, 0)]})
    for device in "abc":
        frame[device] = rng.uniform(1, 2, count)
    frame.to_csv(path, index=False)
    return frame, rng


def test_the_bench_reads_a_table_of_encodings(run: Run, tmp_path: Path) -> None:
    frame, rng = _latencies("nasbench201", 60, tmp_path / "l.csv")
    codes = frame[["arch"]].assign(snip=rng.uniform(1, 2, 60), plain=rng.standard_normal(60))
    codes.to_csv(tmp_path / "e.csv", index=False)
    words = ["bench", "predictors", "--table", "l.csv", "--space", "nasbench201", "--source", "a,b", "--target", "c"]
    words += ["--samples", "5", "--seeds", "1", "--json", "--encoding-table", "e.csv"]
    code, out, err = run(*words, "--selection", "cosine:zcp", "--predictor", "ridge")
    assert (code, err) == (0, "")
    assert json.loads(out)["encoding_table"] == "e.csv"
    code, out, err = run(*words, "--selection", "nonsense")
    assert code == 2
    assert "unknown sampler" in err
    codes.iloc[:3].to_csv(tmp_path / "e.csv", index=False)
    code, out, err = run(*words, "--selection", "cosine:zcp", "--predictor", "ridge")
    assert code == 2
    assert "has 3 of the architectures to choose from, too few for 5" in err


def test_nasflat_reads_a_table_that_lacks_most_of_the_space(run: Run, tmp_path: Path) -> None:
    """Scores are standardised over the table's architectures, so that no other one is needed."""
    frame, rng = _latencies("fbnet", 40, tmp_path / "l.csv")
    frame[["arch"]].assign(snip=rng.uniform(1, 2, 40), zen=1.0).to_csv(tmp_path / "e.csv", index=False)
    words = ["bench", "predictors", "--table", "l.csv", "--space", "fbnet", "--source", "a,b", "--target", "c"]
    words += ["--samples", "5", "--seeds", "1", "--source-samples", "8", "--json"]
    for predictor in ("nasflat:encoding=zcp", "multipredict:encoding=zcp"):
        code, out, err = run(*words, "--encoding-table", "e.csv", "--predictor", predictor)
        assert (code, err) == (0, "")
        assert json.loads(out)["predictor"] == predictor
    code, _, err = run(*words, "--predictor", "nasflat:encoding=zcps")
    assert code == 2
    assert "unknown encoding 'zcps'" in err
