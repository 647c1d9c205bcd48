"""Model files, made by the tools that people make them with."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import torch
from model_files import onnx_file
from onnx import TensorProto, helper
from torch import nn

FACTORY = """
import torch
from torch import nn
def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 4))
def odd():
    class Odd(nn.Module):
        def forward(self, x):
            return x.erfinv()
    return Odd()
class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.last = nn.Embedding(50, 8), nn.Linear(8, 2)
    def forward(self, ids, scale):
        return self.last(self.table(ids) * scale)
class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
    def forward(self, x):
        return self.attention(x, x, x)[0]
def notanet():
    return 7
def leaves():
    raise SystemExit(0)
class Leaves(nn.Module):
    def forward(self, x):
        raise SystemExit(0)
class Stubborn(nn.Module):
    def eval(self):
        raise RuntimeError("no modes")
def lazy():
    return nn.LazyLinear(4)
def talks():
    print("hello")
    return net()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, with factories in `mynets.py`."""
    (tmp_path / "mynets.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("mynets", None)
    return tmp_path


@pytest.fixture
def open_sides(folder: Path) -> Path:
    """Write an ONNX file whose batch, height and width are open."""
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    axes = {"x": {0: "n", 2: "h", 3: "w"}}
    path = folder / "open.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (torch.zeros(1, 3, 8, 8),), path, input_names=["x"], dynamic_axes=axes, dynamo=False, verbose=False
        )
    return path


@pytest.fixture
def two_open(folder: Path) -> Path:
    """Write an ONNX file like a text model: `ids`, which indexes 1,000 rows, and `mask`, both [batch, seq]."""
    import numpy as np
    from onnx import numpy_helper

    table = numpy_helper.from_array(np.random.default_rng(0).standard_normal((1000, 8), np.float32), "table")
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Cast", ["mask"], ["weights"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weights", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["y"]),
    ]
    last = numpy_helper.from_array(np.array([2], np.int64), "last")
    sides = (["batch", "seq"], TensorProto.INT64)
    return onnx_file(folder / "text.onnx", {"ids": sides, "mask": sides}, nodes, [table, last])
