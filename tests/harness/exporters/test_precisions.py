"""Tests of fp16, bf16 and int8 files: what they hold, that runtimes take them whole, what the comparison rejects."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from exporter_conformance import digest
from operators import NETWORKS, SHAPE, Net, network
from torch import nn

from latlab.agents import runtimes
from latlab.harness.exporters import ExportError, ExportRequest, get_exporter, names
from latlab.harness.exporters.pipeline import export_and_compare, produce
from latlab.harness.exporters.rounded_parity import compare_rounded
from latlab.harness.models.delegates import delegates_of
from latlab.harness.models.read import read_model
from latlab.harness.targets import RUNTIMES
from latlab.search_spaces import get

FILES = [(name, one) for name in names() for one in get_exporter(name).precisions if one != "fp32"]
SPACES = ("nasbench201", "fbnet", "ofa-mobilenetv3", "fbnet-blocks")
AVERAGES = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_3x3~2|"
GROWING = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|"
"""A cell that multiplies its input by 4. Behind fifteen of them values leave float16's range."""
NO_INT8 = {
    ("tflite", "int8"): {
        "divide": "DIV",
        "attention": "BATCH_MATMUL",
        "matmul-images": "BATCH_MATMUL",
        "matmul-plain": "BATCH_MATMUL",
        "softmax-of-channels": "SOFTMAX",
        "softmax-layer": "SOFTMAX",
        "layer-norm": "RSQRT",
        "layer-norm-of-images": "RSQRT",
        "gelu": "GELU",
        "gelu-tanh": "GELU",
    }
}
"""Networks of `operators.py` that a format has no form of, and the operator that it names."""


def written(precision: str, format: str, module: nn.Module, path: Path, batch_size: int = 1) -> tuple[int, ...]:
    """Write a network for small images and return its input's shape."""
    shape = (batch_size, *SHAPE)
    get_exporter(format).export_in(precision, module, torch.zeros(shape), path)
    return shape


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("format", "precision"), FILES)
def test_networks_of_every_space(format: str, precision: str, space: str, tmp_path: Path) -> None:
    path = tmp_path / "net"
    found = get(space)
    arch = found.parse(AVERAGES) if space == "nasbench201" else found.sample(1, seed=3)[0]
    product = produce(ExportRequest(space, arch.text, format, precision=precision), path)
    layers = product.parity.layers
    assert product.parity.passed
    assert layers is not None
    assert layers.layers >= 1
    assert layers.steps <= layers.tolerance
    if format == "tflite":
        with runtimes.open("tflite", path) as session:
            assert session.delegation is not None
            assert session.delegation.partitions == 1
            assert session.delegation.delegated == session.delegation.operators
            assert session.inputs[0].dtype == ("int8" if precision == "int8" else "float32")
        if (
            precision == "int8"
        ):  # XNNPACK, the GPU delegate and the Edge TPU, by the lists of operators that they publish
            verdicts = delegates_of(read_model(path))
            assert len(verdicts) == 3
            assert all(verdict.endswith(": all operators") for verdict in verdicts), verdicts


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("operator", NETWORKS)
@pytest.mark.parametrize(("format", "precision"), FILES)
def test_every_operator(format: str, precision: str, operator: str, batch_size: int, tmp_path: Path) -> None:
    path, module = tmp_path / "net", network(operator)
    lacks = NO_INT8.get((format, precision), {}).get(operator)
    if lacks is not None:
        with pytest.raises(ExportError, match=f"no int8 form of {lacks}"):
            written(precision, format, module, path)
        return
    shape = written(precision, format, module, path, batch_size)
    parity = compare_rounded(module, get_exporter(format), path, shape, precision, rows_independent=False)
    assert parity.passed, parity


