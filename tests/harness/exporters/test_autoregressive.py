"""Exports of networks that generate sequences: files of HAT's decoders compute what the decoders do, or are refused."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from latlab.harness import Lab
from latlab.harness.devices.target_selection import TargetOptions
from latlab.harness.errors import BadInputError
from latlab.harness.exporters import ExportError, ExportRequest, get_exporter
from latlab.harness.exporters.parity import compare
from latlab.harness.exporters.pipeline import produce
from latlab.search_spaces import get
from latlab.search_spaces.torch_modules import Autoregressive

TEXT = "e512|d512|l1|f512|h2|x4|a2"


@pytest.fixture(scope="module")
def decoder() -> Autoregressive:
    space = get("hat-decoder")
    network = space.build(space.parse(TEXT))
    assert isinstance(network, Autoregressive)
    return network


@pytest.mark.parametrize(("format", "batch_size"), [("onnx", 2), ("torchscript", 1)])
def test_files_agree_with_eager_pytorch(decoder: Autoregressive, format: str, batch_size: int, tmp_path: Path) -> None:
    exporter, path, shape = get_exporter(format), tmp_path / "net", (batch_size, 3, 30, 512)
    operators = exporter.export(decoder, torch.zeros(shape), path)
    numbers = sum(parameter.numel() for parameter in decoder.parameters()) + decoder.positions.numel()
    assert path.stat().st_size < 4 * numbers + 2_000_000  # every weight once
    parity = compare(decoder, exporter, path, shape)
    assert parity.passed, parity
    assert parity.exempt is None
    if format == "onnx":
        onnx.checker.check_model(path, full_check=True)
        assert (operators["Loop"], operators["Softmax"], operators["ArgMax"]) == (1, 2, 1)  # for all tokens
        again = tmp_path / "again"
        exporter.export(decoder, torch.zeros(shape), again)
        assert again.read_bytes() == path.read_bytes()
        wrong = decoder.layers[0].cross.query.weight  # type: ignore[union-attr, index]
        kept = wrong.clone()
        wrong.mul_(1.5)
        assert not compare(decoder, exporter, path, shape).passed
        wrong.copy_(kept)
    else:
        assert operators["aten::argmax"] == 30


@pytest.mark.parametrize(
    ("format", "precision", "says"),
    [
        (
            "tflite",
            "fp32",
            "not written as tflite files; runtimes that they are exported for: onnxruntime, .*torchscript",
        ),
        ("pte", "fp32", "not written as pte files"),
        ("onnx", "int8", "exported in fp32 only"),
    ],
)
def test_what_cannot_be_exported_is_refused_at_once(format: str, precision: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"networks of hat-decoder .*{says}") as refused:
        produce(ExportRequest("hat-decoder", TEXT, format, precision=precision), tmp_path / "net")
    assert refused.value.kind == "unsupported_op"


def test_a_runtime_that_cannot_run_them_gives_a_failed_row(tmp_path: Path) -> None:
    (tmp_path / "inventory.yaml").write_text("devices: {toy: {transport: simulated, kind: ideal}}")
    lab = Lab(tmp_path / "lab.db", inventory=tmp_path / "inventory.yaml", cache=tmp_path / "cache")
    options = TargetOptions(runtime="openvino")
    row = lab.measure("toy", space="hat-decoder", archs=[TEXT], options=options, policy="quick").rows.iloc[0]
    assert row["status"] == "unsupported_op"
    assert row["error"].startswith(
        "openvino does not run networks of hat-decoder, which generate a sequence step by step"
    )
    assert row["error"].endswith("runtimes that do: onnxruntime, torchscript")
    with pytest.raises(BadInputError, match="openvino does not run networks of hat-decoder"):
        lab.sustain("toy", space="hat-decoder", arch=TEXT, options=options)
