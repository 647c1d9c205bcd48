"""Tests of the comparison with eager PyTorch: what passes, what must fail, and what is exempt."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from operators import SHAPE, Net, network
from torch import nn

from latlab.harness.exporters import ExportError, ExportRequest, get_exporter, names
from latlab.harness.exporters.parity import compare, parity_images
from latlab.harness.exporters.pipeline import export_and_compare, produce
from latlab.search_spaces import get

FORMATS = ("onnx", "tflite", "torchscript")
OPTIONAL = {"pte"}
"""Formats of optional packages: a file takes seconds, and test_exporters.py compares some."""
UNCONNECTED = "|none~0|+|nor_conv_3x3~0|none~1|+|none~0|skip_connect~1|none~2|"


def test_the_suite_covers_every_format() -> None:
    assert set(FORMATS) | OPTIONAL == set(names())


@pytest.mark.parametrize("batch_size", [1, 3, 4, 5, 32])
def test_at_least_four_different_images_whatever_the_batch(batch_size: int) -> None:
    images = parity_images((batch_size, 3, 8, 8))
    assert len(images) >= 4
    assert len(images) <= 5
    assert len({image.numpy().tobytes() for image in images}) == len(images)


CHAIN = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_3x3~2|"
"""45 convolutions in a row, in which a rounding error grows."""


def test_where_eager_disagrees_with_itself_the_images_are_enlarged(tmp_path: Path) -> None:
    requests = [ExportRequest("nasbench201", CHAIN, format, seed=seed) for seed in range(4) for format in FORMATS]
    parities = [produce(request, tmp_path / "net").parity for request in requests]
    assert all(parity.passed for parity in parities)
    assert {parity.contrast for parity in parities} > {1.0}


def test_enlarged_images_excuse_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    exporter = get_exporter("tflite")
    for seed in range(4):
        module = get("nasbench201").build(get("nasbench201").parse(CHAIN), seed=seed)
        exporter.export(module, torch.zeros(1, 3, 32, 32), path)
        layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
        layers[20 + seed].weight.mul_(1.01)
        assert not compare(module, exporter, path, (1, 3, 32, 32)).passed


@pytest.mark.parametrize("format", FORMATS)
def test_unconnected_cell_is_exempt_but_held_to_its_constant(format: str, tmp_path: Path) -> None:
    path = tmp_path / "net"
    for as_written in (False, True):
        product = produce(ExportRequest("nasbench201", UNCONNECTED, format, as_written=as_written), path)
        assert product.parity.passed
        assert product.parity.exempt is not None
        assert product.parity.tolerance > 0


def test_a_wrong_constant_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    exporter = get_exporter("onnx")
    exporter.export(Net(lambda _, x: x.mean((2, 3)) * 0.0 + 1.001), torch.zeros(1, *SHAPE), path)
    right = compare(Net(lambda _, x: x.mean((2, 3)) * 0.0 + 1.001), exporter, path, (1, *SHAPE))
    wrong = compare(Net(lambda _, x: x.mean((2, 3)) * 0.0 + 1.0), exporter, path, (1, *SHAPE))
    assert right.exempt is not None
    assert right.passed
    assert not wrong.passed


def test_the_yardstick_is_the_change_not_the_size(tmp_path: Path) -> None:
    """Outputs near 1000 that move by about 1: an error of 0.01 is a hundredth of what the network does."""
    path = tmp_path / "net.onnx"
    exporter = get_exporter("onnx")
    exporter.export(Net(lambda _, x: x.mean((2, 3)) + 1000.0), torch.zeros(1, *SHAPE), path)
    assert not compare(Net(lambda _, x: x.mean((2, 3)) + 1000.01), exporter, path, (1, *SHAPE)).passed


@pytest.mark.parametrize("format", FORMATS)
def test_nan_never_passes(format: str, tmp_path: Path) -> None:
    path = tmp_path / "net"
    exporter = get_exporter(format)
    module = Net(lambda m, x: x.mean((2, 3)) * m.factor, factor=torch.tensor(float("nan")))
    exporter.export(module.eval(), torch.zeros(1, *SHAPE), path)
    with torch.no_grad():
        module.requires_grad_(False)
        assert not compare(module, exporter, path, (1, *SHAPE)).passed


def test_rows_that_trade_places_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    exporter = get_exporter("onnx")
    for step in (1, 2, 4):
        exporter.export(Net(lambda _, x, s=step: torch.roll(x, s, 0).mean((2, 3))), torch.zeros(8, *SHAPE), path)
        assert not compare(Net(lambda _, x: x.mean((2, 3))), exporter, path, (8, *SHAPE)).passed


def test_another_shape_never_passes(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    exporter = get_exporter("onnx")
    exporter.export(Net(lambda _, x: x.mean((2, 3))), torch.zeros(1, *SHAPE), path)
    assert not compare(Net(lambda _, x: x.mean((2, 3), keepdim=True)), exporter, path, (1, *SHAPE)).passed
    assert not compare(Net(lambda _, x: (x.mean((2, 3)), x)), exporter, path, (1, *SHAPE)).passed


def test_mismatch_is_an_error_of_that_kind(tmp_path: Path) -> None:
    class Random(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.rand_like(x)

    with pytest.raises(ExportError, match="differs from eager PyTorch") as failure:
        _export(Random(), tmp_path / "net.pt")
    assert failure.value.kind == "export_mismatch"


def test_what_torch_cannot_run_is_a_crash_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"^exporting to torchscript: .") as failure:
        _export(Net(lambda _, x: x + torch.zeros(7)), tmp_path / "net.pt")
    assert failure.value.kind == "crash"
    assert "\n" not in failure.value.message
    assert failure.value.message.split(": ", 1)[1] in " ".join(str(failure.value.__cause__).split())


def test_too_large_for_this_machine_is_out_of_memory(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as failure:
        _export(Net(lambda _, x: x.expand(2**45, -1, -1, -1) + 1.0), tmp_path / "net.pt")
    assert failure.value.kind == "out_of_memory"


def _export(module: nn.Module, path: Path) -> None:
    exporter = get_exporter("torchscript")
    export_and_compare(module.eval(), exporter, (1, *SHAPE), path, 0.0, constant=False, rows_independent=False)


def test_a_runtime_that_refuses_the_file_is_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(b"not a network")
    with pytest.raises(ExportError, match="tflite does not run") as failure:
        compare(network("residual"), get_exporter("tflite"), path, (1, *SHAPE))
    assert failure.value.kind == "crash"
