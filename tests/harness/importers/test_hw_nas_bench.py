"""Tests of HW-NAS-Bench's pickle, and of the reader of numpy's numbers that never unpickles."""

from __future__ import annotations

import collections
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from latlab.harness.errors import BadInputError
from latlab.harness.importers.hw_nas_bench import SETTINGS, block_names
from latlab.harness.importers.read import read_sources
from latlab.harness.importers.safe_numpy import NumpyReader
from latlab.harness.importers.safe_pickle import read_pickle
from latlab.search_spaces import get

CELLS = get("nasbench201").sample(20)
DEVICES = ("edgegpu", "raspi4", "edgetpu", "pixel3", "eyeriss", "fpga")
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def content(form: Any = list) -> dict[str, Any]:
    """Return a small HW-NAS-Bench: six devices, energies, and blocks of 1 ms (.5 ms where they are skipped)."""
    cells: dict[str, Any] = {"config": [{"name": "infer.tiny", "C": 16, "N": 5, "arch_str": a.text} for a in CELLS]}
    blocks: dict[str, Any] = {}
    names = {
        block
        for setting in SETTINGS.values()
        for op in range(9)
        for block in block_names(setting, [op] * 22)
    }  # fmt: skip
    for place, device in enumerate(DEVICES, 1):
        cells[f"{device}_latency"] = form(np.linspace(place, place + 1, len(CELLS)))
        cells[f"{device}_energy"] = form(np.full(len(CELLS), 1000.0))
        if device != "edgetpu":  # it has no blocks
            blocks[f"{device}_latency"] = {name: 0.5 if name.startswith("Skip") else 1.0 for name in names}
            blocks[f"{device}_energy"] = dict.fromkeys(names, 1000.0)
    return {"nasbench201": {"cifar10": cells, "cifar100": cells}, "fbnet": blocks}


@pytest.mark.parametrize("form", [np.asarray, list, np.ndarray.tolist], ids=["array", "scalars", "floats"])
def test_all_devices_and_spaces_and_no_energies(tmp_path: Path, form: Any) -> None:
    path = tmp_path / "HW-NAS-Bench-v1_0.pickle"
    path.write_bytes(pickle.dumps(content(form), 3))
    tables = {(table.name, table.space): table for table in read_sources([path])}
    assert {name for name, space in tables if space == "nasbench201"} == set(DEVICES)
    for space in ("fbnet", "fbnet-imagenet"):
        assert {name for name, where in tables if where == space} == set(DEVICES) - {"edgetpu"}
        sums = tables["fpga", space]
        expected = [26 - 0.5 * arch.genes.count(8) for arch in sums.archs]  # 22 blocks, stem, head, pool, classifier
        assert sums.latency_ms.tolist() == pytest.approx(expected)
        assert "not measured whole" in sums.notes[-1]
    cells = tables["raspi4", "nasbench201"]
    assert [arch.text for arch in cells.archs] == [arch.text for arch in CELLS]
    assert cells.latency_ms.tolist() == pytest.approx(np.linspace(2, 3, 20).tolist())
    assert (cells.unit, cells.format) == ("ms", "hw-nas-bench")
    [only] = read_sources([path], device="edgetpu")
    assert only.space == "nasbench201"
    with pytest.raises(BadInputError, match="phone is not among its devices: edgegpu, edgetpu"):
        read_sources([path], device="phone")


@pytest.mark.data
def test_blocks_add_up_to_published_networks(data_folder: Path) -> None:
    """The published FBNet latencies of four devices are sums of blocks with these names, to the last digit."""
    frame = pd.read_parquet(data_folder / "fbnet_latency_ms.parquet")
    networks = [block_names(SETTINGS["fbnet"], list(ops)) for ops in frame["ops"]]
    places = {block: place for place, block in enumerate(sorted({block for one in networks for block in one}))}
    counts = np.zeros((len(networks), len(places)))
    for row, network in enumerate(networks):
        for block in network:
            counts[row, places[block]] += 1
    for device in ("raspi4", "pixel3", "fpga", "eyeriss"):
        latency = frame[device].to_numpy(float)
        blocks, *_ = np.linalg.lstsq(counts, latency, rcond=None)
        assert np.abs(counts @ blocks / latency - 1).max() < 1e-6


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpys_numbers_are_read_in_every_protocol(protocol: int) -> None:
    grid = np.arange(6, dtype="f4").reshape(2, 3)
    value = {
        "a": np.array([1.5, 2.5]), "b": [np.float64(3), np.int32(-4)], "c": np.array([1, 2], ">i2"), "d": grid,
        "e": np.asfortranarray(grid), "f": collections.OrderedDict(x=1), "again": [np.array([1.0], ">f8")] * 2,
    }  # fmt: skip
    found = read_pickle(pickle.dumps(value, protocol), "f", NumpyReader)
    assert found == {"a": [1.5, 2.5], "b": [3.0, -4], "c": [1, 2], "d": grid.tolist(), "e": grid.tolist(),
                     "f": {"x": 1}, "again": [[1.0], [1.0]]}  # fmt: skip


class Bomb:
    def __reduce__(self) -> Any:
        return (print, ("run",))


@pytest.mark.parametrize(
    "value",
    [Bomb(), np.array([Bomb()], object), np.array(["text"]), np.array([1j]), np.dtype("O"), {1}, np.zeros((1,) * 6),
     np.datetime64("2020"), np.array(1.0)],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_else_is_read(value: object, protocol: int, capsys: pytest.CaptureFixture[str]) -> None:
    data = pickle.dumps([value, "_latency"], protocol)
    with pytest.raises(BadInputError, match="byte"):
        read_pickle(data, "f", NumpyReader)
    assert not capsys.readouterr().out


def test_files_that_are_wrong(tmp_path: Path) -> None:
    path = tmp_path / "hw.pickle"

    def refused(change: Any, match: str) -> None:
        value = content(np.ndarray.tolist)
        change(value)
        path.write_bytes(pickle.dumps(value))
        with pytest.raises(BadInputError, match=match):
            read_sources([path])

    refused(lambda v: v["nasbench201"]["cifar10"]["fpga_latency"].pop(), "fpga_latency has 19 latencies, for 20")
    refused(lambda v: v["nasbench201"]["cifar10"]["config"].__setitem__(3, {}), "cifar10, index 3: nasbench201")
    refused(lambda v: v["fbnet"]["fpga_latency"].pop("FC_Cin1504_Cout100"), "no latency of the block FC_Cin1504")
    refused(lambda v: v["nasbench201"]["cifar10"]["fpga_latency"].__setitem__(2, "x"), "index 2 is 'x'")
