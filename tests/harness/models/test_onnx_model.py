"""Tests of what is read from ONNX files."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from model_files import onnx_file
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from latlab.harness.errors import BadInputError
from latlab.harness.exporters import ExportRequest, get_exporter
from latlab.harness.exporters.pipeline import produce
from latlab.harness.models.onnx_model import portable
from latlab.harness.models.read import format_of, read_model
from latlab.search_spaces import get

CONV = "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"


@pytest.fixture
def cell(folder: Path) -> Path:
    produce(ExportRequest("nasbench201", CONV, "onnx"), folder / "cell.onnx")
    return folder / "cell.onnx"


def test_macs_and_parameters_are_those_of_the_space(cell: Path) -> None:
    found = read_model(cell)
    space = get("nasbench201")
    layers = space.layers(space.parse(CONV))
    assert found.macs == sum(layer.macs for layer in layers)
    assert found.parameters is not None
    # Batch norms are folded in the file: each has become a bias.
    assert found.parameters == pytest.approx(sum(layer.params for layer in layers), rel=0.02)
    assert (found.format, found.precision, found.version.split(",")[0]) == ("onnx", "fp32", "opset 17")
    (only,) = found.inputs
    assert (only.sides, only.dtype) == ((1, 3, 32, 32), "float32")
    assert found.operators["Conv"] > 10


class Images(CalibrationDataReader):
    def __init__(self) -> None:
        self._left = [np.random.default_rng(seed).standard_normal((1, 3, 32, 32), np.float32) for seed in range(4)]

    def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[type-arg]
        return {"input": self._left.pop()} if self._left else None


@pytest.mark.parametrize(
    ("quant_format", "detail"), [(QuantFormat.QDQ, "int8 QDQ"), (QuantFormat.QOperator, "int8 QOperator")]
)
def test_static_int8(cell: Path, quant_format: QuantFormat, detail: str) -> None:
    made = cell.with_name("int8.onnx")
    quantize_static(cell, made, Images(), quant_format=quant_format, per_channel=True)
    found = read_model(made)
    assert (found.precision, found.precision_detail) == ("int8", detail)


def test_dynamic_int8(folder: Path) -> None:
    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((64, 64), np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    plain = onnx_file(folder / "plain.onnx", {"x": ([1, 64], TensorProto.FLOAT)}, [node], [weight])
    quantize_dynamic(plain, folder / "dynamic.onnx", weight_type=QuantType.QInt8)
    found = read_model(folder / "dynamic.onnx")
    assert (found.precision, found.precision_detail) == ("int8", "int8 dynamic")


def test_half_and_mixed_precision(folder: Path) -> None:
    half = numpy_helper.from_array(np.ones((64, 64), np.float16), "h")
    single = numpy_helper.from_array(np.ones((64, 16), np.float32), "s")
    nodes = [
        helper.make_node("MatMul", ["x", "h"], ["a"]),
        helper.make_node("Cast", ["a"], ["b"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["b", "s"], ["y"]),
    ]
    found = read_model(onnx_file(folder / "m.onnx", {"x": ([1, 64], TensorProto.FLOAT16)}, nodes, [half, single]))
    assert (found.precision, found.precision_detail) == ("fp16", "mixed: fp16 80%, fp32 20%")
    assert found.macs == 64 * 64 + 64 * 16


def test_open_sides_have_names_or_none(folder: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    path = onnx_file(folder / "o.onnx", {"x": (["batch", None, 3, 3], TensorProto.FLOAT)}, [node])
    model = onnx.load(path)
    for number in (0, -1):  # what some converters write for an open side
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = number
        onnx.save(model, path)
        assert read_model(path).inputs[0].sides == ("batch", None, None, 3)


@pytest.mark.parametrize("axis", [0, 1])
def test_integer_inputs_know_the_table_that_they_index(folder: Path, axis: int) -> None:
    table = numpy_helper.from_array(np.zeros((30, 20), np.float32), "table")
    nodes = [
        helper.make_node("Cast", ["ids"], ["wide"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "wide"], ["y"], axis=axis),
    ]
    path = onnx_file(folder / "g.onnx", {"ids": ([1, 4], TensorProto.INT32)}, nodes, [table])
    assert read_model(path).inputs[0].high == (29 if axis == 0 else 19)


# Weights beside the model


@pytest.fixture
def with_sidecar(folder: Path) -> Path:
    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((64, 64), np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    path = onnx_file(folder / "side.onnx", {"x": ([1, 64], TensorProto.FLOAT)}, [node], [weight])
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="side.bin", size_threshold=0)
    return path


def test_weights_beside_the_model_are_joined_with_it(with_sidecar: Path) -> None:
    found = read_model(with_sidecar)
    assert [one.path.name for one in found.sidecars] == ["side.bin"]
    assert found.parameters == 64 * 64
    content = portable(with_sidecar)
    assert content is not None
    assert len(content) > 64 * 64 * 4
    with_sidecar.with_name("side.bin").write_bytes(b"\1" * 64 * 64 * 4)
    assert portable(with_sidecar) != content  # the hash of what is pushed covers the weights


def test_missing_or_short_weights_are_named(with_sidecar: Path) -> None:
    beside = with_sidecar.with_name("side.bin")
    beside.write_bytes(beside.read_bytes()[:100])
    with pytest.raises(BadInputError, match=r"side\.bin is cut short: it has 100 bytes"):
        read_model(with_sidecar)
    beside.unlink()
    with pytest.raises(BadInputError, match=r"keeps its weights in side\.bin, which is not beside it"):
        read_model(with_sidecar)


@pytest.mark.parametrize("where", ["../secret", "/etc/passwd", "a/../../secret", ""])
def test_weights_elsewhere_are_refused(with_sidecar: Path, where: str) -> None:
    (with_sidecar.parent.parent / "secret").write_bytes(b"0" * 64 * 64 * 4)
    model = onnx.load(with_sidecar, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = where
    with_sidecar.write_bytes(model.SerializeToString())
    with pytest.raises(BadInputError, match="outside its own folder"):
        read_model(with_sidecar)


def test_a_link_out_of_the_folder_is_refused(with_sidecar: Path) -> None:
    outside = with_sidecar.parent.parent / "outside.bin"
    with_sidecar.with_name("side.bin").rename(outside)
    with_sidecar.with_name("side.bin").symlink_to(outside)
    with pytest.raises(BadInputError, match="outside its own folder"):
        read_model(with_sidecar)


# What is no model


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello", "is not a model that latlab knows"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        (b"\x80\x02junk", "is a pickle"),
        (b"\x08\x07\x12\x01", "is not an ONNX file, or is damaged"),
        (b"PK\x03\x04junk", "archive"),
        (b"\x1c\0\0\0TFL3junk", "is not a TFLite file, or is damaged"),
    ],
)
def test_no_models(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=words) as caught:
        read_model(path)
    assert "net.onnx" in caught.value.message


def test_content_decides_and_not_the_name(cell: Path) -> None:
    assert format_of(cell.rename(cell.with_name("cell.TFLITE"))) == "onnx"
    assert get_exporter("onnx").suffix == ".onnx"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_cut_files_are_damaged(cell: Path, share: float) -> None:
    content = cell.read_bytes()
    cell.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BadInputError, match="is not an ONNX file, or is damaged"):
        read_model(cell)


def test_damaged_files_end_in_one_clear_error(cell: Path, two_open: Path) -> None:
    """Files that parse and make no sense: nodes without inputs, names that are no text, absurd sizes."""
    rng = random.Random(0)
    for path in (cell, two_open):
        content = path.read_bytes()
        head = min(len(content), 4000)  # behind it stand weights, where nothing can go wrong
        for _ in range(150):
            damaged = bytearray(content)
            for _ in range(rng.randint(1, 4)):
                damaged[rng.randrange(head)] = rng.randrange(256)
            path.write_bytes(damaged)
            with suppress(BadInputError):  # any other error fails the test
                read_model(path)


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Gather", ["x"], ["y"]),
        helper.make_node("Gather", ["w", "ids"], ["y"], axis=9),
        helper.make_node("LSTM", ["x", "w"], ["y"]),
        helper.make_node("Constant", [], []),
        helper.make_node("MatMul", ["x", "w"], []),
    ],
)
def test_nodes_that_make_no_sense(folder: Path, node: object) -> None:
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    inputs = {"x": ([1, 4], TensorProto.FLOAT), "ids": ([1], TensorProto.INT64)}
    path = onnx_file(folder / "odd.onnx", inputs, [node], [weight])
    with suppress(BadInputError):
        assert read_model(path).format == "onnx"


@pytest.mark.parametrize(
    ("key", "value"), [("offset", "-8"), ("length", "-1"), ("offset", "1_0"), ("location", "a\0b"), ("offset", "x")]
)
def test_weights_whose_place_cannot_be_right(with_sidecar: Path, key: str, value: str) -> None:
    model = onnx.load(with_sidecar, load_external_data=False)
    entries = {entry.key: entry.value for entry in model.graph.initializer[0].external_data} | {key: value}
    del model.graph.initializer[0].external_data[:]
    for name, text in entries.items():
        model.graph.initializer[0].external_data.add(key=name, value=text)
    with_sidecar.write_bytes(model.SerializeToString())
    with pytest.raises(BadInputError, match="the place of the weight 'w' cannot be right"):
        read_model(with_sidecar)


def test_weights_behind_links_of_a_download_cache(with_sidecar: Path) -> None:
    """As Hugging Face's cache keeps them: links in one folder, to files under other names in another."""
    blobs, snapshot = with_sidecar.parent / "blobs", with_sidecar.parent / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    whole = portable(with_sidecar)
    for name in ("side.onnx", "side.bin"):
        (with_sidecar.parent / name).rename(blobs / f"{name}-hash")
        (snapshot / name).symlink_to(blobs / f"{name}-hash")
    assert portable(snapshot / "side.onnx") == whole