@pytest.mark.parametrize(
    ("format", "precision", "space"),
    [(*file, ("nasbench201", "fbnet")[place % 2]) for place, file in enumerate(sorted(FILES, key=lambda one: one[1]))],
)
def test_any_perturbed_layer_is_noticed(format: str, precision: str, space: str, tmp_path: Path) -> None:
    """One layer's weights multiplied by 1.5 after the export, wherever in the network it is."""
    path, exporter, found = tmp_path / "net", get_exporter(format), get(space)
    arch = found.sample(1, seed=5)[0]
    module = found.build(arch)
    shape = (1, *found.input_shape(arch))
    exporter.export_in(precision, module, torch.zeros(shape), path)
    assert compare_rounded(module, exporter, path, shape, precision).passed
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in (layers[0], layers[len(layers) // 2], layers[-1]):
        kept = layer.weight.clone()
        layer.weight.mul_(1.5)
        assert not compare_rounded(module, exporter, path, shape, precision).passed
        layer.weight.copy_(kept)


@pytest.mark.parametrize(("format", "precision"), FILES)
def test_another_wiring_is_noticed(format: str, precision: str, tmp_path: Path) -> None:
    """The same layers, the second of which reads another tensor."""
    path = tmp_path / "net"
    layers = {"one": nn.Conv2d(8, 8, 3, padding=1), "other": nn.Conv2d(8, 8, 3, padding=1)}
    right = Net(lambda m, x: m.other(m.one(x)), **layers).eval().requires_grad_(False)
    wrong = Net(lambda m, x: m.other(x) + 0 * m.one(x), **layers).eval().requires_grad_(False)
    shape = written(precision, format, wrong, path)
    assert not compare_rounded(right, get_exporter(format), path, shape, precision).passed


@pytest.mark.parametrize(("format", "precision"), FILES)
def test_a_graph_that_returns_its_bias_is_noticed(format: str, precision: str, tmp_path: Path) -> None:
    path, module = tmp_path / "net", network("linear-classifier")
    dead = copy.deepcopy(module)
    dead.get_submodule("linear").weight.data.zero_()  # type: ignore[union-attr, operator]
    shape = written(precision, format, dead, path)
    assert not compare_rounded(module, get_exporter(format), path, shape, precision).passed


@pytest.mark.parametrize(("format", "precision"), FILES)
def test_the_same_module_gives_the_same_bytes_and_stays_as_it_was(format: str, precision: str, tmp_path: Path) -> None:
    module = network("residual")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    paths = [tmp_path / "one", tmp_path / "another"]
    for path in paths:
        written(precision, format, module, path)
        written(precision, format, network("conv-bn"), tmp_path / "between")
    assert digest(paths[0]) == digest(paths[1])
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


@pytest.mark.parametrize(("format", "precision"), [("tflite", "int8"), ("onnx", "int8")])
def test_scales_do_not_depend_on_the_batch_size(format: str, precision: str, tmp_path: Path) -> None:
    """Each row of a batch of 3 gives what the network of batch 1 gives."""
    module, results = network("residual"), []
    rows = np.random.default_rng(0)
    data = rows.integers(-128, 128, (3, 12, 12, 8)).astype(np.int8)
    if format == "onnx":
        data = rows.standard_normal((3, *SHAPE), dtype=np.float32)
    for batch_size in (1, 3):
        path = tmp_path / f"b{batch_size}"
        written(precision, format, module, path, batch_size)
        with runtimes.open(get_exporter(format).runtime, path) as session:
            parts = []
            for first in range(0, 3, batch_size):
                session.set_inputs([data[first : first + batch_size]])
                session.invoke()
                parts.append(session.outputs()[0])
            results.append(np.concatenate(parts))
    assert np.array_equal(results[0], results[1])


def test_int8_tflite_has_a_scale_for_each_channel(tmp_path: Path) -> None:
    path = tmp_path / "net"
    written("int8", "tflite", nn.Sequential(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 3, groups=16)).eval(), path)
    graph = schema.ModelT.InitFromPackedBuf(bytearray(path.read_bytes()), 0).subgraphs[0]
    for operator, axis in zip(graph.operators, (0, 3), strict=True):
        x, weights, bias = (graph.tensors[int(tensor)] for tensor in operator.inputs)
        assert (weights.type, bias.type) == (schema.TensorType.INT8, schema.TensorType.INT32)
        assert weights.quantization.quantizedDimension == axis
        assert len(weights.quantization.scale) == 16
        assert not weights.quantization.zeroPoint.any()
        assert bias.quantization.scale == pytest.approx(x.quantization.scale[0] * weights.quantization.scale)


def test_fp16_files_store_half_precision(tmp_path: Path) -> None:
    path, module = tmp_path / "net", network("residual")
    written("fp16", "tflite", module, path)
    graph = schema.ModelT.InitFromPackedBuf(bytearray(path.read_bytes()), 0).subgraphs[0]
    stored = {int(tensor.type) for tensor in graph.tensors if tensor.buffer}
    assert stored <= {schema.TensorType.FLOAT16, schema.TensorType.INT32}
    assert schema.TensorType.FLOAT16 in stored
    written("fp16", "onnx", module, path)
    model = onnx.load(path)
    assert {weights.data_type for weights in model.graph.initializer} == {onnx.TensorProto.FLOAT16}
    ends = [*model.graph.input, *model.graph.output]
    assert {end.type.tensor_type.elem_type for end in ends} == {onnx.TensorProto.FLOAT}


def test_values_beyond_float16_are_named(tmp_path: Path) -> None:
    for format in ("onnx", "torchscript"):
        with pytest.raises(ExportError, match=r"too large for float16|range of the precision") as failure:
            produce(ExportRequest("nasbench201", GROWING, format, precision="fp16"), tmp_path / "net")
        assert failure.value.kind in ("unsupported_op", "export_mismatch")
    assert produce(ExportRequest("nasbench201", GROWING, "torchscript", precision="bf16"), tmp_path / "net")
    assert produce(ExportRequest("nasbench201", GROWING, "tflite", precision="int8"), tmp_path / "net")


def test_what_a_format_is_not_written_in(tmp_path: Path) -> None:
    module, shape = network("residual"), (1, *SHAPE)
    with pytest.raises(ExportError, match=r"tflite is not written in bf16, only in fp32, fp16, int8"):
        export_and_compare(
            module, get_exporter("tflite"), shape, tmp_path / "net", 0.0,
            constant=False, rows_independent=True, precision="bf16",
        )  # fmt: skip


def test_runtimes_and_exporters_name_the_same_precisions() -> None:
    for runtime in RUNTIMES.values():
        if runtime.format in names():
            assert set(runtime.precisions) <= set(get_exporter(runtime.format).precisions)


@pytest.mark.parametrize("ends", [(-1.0, 1.0), (-0.2, 1.0), (-1.0, 0.0), (1.0, 1.0)])
@pytest.mark.parametrize("size", [0.0, 1e-7, *(0.05 * 1.3**number for number in range(16))])
def test_constants_near_zero_do_not_cut_the_graph(size: float, ends: tuple[float, float], tmp_path: Path) -> None:
    """XNNPACK adds no scales that are more than 1024 times apart; a step of the output is some .004 of its range."""
    path = tmp_path / "net"
    shift = size * torch.linspace(*ends, SHAPE[0]).reshape(1, -1, 1, 1)
    module = Net(lambda m, x: x * 100 + m.shift + m.conv(x), conv=nn.Conv2d(SHAPE[0], SHAPE[0], 1))
    module.register_buffer("shift", shift)
    shape = written("int8", "tflite", module.eval().requires_grad_(False), path)
    assert compare_rounded(module, get_exporter("tflite"), path, shape, "int8").passed
    with runtimes.open("tflite", path) as session:
        assert session.delegation is not None
        assert (session.delegation.partitions, session.delegation.delegated) == (1, session.delegation.operators)
