"""Any model is predicted from measured operators; the whole way on a simulated device."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from latlab.harness import Lab
from latlab.harness.cli.main import main
from latlab.harness.errors import BadInputError
from latlab.harness.exporters import get_exporter
from latlab.harness.models.input_options import InputOptions
from latlab.search_spaces import get

TOY = "toy/onnxruntime/cpu/fp32/t1/b1"
SPACE = get("operators")
BUDGET = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store of an onboarding on operators, and a model."""
    folder = tmp_path_factory.mktemp("operators")
    (folder / "inventory.yaml").write_text("devices:\n  toy: {transport: simulated, kind: ideal}\n")
    result = lab_in(folder).onboard(TOY, space="operators", budget=BUDGET, out=folder / "out")
    assert result.measured == BUDGET
    arch = SPACE.parse("bottleneck|c64|o128|s28|k3|t1|x2")
    get_exporter("onnx").export(SPACE.build(arch), torch.zeros(1, *SPACE.input_shape(arch)), folder / "net.onnx")
    return folder


def lab_in(folder: Path, store: str = "latlab.db") -> Lab:
    return Lab(folder / store, inventory=folder / "inventory.yaml", cache=folder / "cache")


def test_the_design_is_measured_in_its_order(folder: Path) -> None:
    assert set(lab_in(folder).store.table()["arch"]) == {arch.text for arch in SPACE.designed()[:BUDGET]}


def test_a_model_file_is_predicted(folder: Path) -> None:
    lab = lab_in(folder)
    found = lab.predict_model("toy", folder / "net.onnx")
    measured = (
        lab.measure(TOY, space="operators", archs=["bottleneck|c64|o128|s28|k3|t1|x2"]).rows["latency_ms"].iloc[-1]
    )
    assert found.target == TOY
    assert found.simulated
    assert found.labels == {"operators": BUDGET}
    assert found.lower_ms < measured < found.upper_ms
    assert 0.5 < found.latency_ms / measured < 2
    assert max(found.shares, key=lambda kind: found.shares[kind]) == "pointwise"
    assert found.macs == sum(layer.macs for layer in SPACE.layers(SPACE.parse("bottleneck|c64|o128|s28|k3|t1|x2")))
    assert not found.unseen
    assert found.remarks == ()


def test_a_module_is_a_model_and_what_was_never_measured_is_named(folder: Path) -> None:
    module = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Softmax(1), nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 1))
    found = lab_in(folder).predict_model(TOY, module, inputs=InputOptions(inputs=("1x8x16x16",)))
    assert set(found.unseen) == {"Resize"}
    assert "never measured" in found.remarks[0]
    assert found.upper_ms / found.lower_ms > 2


def test_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def said(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["latlab", "predict", "--store", str(folder / "latlab.db"), *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    monkeypatch.setenv("LATLAB_CACHE", str(folder / "other cache"))
    monkeypatch.setattr("latlab.harness.lab.base.cache_folder", lambda: folder / "cache")
    model = str(folder / "net.onnx")
    code, out, _ = said("--target", TOY, "--model", model)
    assert code == 0
    assert "90 % from" in out
    assert "pointwise" in out
    assert "of operators" in out
    code, out, _ = said("--target", TOY, "--model", model, "--json")
    assert json.loads(out)["target"] == TOY
    code, _, err = said("--target", TOY, "--model", model, "--all")
    assert code == 2
    assert "--all is not for --model" in err
    code, _, err = said("--model", model)
    assert "--target TARGET" in err
    code, _, err = said("--target", TOY, "--dim", "n=3", "--all")
    assert "options of --model" in err


def test_without_measurements_it_says_what_to_measure(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(BadInputError, match="no measurements of toy") as failure:
        Lab(tmp_path / "empty.db").predict_model(TOY, folder / "net.onnx")
    assert "--space operators" in (failure.value.hint or "")


def test_another_precision_or_batch_is_refused(folder: Path) -> None:
    with pytest.raises(BadInputError, match="runs at batch 1"):
        lab_in(folder).predict_model("toy/onnxruntime/cpu/fp32/t1/b4", folder / "net.onnx")
