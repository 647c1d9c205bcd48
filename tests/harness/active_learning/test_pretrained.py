"""`latlab pretrain` as a person uses it, and folders that somebody has damaged or made."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from latlab.harness import Lab
from latlab.harness.active_learning.predictor_factory import PredictorOptions, predictor_for
from latlab.harness.active_learning.pretrained import Pretrained, pretrain, read_pretrained
from latlab.harness.cli.main import main
from latlab.harness.errors import BadInputError
from latlab.predictors import SourceDevice
from latlab.predictors.help.predictor import Help, Settings
from latlab.search_spaces import get

SPACE = get("fbnet")
GENES = SPACE.genes(SPACE.sample(60, 1))
BRIEF = {"episodes": 4}


def device(name: str, price: float) -> SourceDevice:
    return SourceDevice(name, GENES, 1 + price * GENES[:, :9].sum(axis=1) / 50 + GENES[:, 9:].sum(axis=1) / 100)


SOURCES = [device("a", 1.0), device("b", 2.0), device("pi/tflite/cpu/fp32/t4/b1", 3.0)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pretrain("help", SPACE, SOURCES, tmp_path / "trained", options=BRIEF)
    return tmp_path / "trained"


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["latlab", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_the_second_training_is_taken_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, known = pretrain("help", SPACE, SOURCES, tmp_path / "one", options=BRIEF)
    assert not known
    monkeypatch.setattr(Help, "pretrain", lambda *_: pytest.fail("it was trained again"))
    second, known = pretrain("help", SPACE, SOURCES, tmp_path / "two", options=BRIEF)
    assert known
    for name in ("help.json", "help.safetensors"):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()
    assert second.card.figures == first.card.figures


@pytest.mark.parametrize("change", ["seed", "options", "sources", "damage"])
def test_what_differs_is_trained_anew(change: str, tmp_path: Path) -> None:
    pretrain("help", SPACE, SOURCES, tmp_path / "one", options=BRIEF)
    if change == "damage":
        for path in (tmp_path / "cache" / "pretrained").glob("*/help.safetensors"):
            path.write_bytes(path.read_bytes()[:500])
    _, known = pretrain(
        "help",
        SPACE,
        SOURCES[:2] if change == "sources" else SOURCES,
        tmp_path / "two",
        options={"episodes": 5} if change == "options" else BRIEF,
        seed=int(change == "seed"),
    )
    assert not known
    assert read_pretrained(tmp_path / "two").predictor(SPACE).name == "help"


def test_from_a_table_to_the_bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.DataFrame({"arch": [arch.text for arch in SPACE.architectures(GENES)]})
    for one, name in zip((*SOURCES, device("t", 5.0)), ("a", "b", "c", "t"), strict=True):
        table[name] = one.latency_ms
    table.to_parquet(tmp_path / "table.parquet")
    path = str(tmp_path / "table.parquet")
    trained = tmp_path / "trained"
    train = ["pretrain", "--predictor", "maml:episodes=4", "--table", path, "--space", "fbnet", "--out", trained]
    code, out, err = run(monkeypatch, capsys, *train, "--sources", "a,b,c", "--json")
    assert (code, err) == (0, "")
    card = json.loads(out)
    assert [one["name"] for one in card["sources"]] == ["a", "b", "c"]
    assert card["options"] == {"episodes": 4}
    assert card["protocol"] == "table.parquet, protocol latlab"
    assert json.loads((trained / "pretraining.json").read_text())["sources_sha256"] == card["sources_sha256"]
    bench = ["bench", "predictors", "--table", path, "--space", "fbnet", "--samples", "5", "--seeds", "1"]
    bench += ["--source", "a,b", "--pretrained", trained, "--json"]
    code, out, err = run(monkeypatch, capsys, *bench, "--target", "t")
    assert (code, err) == (0, "")
    assert json.loads(out)["predictor"].startswith(f"maml:pretrained={trained}@")
    code, out, err = run(monkeypatch, capsys, *bench, "--target", "c")
    assert code == 2
    assert "was trained on labels of c" in err
    code, _, err = run(monkeypatch, capsys, *train, "--sources", "a,none such")
    assert code == 2
    assert "no column 'none such'" in err


def test_onboarding_and_prediction_with_a_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "inventory.yaml").write_text("devices:\n  toy: {transport: simulated, kind: pi4}\n")
    lab = Lab(tmp_path / "latlab.db", inventory=tmp_path / "inventory.yaml")
    options = PredictorOptions(pretrained=folder)
    result = lab.onboard("toy", space="fbnet", budget=12, predictor=options, out=tmp_path / "out")
    assert result.predictor == "help"
    assert result.sources == tuple(one.name for one in SOURCES)
    fitted = lab.predictor("toy", space="fbnet", predictor=options)
    assert fitted.card.sources_sha256 == read_pretrained(folder).card.sources_sha256
    for bad, words in (
        (PredictorOptions("ridge", pretrained=folder), "a predictor help, not ridge"),
        (PredictorOptions(sources="none", pretrained=folder), "trained already"),
        (PredictorOptions(facts={"cores": 4}, pretrained=folder), "takes no facts"),
    ):
        with pytest.raises(BadInputError, match=words):
            lab.predict("toy", space="fbnet", archs=[], predictor=bad)
    with pytest.raises(BadInputError, match="of fbnet, not of nasbench201"):
        lab.onboard("toy", space="nasbench201", budget=12, predictor=options)
    with pytest.raises(BadInputError, match="was trained on labels of pi/tflite"):
        lab.predict("pi/onnxruntime/cpu/fp32/t1/b1", space="fbnet", archs=[], predictor=options)


def test_an_untrained_command_is_instant_the_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latlab.predictors.help.predictor._paper", lambda space: Settings(episodes=4))
    made = [predictor_for(PredictorOptions("help"), SPACE, sources=SOURCES)]
    monkeypatch.setattr(Help, "_trained", lambda *_: pytest.fail("it was trained again"))
    made.append(predictor_for(PredictorOptions("help"), SPACE, sources=SOURCES))
    means = []
    for one in made:
        one.adapt(GENES[:12], SOURCES[0].latency_ms[:12])
        means.append(one.predict(GENES).mean_ms)
    np.testing.assert_allclose(means[0], means[1], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("pretraining.json", b"", "no card"),
        ("pretraining.json", b"[]", "no JSON object"),
        ("pretraining.json", b"{}", "its format is None"),
        ("pretraining.json", b"[" * 100_000, "no card"),
        ("pretraining.json", b"x" * 2_000_000, "too large"),
        ("pretraining.json", pickle.dumps({"a": 1}), "no card"),
        ("help.json", b"{", "pre-train it again"),
        ("help.json", b"{}", "pre-train it again"),
        ("help.safetensors", b"", "pre-train it again"),
        ("help.safetensors", pickle.dumps([1]), "pre-train it again"),
        ("help.safetensors", (1 << 62).to_bytes(8, "little") + b"{}", "pre-train it again"),
    ],
)
def test_damaged_folders(name: str, content: bytes, words: str, folder: Path) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(BadInputError) as told:
        read_pretrained(folder).predictor(SPACE)
    assert words in told.value.message
    assert "\n" not in told.value.message


@pytest.mark.parametrize("change", ["nan", "shape", "missing", "scale"])
def test_damaged_weights(change: str, folder: Path) -> None:
    path = folder / "help.safetensors"
    arrays = load_file(path)
    if change == "nan":
        arrays["weights/head3.weight"][:] = np.nan
    elif change == "shape":
        arrays["weights/head2.weight"] = np.zeros((3, 3), np.float32)
    elif change == "missing":
        del arrays["rates/head2.weight"]
    else:
        arrays["source_scales_ms"] = np.full((3, 2), np.nan)
    save_file(arrays, path)
    with pytest.raises(BadInputError):
        read_pretrained(folder).predictor(SPACE)


def test_folders_that_are_no_pretrained_predictor(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="there is no folder"):
        read_pretrained(tmp_path / "none")
    with pytest.raises(BadInputError, match=r"pretraining\.json is missing"):
        read_pretrained(tmp_path)
    shutil.copy(folder / "pretraining.json", tmp_path / "card.json")
    with pytest.raises(BadInputError) as told:
        read_pretrained(tmp_path)
    assert "--predictor-folder" in str(told.value.hint)
    card = json.loads((folder / "pretraining.json").read_text())
    for field, value in (("predictor", "os"), ("predictor", "ridge")):
        (folder / "pretraining.json").write_text(json.dumps({**card, field: value}))
        with pytest.raises(BadInputError):
            read_pretrained(folder).predictor(SPACE)


def test_nothing_is_lost_or_half_written(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").write_text("all of it")
    with pytest.raises(BadInputError, match="has other files"):
        pretrain("help", SPACE, SOURCES, other, options=BRIEF)
    assert (other / "chapter.tex").read_text() == "all of it"
    before = (folder / "pretraining.json").read_bytes()
    with pytest.raises(BadInputError, match="fewer than"):
        pretrain("multipredict", SPACE, [SourceDevice("one", GENES[:1], np.ones(1))], folder)
    with pytest.raises(BadInputError, match="no source devices"):
        pretrain("help", SPACE, [], folder)
    with pytest.raises(BadInputError, match="takes a moment"):
        pretrain("ridge", SPACE, SOURCES, folder)
    with pytest.raises(BadInputError, match="unknown predictor"):
        pretrain("nothing", SPACE, SOURCES, folder)
    assert (folder / "pretraining.json").read_bytes() == before


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LATLAB_CACHE", str(tmp_path / "file"))
    found, known = pretrain("help", SPACE, SOURCES, tmp_path / "out", options=BRIEF)
    assert not known
    assert isinstance(found, Pretrained)
