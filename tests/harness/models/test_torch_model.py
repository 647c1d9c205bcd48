"""Tests of what is read from TorchScript files and programs of torch.export."""

from __future__ import annotations

import pickle
from contextlib import suppress
from pathlib import Path
from typing import Optional
from zipfile import ZipFile

import pytest
import torch
from torch import Tensor, nn

from latlab.harness.errors import BadInputError
from latlab.harness.models.read import format_of, read_model

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")


class Text(nn.Module):
    """A model with an index, an optional mask and an optional number."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.last = nn.Embedding(1000, 8), nn.Linear(8, 8)

    def forward(self, ids: Tensor, mask: Optional[Tensor] = None, scale: float = 1.0) -> Tensor:  # noqa: UP045 (TorchScript)
        y: Tensor = self.last(self.table(ids)) * scale
        return y if mask is None else y * mask


@pytest.mark.parametrize("frozen", [False, True])
def test_names_kinds_and_tables(tmp_path: Path, frozen: bool) -> None:
    module = torch.jit.script(Text().eval())
    module = torch.jit.freeze(module) if frozen else module
    path = tmp_path / "net.PT"
    module.save(str(path))
    assert format_of(path) == "torchscript"
    found = read_model(path)
    assert [(one.name, one.kind, one.optional) for one in found.inputs] == [
        ("ids", "tensor", False),
        ("mask", "tensor", True),
        ("scale", "float", True),
    ]
    assert found.inputs[0].high == 999
    assert found.inputs[0].sides is None
    assert (found.parameters, found.precision) == (1000 * 8 + 8 * 8 + 8, "fp32")
    assert found.operators["aten::embedding"] == 1


def test_half_precision(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(8, 8).half()).save(str(tmp_path / "half.pt"))
    assert read_model(tmp_path / "half.pt").precision == "fp16"


def test_exported_program(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(module, (torch.zeros(2, 3, 8, 8),), dynamic_shapes={"input": {0: batch}})
    path = tmp_path / "net.pt2"
    torch.export.save(program, path)
    found = read_model(path)
    assert found.format == "pt2"
    (only,) = found.inputs
    assert only.sides is not None
    assert only.sides[1:] == (3, 8, 8)
    assert isinstance(only.sides[0], str)
    assert (only.dtype, found.parameters) == ("float32", 3 * 8 * 9 + 8)


def test_state_dicts_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(BadInputError, match="a state_dict or a pickled module is none"):
        read_model(tmp_path / "weights.pth")


class Touch:
    """What a hostile file would have somebody unpickle: it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._path,)


@pytest.mark.parametrize("kind", ["weights", "constants"])
def test_pickles_in_exported_programs_are_not_opened(tmp_path: Path, kind: str) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))
            self.constant = torch.ones(4)

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight * self.constant

    good, bad, made = tmp_path / "good.pt2", tmp_path / "bad.pt2", tmp_path / "made"
    torch.export.save(torch.export.export(Scaled(), (torch.zeros(1, 4),)), good)
    assert read_model(good).parameters
    with ZipFile(good) as source, ZipFile(bad, "w") as sink:
        for name in source.namelist():
            content = source.read(name)
            if f"/{kind}/" in name and name.endswith(".json"):
                content = content.replace(b'"use_pickle": false', b'"use_pickle": true')
                assert b'"use_pickle": true' in content
            elif f"/{kind}/" in name:
                content = pickle.dumps(Touch(made))
            sink.writestr(name, content)
    with pytest.raises(BadInputError, match=r"cannot read the torch\.export program"):
        read_model(bad)
    assert not made.exists()
    with suppress(Exception):
        torch.export.load(bad)
    assert made.exists()  # the file is hostile indeed
