"""Tests of the shortcuts in tracing and in torch's ONNX exporter: same bytes as without, and nothing stays patched."""

from __future__ import annotations

import io
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from network_spaces import NETWORK_SPACES
from torch import Tensor, nn

from latlab.harness.exporters import tracing
from latlab.harness.exporters.onnx import OPSET, ONNXExporter
from latlab.harness.exporters.torchscript import TorchScriptExporter
from latlab.search_spaces import get

CALL = nn.Module.__call__


class Awkward(nn.Module):
    """A network with two outputs, tensors as constants, parameters used twice and a module called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.again = self.conv
        self.register_buffer("offsets", torch.arange(4.0).view(1, 4, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        one, other = self.conv(x), self.again(x * 2)
        parts = torch.split(torch.cat([one, other + self.offsets], 1), 4, 1)
        return parts[0].flatten(1), torch.stack([one.mean((2, 3)), parts[1].mean((2, 3))], 1)


def plain_onnx(module: nn.Module, example: Tensor) -> bytes:
    content = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (example,),
            content,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=["input"],
            output_names=["output"],
        )
    return content.getvalue()


def plain_trace(module: nn.Module, inputs: Any, **_: Any) -> tuple[Any, Any]:
    create: Any = torch._C._create_graph_by_tracing
    return create(module, inputs, lambda _: "", True, False, None, ["x"])


def build(name: str, as_written: bool) -> tuple[nn.Module, tuple[int, ...]]:
    if name == "awkward":
        return Awkward().eval(), (3, 8, 8)
    space = get(name)
    (arch,) = space.sample(1, 5)
    return space.build(arch, as_written=as_written), space.input_shape(arch)


@pytest.mark.parametrize("as_written", [False, True])
@pytest.mark.parametrize("name", ["awkward", *NETWORK_SPACES])
def test_files_are_the_same_to_the_byte(
    name: str, as_written: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, shape = build(name, as_written)
    example, onnx, ours, plain = torch.zeros(1, *shape), tmp_path / "onnx", tmp_path / "ours", tmp_path / "plain"
    ONNXExporter().export(module, example, onnx)
    assert onnx.read_bytes() == plain_onnx(module, example)
    TorchScriptExporter().export(module, example, ours)
    monkeypatch.setattr(tracing, "trace", plain_trace)
    TorchScriptExporter().export(module, example, plain)
    assert ours.read_bytes() == plain.read_bytes()
    assert nn.Module.__call__ is CALL


def test_hooks_are_called_as_ever() -> None:
    module = Awkward().eval().requires_grad_(False)
    seen = []
    module.conv.register_forward_hook(lambda *_: seen.append("conv"))
    tracing.trace(module, (torch.zeros(1, 3, 8, 8),), strict=True)
    assert seen == ["conv", "conv"]


def test_other_threads_do_not_notice() -> None:
    """Modules that are not traced, while one is."""
    entered, leave = threading.Event(), threading.Event()

    class Slow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            entered.set()
            leave.wait(10)
            return x + 1

    other = nn.Linear(2, 2)
    seen = []
    thread = threading.Thread(target=tracing.trace, args=(Slow(), (torch.zeros(1),)), kwargs={"strict": True})
    thread.start()
    entered.wait(10)
    other.register_forward_hook(lambda *_: seen.append(1))
    assert other(torch.zeros(1, 2)).shape == (1, 2)
    leave.set()
    thread.join()
    assert seen == [1]
    assert nn.Module.__call__ is CALL


def test_what_a_module_raises_comes_through_and_nothing_stays_replaced() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ZeroDivisionError("broken")

    from torch.onnx._internal.torchscript_exporter import utils

    before = utils._trace_and_get_graph_from_model
    with pytest.raises(ZeroDivisionError, match="broken"), tracing.onnx_shortcuts():
        plain_onnx(Broken(), torch.zeros(1))
    assert nn.Module.__call__ is CALL
    assert utils._trace_and_get_graph_from_model is before
