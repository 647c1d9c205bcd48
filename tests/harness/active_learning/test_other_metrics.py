"""Energy and memory are predicted as latencies are, from the target's own labels, on a simulated device."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from latlab.harness import Lab
from latlab.harness.active_learning.fitted_predictor import load_predictor
from latlab.harness.active_learning.predictor_factory import PredictorOptions
from latlab.harness.cli.main import main
from latlab.harness.errors import BadInputError
from latlab.predictors.common.metrics import spearman
from latlab.search_spaces import get

SPACE = get("nasbench201")
TARGET = "toy/onnxruntime/cpu/fp32/t1/b1"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A lab with labels of a simulated device that meters energy, and of one that does not."""
    folder = tmp_path_factory.mktemp("metrics")
    devices = "toy: {transport: simulated, kind: pi4, pace: 0}, dull: {transport: simulated, kind: ideal}"
    (folder / "inventory.yaml").write_text(f"devices: {{{devices}}}\n")
    lab = Lab(folder / "lab.db", inventory=folder / "inventory.yaml")
    lab.measure(TARGET, space="nasbench201", count=30, policy="quick")
    lab.measure("dull/onnxruntime/cpu/fp32/t1/b1", space="nasbench201", count=4, policy="quick")
    return lab


@pytest.mark.parametrize("metric", ["energy_mj", "peak_memory_mb"])
def test_a_metric_of_networks(lab: Lab, metric: str, tmp_path: Path) -> None:
    rows = lab.store.table(target=TARGET)
    unit = metric.rpartition("_")[2]
    names = ["arch", metric, f"std_{unit}", f"lower_{unit}", f"upper_{unit}", "measured", f"measured_{unit}"]
    table = lab.predict(TARGET, archs=list(rows["arch"]), metric=metric).table
    assert list(table) == [*names, f"stderr_{unit}"]
    np.testing.assert_allclose(table[f"measured_{unit}"], rows[metric])
    assert spearman(table[metric].to_numpy(), rows[metric].to_numpy()) > 0.9
    inside = (table[f"lower_{unit}"] <= rows[metric]) & (rows[metric] <= table[f"upper_{unit}"])
    assert inside.mean() >= 0.8
    fitted = lab.predictor(TARGET, metric=metric)
    assert lab.predictor(TARGET, metric=metric) is fitted
    assert lab.predictor(TARGET) is not fitted
    fitted.save(tmp_path / "p")
    loaded = load_predictor(tmp_path / "p")
    assert loaded.card.metric == metric
    assert metric in loaded.table(list(rows["arch"][:2]))
    assert metric in (tmp_path / "p" / "README.md").read_text()
    with pytest.raises(BadInputError, match="only predictors of latency"):
        loaded.to_onnx(tmp_path / "p.onnx")


def test_what_a_target_lacks_is_said(lab: Lab) -> None:
    with pytest.raises(BadInputError, match="no energy_mj of dull") as failure:
        lab.predict("dull", archs=SPACE.sample(1, 0), metric="energy_mj")
    assert "peak_memory_mb" in (failure.value.hint or "")
    with pytest.raises(BadInputError, match="is no metric that is predicted"):
        lab.predict(TARGET, archs=SPACE.sample(1, 0), metric="watts")
    with pytest.raises(BadInputError, match="no energy_mj"):
        lab.predict(TARGET, archs=SPACE.sample(1, 0), metric="energy_mj", predictor=PredictorOptions(sources="dull"))


def test_a_card_with_an_unknown_metric_is_refused(lab: Lab, tmp_path: Path) -> None:
    lab.predictor(TARGET, metric="energy_mj").save(tmp_path / "p")
    card = tmp_path / "p" / "card.json"
    card.write_text(card.read_text().replace("energy_mj", "energy_kwh"))
    with pytest.raises(BadInputError, match="its metric is 'energy_kwh'"):
        load_predictor(tmp_path / "p")


def test_on_the_command_line(lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def said(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["latlab", "predict", "--store", str(lab.store.path), *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    code, out, err = said("--target", TARGET, "--metric", "energy_mj", "--all", "--top", "3")
    assert code == 0, err
    assert "Predicted energy_mj on" in out
    assert " mJ, 90 % from" in out
    code, out, _ = said("--target", TARGET, "--metric", "energy_mj", "--all", "--sort", "--json")
    values = [json.loads(line)["energy_mj"] for line in out.splitlines()]
    assert values == sorted(values)
    limit = values[len(values) // 2]  # the smallest predictions are alike: networks without a path
    _, out, _ = said("--target", TARGET, "--metric", "energy_mj", "--all", "--under", f"{limit}mJ", "--json")
    assert len(out.splitlines()) == sum(value < limit for value in values)
    code, _, err = said("--target", TARGET, "--metric", "energy_mj", "--all", "--under", "5ms")
    assert code == 2
    assert "--under takes a number above 0, in mj" in err
    code, _, err = said("--target", TARGET, "--metric", "energy", "--all")
    assert code == 2
    assert "energy_mj" in err
