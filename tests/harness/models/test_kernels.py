"""The kernels that a model file is read into: kinds, exact multiplications and elements, fusions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from latlab.agents.protocol.load_request import InputRequest
from latlab.harness.errors import BadInputError
from latlab.harness.exporters import get_exporter
from latlab.harness.models.kernels import kernels_of
from latlab.predictors.graph import Kernel, Work
from latlab.search_spaces import get

SHAPE = (1, 8, 10, 10)


class Net(nn.Module):
    """A convolution with ReLU, a depthwise one, a 1x1 in groups, a residual, a pool, a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU())
        self.second = nn.Conv2d(16, 16, 5, padding=2, groups=16)
        self.third = nn.Conv2d(16, 16, 1, groups=2)
        self.pool = nn.MaxPool2d(2, 2)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = x + self.third(self.second(x))
        return self.head(self.pool(x).mean((2, 3)))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    torch.manual_seed(0)
    module, made = Net().eval().requires_grad_(False), {}
    for name in ("onnx", "tflite", "torchscript"):
        exporter = get_exporter(name)
        made[name] = tmp_path / f"net{exporter.suffix}"
        exporter.export(module, torch.zeros(SHAPE), made[name])
    return made


WORK = {  # kind: multiply-accumulates, constants, channels in and out, window
    "conv": (16 * 100 * 72, 16 * 72 + 16, 8, 16, 9),
    "depthwise": (16 * 100 * 25, 16 * 25 + 16, 1, 1, 25),
    "grouped": (16 * 100 * 8, 16 * 8 + 16, 8, 8, 1),
    "linear": (64, 68, 16, 4, 1),
}


@pytest.mark.parametrize("format", ["onnx", "tflite", "torchscript"])
def test_work_is_exact_in_every_format(files: dict[str, Path], format: str) -> None:
    work = kernels_of(files[format], (), SHAPE)
    by_kind: dict[str, Kernel] = {kernel.kind: kernel for kernel in work.kernels}
    for kind, (macs, params, *wide) in WORK.items():
        one = by_kind[kind]
        assert (one.macs, one.params, one.in_channels, one.out_channels, one.kernel) == (macs, params, *wide), kind
    assert work.macs == sum(macs for macs, *_ in WORK.values())
    conv, pool = by_kind["conv"], by_kind["pool"]
    assert (conv.in_elements, conv.out_elements) == (800, 1600)
    assert (conv.read_bytes, conv.written_bytes) == (4 * (800 + 16 * 72 + 16), 4 * 1600)
    assert (pool.macs, pool.out_elements, pool.kernel) == (16 * 25 * 4, 16 * 25, 4)
    assert not {kernel.kind for kernel in work.kernels} & {"other"}


def test_a_runtimes_fusions_are_kernels_of_one(files: dict[str, Path]) -> None:
    """ONNX Runtime and TFLite compute the ReLU with the convolution; TorchScript calls it on its own."""
    kinds = {name: {kernel.kind for kernel in kernels_of(path, (), SHAPE).kernels} for name, path in files.items()}
    assert "clip" not in kinds["onnx"] | kinds["tflite"]
    assert "clip" in kinds["torchscript"]
    operators = {kernel.operator for kernel in kernels_of(files["onnx"]).kernels}
    assert "FusedConv" in operators


@pytest.mark.parametrize("arch", ["attention|c64|o8|s7|k3|t1|x2", "lstm|c8|o16|s4|k3|t1|x2"])
@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_sequences(arch: str, format: str, tmp_path: Path) -> None:
    space = get("operators")
    chosen = space.parse(arch)
    exporter, path = get_exporter(format), tmp_path / "net"
    shape = (1, *space.input_shape(chosen))
    exporter.export(space.build(chosen), torch.zeros(shape), path)
    work = kernels_of(path, (), shape)
    assert work.macs == sum(layer.macs for layer in space.layers(chosen))
    if arch.startswith("lstm"):
        assert [(kernel.kind, kernel.steps) for kernel in work.kernels if kernel.kind == "rnn"] == [
            ("rnn", 16),
            ("rnn", 16),
        ]
    else:
        assert {"matmul", "softmax", "linear"} <= work.kinds


def test_open_sides_take_the_settled_length(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    example = torch.zeros(1, 4)
    axes = {"x": {0: "n"}}
    torch.onnx.export(nn.Linear(4, 3), (example,), str(path), input_names=["x"], dynamic_axes=axes, dynamo=False)
    (kernel,) = kernels_of(path, [InputRequest("x", (5, 4))]).kernels
    assert (kernel.kind, kernel.macs) == ("linear", 60)


def test_a_file_that_no_runtime_takes_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x08\x08\x12\x00" + bytes(40))
    with pytest.raises(BadInputError, match=r"net\.onnx"):
        kernels_of(path)


class Tokens(nn.Module):
    """An attention and a multilayer perceptron: ONNX Runtime fuses GELU, and the scale into a product."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.reshape(1, 10, 2, 8).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        weights = torch.softmax(q @ k.transpose(2, 3) / 8**0.5, -1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(1, 10, 16))
        return x + self.mlp(x)


def test_shapes_behind_fused_operators_are_known(tmp_path: Path) -> None:
    """ONNX's inference stops at them: half of a Transformer's multiplications were counted as none."""
    path = tmp_path / "net.onnx"
    torch.onnx.export(Tokens().eval(), (torch.zeros(1, 10, 16),), str(path), dynamo=False, opset_version=17)
    work = kernels_of(path)
    operators = {kernel.operator for kernel in work.kernels}
    assert {"Gelu", "FusedMatMul"} <= operators, "the network no longer has the operators that this is about"
    linear = 10 * (16 * 48 + 16 * 16 + 2 * 16 * 64)
    assert work.macs == linear + 2 * 2 * 10 * 10 * 8
    assert all(kernel.out_elements > 1 for kernel in work.kernels)


def test_work_survives_json(files: dict[str, Path]) -> None:
    work = kernels_of(files["onnx"])
    assert Work.from_json(json.loads(json.dumps(work.to_json()))) == work


@pytest.mark.parametrize(
    "values",
    [
        None, [], {}, [3], [{}], [{"kind": "conv"}], [{"kind": "conv", "count": 0}], [{"kind": "cnv", "count": 1}],
        [{"kind": "conv", "count": 1, "macs": -1}], [{"kind": "conv", "count": 1, "macs": 1.5}],
        [{"kind": "conv", "count": 1, "macs": 1 << 70}], [{"kind": "conv", "count": True}],
        [{"kind": "conv", "count": 1, "speed": 3}], [{"kind": ["conv"], "count": 1}],
        [{"kind": "conv", "count": 1, "operator": None}],
    ],
)  # fmt: skip
def test_what_is_no_work_is_refused(values: object) -> None:
    with pytest.raises(ValueError, match="kernel"):
        Work.from_json(values)
