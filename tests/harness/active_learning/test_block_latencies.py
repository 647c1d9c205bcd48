"""Tests of block latencies: blocks are measured as networks are, and the predictor gets their latencies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latlab.harness import Lab
from latlab.harness.active_learning.block_latencies import block_latencies
from latlab.harness.active_learning.predictor_factory import PredictorOptions, predictor_for
from latlab.harness.errors import BadInputError
from latlab.harness.store.store import Store
from latlab.predictors.lookup_table import Lookup
from latlab.search_spaces import blocks_of, get

SPACE = get("fbnet")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A lab with one simulated device, whose latencies come from a cost model."""
    (tmp_path / "inventory.yaml").write_text("devices: {toy: {transport: simulated, kind: ideal}}")
    return Lab(tmp_path / "lab.db", inventory=tmp_path / "inventory.yaml")


def test_blocks_are_measured_resumed_and_used(lab: Lab) -> None:
    first = lab.measure("toy", space="fbnet", blocks=True, count=2).rows
    assert list(first["status"]) == ["ok"] * 2
    assert set(first["space"]) == {"fbnet-blocks"}
    more = lab.measure("toy", space="fbnet", blocks=True, count=3).rows
    assert list(more["id"][:2]) == list(first["id"])  # extended, not measured again
    target = str(first["target"].iloc[0])
    latencies = block_latencies(lab.store, target, SPACE)
    assert latencies == dict(zip(more["arch"], more["latency_ms"], strict=True))
    predictor = predictor_for(PredictorOptions("lookup"), SPACE, sources=[], blocks=latencies)
    assert isinstance(predictor, Lookup)
    assert np.isfinite(predictor._measured).sum() == 3
    # Beside whole networks the blocks are no space of their own to be predicted.
    lab.measure("toy", space="fbnet", archs=["8_" * 21 + "8"])
    told = lab.predict(
        "toy", archs=["_".join("0" * 22)], predictor=PredictorOptions(name="lookup", sources="none")
    ).table
    assert told["latency_ms"].notna().all()


def test_what_is_not_executed_is_not_measured(tmp_path: Path) -> None:
    from latlab.harness.architectures import some_blocks

    blocks = blocks_of(get("nasbench201"))
    assert blocks is not None
    names = {block.text for block in some_blocks(blocks, None, 0, as_written=False)}
    assert len(names) == blocks.size - 3
    assert "stage1/none" not in names
    assert len(some_blocks(blocks, None, 0, as_written=True)) == blocks.size
    with pytest.raises(BadInputError, match="16 blocks"):
        some_blocks(blocks, 100, 0, as_written=False)


def test_none_without_measurements(tmp_path: Path) -> None:
    assert block_latencies(Store(tmp_path / "empty.db"), "local/onnxruntime/cpu/fp32/t1/b1", SPACE) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": "hat-decoder"}, "not made of blocks"),
        ({"space": "fbnet", "archs": ["stem"]}, "which architectures"),
        ({"space": "fbnet", "count": 1000}, "104 blocks"),
    ],
)
def test_bad_requests(lab: Lab, options: dict[str, object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        lab.measure("toy", blocks=True, **options)  # type: ignore[arg-type]


def test_blocks_embed_no_device(lab: Lab) -> None:
    with pytest.raises(BadInputError, match="no reference"):
        lab.embed("toy", space="fbnet-blocks")
