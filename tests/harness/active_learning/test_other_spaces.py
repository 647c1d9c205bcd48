"""Labels of a target in other spaces: which are used, who says so, and when predictors are fitted again."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from latlab.harness.active_learning.fitted_predictor import PredictorCard, load_predictor
from latlab.harness.active_learning.other_spaces import other_spaces
from latlab.harness.active_learning.predictor_factory import PredictorOptions
from latlab.harness.cli.main import main
from latlab.harness.errors import BadInputError
from latlab.harness.fleet.jobs import RunListener
from latlab.harness.lab import Lab
from latlab.predictors.roost import Roost, joint_prior
from latlab.search_spaces import get

CELLS, LAYERS = get("nasbench201"), get("fbnet")
TARGET = "toy/onnxruntime/cpu/fp32/t1/b1"
ALONE = PredictorOptions(spaces_from="none")


@pytest.fixture(scope="module", autouse=True)
def few_synthetic_devices() -> Iterator[None]:
    """A joint prior that is made quickly: nothing here depends on how good it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joint_prior, "DEVICES", 400)
        joint_prior.joint_prior.cache_clear()
        yield
    joint_prior.joint_prior.cache_clear()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A lab with labels of one simulated device in two spaces, and one label of a block."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "inventory.yaml").write_text("devices: {toy: {transport: simulated, kind: ideal}}")
    lab = Lab(folder / "lab.db", inventory=folder / "inventory.yaml")
    lab.measure("toy", space="nasbench201", count=12, policy="quick")
    lab.measure("toy", space="fbnet", count=4, policy="quick")
    lab.measure("toy", space="fbnet", blocks=True, count=1, policy="quick")
    return lab


def run(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["latlab", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_which_labels_there_are(lab: Lab) -> None:
    (one,) = other_spaces(lab.store, TARGET, LAYERS)
    assert one.space is CELLS
    assert one.genes.shape == (12, CELLS.num_genes)
    np.testing.assert_array_equal(one.genes, CELLS.canonical_genes(one.genes))
    assert sorted(one.latency_ms) == sorted(lab.store.table(target=TARGET, space="nasbench201")["latency_ms"])
    assert [one.space for one in other_spaces(lab.store, TARGET, CELLS, "fbnet")] == [LAYERS]
    assert other_spaces(lab.store, TARGET, LAYERS, "none") == []
    assert other_spaces(lab.store, "somebody/onnxruntime/cpu/fp32/t1/b1", LAYERS) == []


@pytest.mark.parametrize(
    ("which", "why"),
    [
        ("ofa-mobilenetv3", "in another space ofa-mobilenetv3 there are no labels of"),
        (["fbnet"], "in another space fbnet"),  # it is the predicted space itself
        ("fbnet-blocks", "in another space fbnet-blocks"),
        ("", "names no search spaces"),
        ("all,nasbench201", "names no search spaces"),
    ],
)
def test_names_that_are_wrong(lab: Lab, which: str, why: str) -> None:
    with pytest.raises(BadInputError, match=why):
        other_spaces(lab.store, TARGET, LAYERS, which)


def test_a_prediction_uses_them_and_says_so(lab: Lab, tmp_path: Path) -> None:
    archs = LAYERS.sample(50, 8)
    with_both = lab.predictor("toy", space="fbnet")
    assert with_both.card.other_spaces.keys() == {"nasbench201"}
    assert lab.predict("toy", space="fbnet", archs=archs).other_spaces == with_both.card.other_spaces
    alone = lab.predictor("toy", space="fbnet", predictor=ALONE)
    assert alone.card.other_spaces == {}
    assert not np.allclose(alone(archs), with_both(archs))
    with_both.save(tmp_path / "p")
    loaded = load_predictor(tmp_path / "p")
    assert loaded.card == PredictorCard.from_json(with_both.card.to_json())
    np.testing.assert_allclose(loaded(archs), with_both(archs), rtol=1e-9)
    assert "uses also" in (tmp_path / "p" / "README.md").read_text()
    card = tmp_path / "p" / "card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"other_spaces": {"nasbench201": "many"}}))
    with pytest.raises(BadInputError, match="its other_spaces hold 'many'"):
        load_predictor(tmp_path / "p")


def test_without_them_a_space_is_predicted_as_before(lab: Lab) -> None:
    rows = lab.store.table(target=TARGET, space="fbnet")
    plain = Roost(LAYERS)
    plain.adapt([LAYERS.parse(text) for text in rows["arch"]], rows["latency_ms"], rows["stderr_ms"])
    archs = LAYERS.sample(50, 8)
    np.testing.assert_array_equal(
        lab.predictor("toy", space="fbnet", predictor=ALONE)(archs), plain.predict(archs).mean_ms
    )


def test_a_predictor_that_cannot_use_them(lab: Lab) -> None:
    ridge = PredictorOptions("ridge")
    assert lab.predictor("toy", space="fbnet", predictor=ridge).card.other_spaces == {}
    with pytest.raises(BadInputError, match="ridge can learn nothing for fbnet from labels of nasbench201"):
        lab.predictor("toy", space="fbnet", predictor=PredictorOptions("ridge", spaces_from="nasbench201"))


def test_a_space_without_labels_is_predicted_from_another(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    space = get("fbnet-imagenet")
    arch = space.sample(1, 0)[0].text
    words = ["predict", "--store", str(lab.store.path), "--target", TARGET, "--space", space.name, "--arch", arch]
    code, out, err = run([*words, "--spaces-from", "fbnet"], monkeypatch, capsys)
    assert code == 0
    assert "uses also 4 labels of fbnet" in " ".join(out.split())
    assert "this comes from other spaces" in " ".join(err.split())
    code, out, err = run([*words, "--spaces-from", "none"], monkeypatch, capsys)
    assert code == 0
    assert "uses also" not in out
    assert "this comes from other devices and the prior only" in " ".join(err.split())


def test_an_onboarding_uses_them_and_new_labels_elsewhere_refit(lab: Lab, tmp_path: Path) -> None:
    before, alone = lab.predictor("toy", space="fbnet"), lab.predictor("toy", space="fbnet", predictor=ALONE)
    assert lab.predictor("toy", space="fbnet") is before
    lab.measure("toy", space="nasbench201", count=14, policy="quick")
    after = lab.predictor("toy", space="fbnet")
    assert sum(after.card.other_spaces.values()) > sum(before.card.other_spaces.values())
    assert lab.predictor("toy", space="fbnet", predictor=ALONE) is alone

    said: list[str] = []
    result = lab.onboard(
        "toy", space="fbnet", budget=3, policy="quick", out=tmp_path / "out", listener=RunListener(announce=said.append)
    )
    assert result.other_spaces == after.card.other_spaces
    assert any("uses also" in line and "labels of nasbench201" in line for line in said)
    assert load_predictor(result.predictor_folder).card.other_spaces == result.other_spaces
    assert "uses also" in result.report.read_text()
