"""Tests of what is read from TFLite files."""

from __future__ import annotations

from pathlib import Path

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema

from latlab.harness.errors import BadInputError
from latlab.harness.exporters import ExportRequest
from latlab.harness.exporters.pipeline import produce
from latlab.harness.models.delegates import delegates_of
from latlab.harness.models.read import read_model
from latlab.search_spaces import get


@pytest.mark.parametrize("name", ["nasbench201", "fbnet", "ofa-mobilenetv3"])
def test_macs_are_those_of_the_space(tmp_path: Path, name: str) -> None:
    space = get(name)
    (arch,) = space.sample(1, 3)
    path = tmp_path / "net.bin"
    produce(ExportRequest(name, space.canonical(arch).text, "tflite"), path)
    found = read_model(path)
    assert found.macs == sum(layer.macs for layer in space.layers(arch))
    assert (found.format, found.precision) == ("tflite", "fp32")
    channels, height, width = space.input_shape(arch)
    assert (found.inputs[0].sides, found.inputs[0].dtype) == ((1, height, width, channels), "float32")
    assert delegates_of(found)[0] == "XNNPACK (CPU): all operators"


def _changed(path: Path, change: object) -> Path:
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    assert callable(change)
    change(model)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    path = tmp_path / "net.tflite"
    produce(ExportRequest("nasbench201", get("nasbench201").sample(1, 0)[0].text, "tflite"), path)
    return path


def test_an_open_batch(cell: Path) -> None:
    def opened(model: schema.ModelT) -> None:
        graph = model.subgraphs[0]
        graph.tensors[graph.inputs[0]].shapeSignature = [-1, 32, 32, 3]

    found = read_model(_changed(cell, opened))
    assert found.inputs[0].sides == (None, 32, 32, 3)
    assert found.macs  # of one image


def test_operators_that_no_delegate_has(cell: Path) -> None:
    def foreign(model: schema.ModelT) -> None:
        model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = 32
        model.operatorCodes[0].customCode = b"Mine\x1b[31m"

    found = read_model(_changed(cell, foreign))
    assert any(name.startswith("custom Mine") for name in found.operators)
    assert "all but custom Mine" in delegates_of(found)[0]
    assert found.notes


@pytest.mark.parametrize("at", [8, 60, 400, 4000])
def test_damaged_files_are_named(cell: Path, at: int) -> None:
    content = bytearray(cell.read_bytes())
    del content[at:]
    cell.write_bytes(content)
    with pytest.raises(BadInputError, match=r"net\.tflite is not a TFLite file, or is damaged"):
        read_model(cell)
