"""Tests of what is read from ExecuTorch programs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from latlab.agents import runtimes
from latlab.harness.errors import BadInputError
from latlab.harness.exporters import get_exporter
from latlab.harness.models.read import read_model


@pytest.mark.slow
def test_inputs_and_operators(tmp_path: Path) -> None:
    pytest.importorskip("executorch.exir", reason="executorch is not installed: pip install 'latlab[executorch]'")

    class Sums(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.cumsum(x + y, 1)

    path = tmp_path / "sums.bin"
    get_exporter("pte").export(Sums().eval(), (torch.zeros(2, 3), torch.zeros(2, 3)), path)
    found = read_model(path)
    assert found.format == "pte"
    assert [(one.name, one.sides, one.dtype) for one in found.inputs] == [
        ("input_0", (2, 3), "float32"),
        ("input_1", (2, 3), "float32"),
    ]
    assert found.operators == {"XNNAdd": 1, "aten::cumsum.out": 1}
    assert "1 of 2 operators run on XNNPACK, in 1 part" in found.notes


def test_without_the_runtime_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.pte"
    path.write_bytes(b"\x00\x00\x00\x00ET12" + bytes(56))
    monkeypatch.setattr(runtimes.util, "find_spec", lambda _: None)
    runtimes.find.cache_clear()
    try:
        with pytest.raises(BadInputError, match=r"net\.pte: executorch is not installed") as caught:
            read_model(path)
    finally:
        runtimes.find.cache_clear()
    assert "latlab[executorch]" in (caught.value.hint or "")
