"""Features count what networks execute; readings are what runtimes may make of the graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from latlab.search_spaces import Layer, SearchSpace, get
from latlab.search_spaces.fbnet.skeleton import OPS, positions
from latlab.search_spaces.fbnet.space import FBNet
from latlab.search_spaces.nasbench201.cell import node_values
from latlab.search_spaces.nasbench201.space import NASBench201
from latlab.search_spaces.ofa_mobilenetv3.skeleton import stages

CELLS = NASBench201()
WRITTEN, REACHING, RECEIVING, LIVE, PATHS, CONSTANT = 1, 5, 9, 12, 25, 34
"""First columns of the counts of operations in NAS-Bench-201's features, of critical paths, and of constant cells."""


def of_a_cell(layers: Iterable[Layer]) -> Counter[tuple[str, int]]:
    """Kinds and kernels of the layers of the first cell; all cells are alike."""
    return Counter((layer.kind, layer.kernel) for layer in layers if layer.name.startswith("cell1."))


def operations(layers: Iterable[Layer]) -> list[int]:
    """How many of none, 1x1, 3x3 and pool a cell has."""
    found = of_a_cell(layers)
    return [found["zero", 1], found["pointwise", 1], found["conv", 3], found["pool", 3]]


def test_numbers_of_the_right_shape(space: SearchSpace) -> None:
    archs = space.sample(40, 5)
    found = space.features(space.genes(archs))
    assert found.dtype == np.float64
    assert len(found) == 40
    assert found.shape[1] > 3
    assert (found[~space.constant(space.genes(archs)), 0] == 1).all()
    assert np.isfinite(found).all()
    assert np.array_equal(found[7:9], space.features(space.genes(archs[7:9])))  # rows do not depend on each other
    assert space.features(space.genes([])).shape == (0, found.shape[1])
    assert found[:, 1:].std(axis=0).any()


def test_all_architectures_have_the_same_readings(space: SearchSpace) -> None:
    readings = [space.readings(arch) for arch in space.sample(60, 4)]
    assert len({tuple(reading) for reading in readings}) == 1
    assert next(iter(readings[0])) == "written"
    assert all(branches for reading in readings for branches in reading.values())
    for arch in space.sample(60, 4):
        if space.name != "hat-decoder":  # whose readings are of one step
            assert space.readings(arch)["written"] == (space.layers(arch),)
        assert space.can_be_dead or space.layers(arch) == space.layers(arch, live=True)


def test_cells_count_their_operations_as_written_and_live() -> None:
    archs = [arch for arch in CELLS.sample(300, 1) if not CELLS.is_constant(arch)]
    for arch, row in zip(archs, CELLS.features(CELLS.genes(archs)), strict=True):
        readings = CELLS.readings(arch)
        assert row[WRITTEN:REACHING].tolist() == operations(readings["written"][0])
        assert row[REACHING + 1 : RECEIVING].tolist() == operations(readings["reaching"][0])[1:]
        assert row[LIVE + 1 : LIVE + 4].tolist() == operations(readings["live"][0])[1:]
        assert row[LIVE + 4] == of_a_cell(readings["live"][0])["add", 1]
        assert not row[CONSTANT:].any()


def test_constant_cells_have_columns_of_their_own() -> None:
    genes = np.array([arch.genes for arch in CELLS.enumerate()])
    constant = CELLS.constant(genes)
    assert constant.sum() == 341
    assert constant.tolist() == [CELLS.is_constant(arch) for arch in CELLS.enumerate()]
    for number, row in zip(np.flatnonzero(constant), CELLS.features(genes[constant]), strict=True):
        readings = CELLS.readings(CELLS.from_genes(genes[number]))
        assert not row[:CONSTANT].any()
        assert row[CONSTANT] == 1
        assert row[CONSTANT + 1 : CONSTANT + 5].tolist() == operations(readings["written"][0])
        assert row[CONSTANT + 5 : CONSTANT + 7].tolist() == operations(readings["reaching"][0])[1:3]
        merged = of_a_cell(readings["merged-written"][0])
        assert row[CONSTANT + 7 :].tolist() == [merged["pool", 3], merged["relu", 1]]


def test_cells_count_what_can_be_merged_and_fused() -> None:
    archs = [arch for arch in CELLS.sample(300, 2) if not CELLS.is_constant(arch)]
    counts = CELLS.features(CELLS.genes(archs))[:, LIVE + 5 : PATHS]
    for arch, row in zip(archs, counts, strict=True):
        readings = {name: of_a_cell(branches[0]) for name, branches in CELLS.readings(arch).items()}
        merged, fused, written = readings["merged"], readings["fused"], readings["merged-written"]
        assert row[:4].tolist() == [merged["pool", 3], merged["relu", 1], fused["pointwise", 1], fused["conv", 3]]
        assert row[4:6].tolist() == [written["pool", 3], written["relu", 1]]
        assert (row[:4] <= row[4:]).all()
        assert (fused["pool", 3], fused["relu", 1]) == (merged["pool", 3], merged["relu", 1])
    assert (counts[:, :4] < counts[:, 4:]).any(axis=0).all()


def test_nodes_that_hold_one_value() -> None:
    """Values of nodes against names of what they compute, for all cells, edges as written and live ones."""
    genes = np.array([arch.genes for arch in CELLS.enumerate()])
    for keep in (genes > 0, (genes > 0) & (np.arange(6) < 2)):
        found = node_values(genes, keep)
        for row, kept, values in zip(genes.tolist(), keep.tolist(), found.tolist(), strict=True):
            names: list[object] = ["input"]
            for node, edges in ((1, {0: 0}), (2, {1: 0, 2: 1})):
                terms = [(row[edge], names[source]) for edge, source in edges.items() if kept[edge]]
                value: object = ("sum", node)
                if len(terms) == 1:
                    ((op, start),) = terms
                    value = start if op == 1 else ("pool", start) if op == 4 else value
                names.append(value)
            assert values == [names.index(name) for name in names]


def test_fusing_widens_one_convolution() -> None:
    arch = CELLS.from_genes([3, 3, 0, 0, 3, 3])  # two 3x3 on the input, one on each of their results
    live, fused = (CELLS.readings(arch)[name][0] for name in ("live", "fused"))
    assert of_a_cell(live)["conv", 3] == 4
    assert of_a_cell(fused)["conv", 3] == 3
    assert sum(layer.macs for layer in fused) == sum(layer.macs for layer in live)
    skipped = CELLS.from_genes([1, 0, 0, 3, 3, 0])  # node 1 is the input, so both ends are convolutions of one value
    assert of_a_cell(CELLS.readings(skipped)["fused"][0])["conv", 3] == 1


def test_what_merging_does() -> None:
    arch = CELLS.from_genes([3, 2, 4, 4, 4, 3])
    live, merged = (of_a_cell(CELLS.readings(arch)[name][0]) for name in ("live", "merged"))
    assert live - merged == {("relu", 1): 1, ("pool", 3): 1}
    assert not merged - live


def test_constant_networks_fold() -> None:
    constant = CELLS.parse("|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|none~2|")
    readings = CELLS.readings(constant)
    assert len(readings["folded"][0]) == 4
    assert of_a_cell(readings["written"][0])["conv", 3] == 2
    assert not of_a_cell(readings["live"][0])["conv", 3]
    connected = CELLS.parse("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|")
    assert CELLS.readings(connected)["folded"] == CELLS.readings(connected)["written"]
    flags = CELLS.features(CELLS.genes([constant, connected]))[:, CONSTANT : CONSTANT + 5]
    assert flags.tolist() == [[1, 4, 0, 2, 0], [0, 0, 0, 0, 0]]


def test_critical_paths_are_branches() -> None:
    arch = CELLS.parse("|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|")
    readings = CELLS.readings(arch)
    open_paths = [0, 0, 0, 1], [0, 1, 2, 0]
    assert [*map(operations, readings["critical-live"])] == [*open_paths]
    assert [*map(operations, readings["critical-written"])] == [open_paths[0], *2 * [[1, 0, 1, 0]], open_paths[1]]
    lengths = CELLS.features(CELLS.genes([arch]))[0, PATHS:CONSTANT]
    assert lengths.tolist() == [3, 3, 3, 5, 5, 7, 5, 5, 7]


@pytest.mark.parametrize("name", ["fbnet", "fbnet-imagenet"])
def test_fbnet_counts_the_layers_of_each_kind_of_position(name: str) -> None:
    space = get(name)
    assert isinstance(space, FBNet)
    names = [at.name.replace(".block1", " first").partition(".")[0] for at in positions(space.setting)]
    archs = space.sample(50, 3)
    for arch, row in zip(archs, space.features(space.genes(archs)), strict=True):
        counts = Counter(zip(names, arch.genes, strict=True))
        # Blocks of one stage are alike, and so are a first block and those behind it where shapes do not change.
        assert row.sum() - 1 == len(names)
        assert sorted(row[1:][row[1:] > 0]) == sorted(counts.values())
        assert sum(row[1 + op :: len(OPS)].sum() * op for op in range(len(OPS))) == sum(arch.genes)


def test_equal_features_are_equal_layers() -> None:
    space = get("fbnet")
    assert isinstance(space, FBNet)
    rng = np.random.default_rng(0)
    stage = np.array([at.name.partition(".")[0] for at in positions(space.setting)])
    first = np.array([at.name.endswith("block1") for at in positions(space.setting)])

    def shapes(genes: np.ndarray) -> Counter[object]:
        return Counter(
            tuple(getattr(layer, slot) for slot in Layer.__slots__ if slot != "name")
            for layer in space.layers(space.from_genes(genes))
        )

    for arch in space.sample(20, 8):
        genes = np.array(arch.genes)
        shuffled, changed = genes.copy(), genes.copy()
        for name in np.unique(stage):
            alike = (stage == name) & ~first
            shuffled[alike] = rng.permutation(genes[alike])
        place = rng.integers(len(genes))
        changed[place] = (changed[place] + 1 + rng.integers(8)) % 9
        same, shuffled_row, changed_row = space.features(np.stack([genes, shuffled, changed]))
        assert np.array_equal(same, shuffled_row)
        assert shapes(genes) == shapes(shuffled)
        assert not np.array_equal(same, changed_row)


def test_ofa_sums_blocks() -> None:
    space = get("ofa-mobilenetv3")
    archs = space.sample(30, 6)
    for arch, row in zip(archs, space.features(space.genes(archs)), strict=True):
        r = arch.genes[0] / 224
        sums = []
        for price in (lambda k, e: 1, lambda k, e: e, lambda k, e: e * k * k):
            first = [price(*stage[0]) for stage in stages(arch.genes)]
            later = [sum(price(*block) for block in stage[1:]) for stage in stages(arch.genes)]
            sums += [*first, *later]
        assert row == pytest.approx([1, r, r * r, *sums, *(r * r * x for x in sums)])


def test_hat_knows_products() -> None:
    decoder, encoder = get("hat-decoder"), get("hat-encoder")
    row = decoder.features(decoder.genes([decoder.parse("e640|d512|l4|f7680|h10|x22|a6")]))[0]
    assert row == pytest.approx([1, 0.8, 4 / 6, 0.8 * 4 / 6, 3.75, 3, 10 / 6, 22 / 6, 3, 3])
    row = encoder.features(encoder.genes([encoder.parse("d640|f9216|h28")]))[0]
    assert row == pytest.approx([1, 1, 4.5, 4.5, 28 / 6, 28 / 6])


@pytest.mark.parametrize("name", ["fbnet", "ofa-mobilenetv3", "hat-decoder"])
def test_work_is_nearly_linear_in_features(name: str) -> None:
    space = get(name)
    archs = space.sample(260, 9)
    features = space.features(space.genes(archs))
    macs = np.array([sum(layer.macs for layer in space.layers(arch)) for arch in archs], float)
    weights = np.linalg.lstsq(features[:200], macs[:200], rcond=1e-10)[0]
    # Rounded sizes of feature maps are what is left over.
    assert np.abs(features[200:] @ weights / macs[200:] - 1).mean() < 0.05


class Cells(NASBench201):
    """A user's own space: features and readings are those of the base class."""

    name = "cells"
    features = SearchSpace.features
    readings = SearchSpace.readings


def test_default_features_count_numbers_macs_and_bytes() -> None:
    space = Cells()
    archs = space.sample(20, 4)
    found = space.features(space.genes(archs))
    assert (found[~space.constant(space.genes(archs)), 0] == 1).all()
    counts, macs, moved = (found[:, first::3].sum(axis=1) for first in (1, 2, 3))
    for number, arch in enumerate(archs):
        both = [*space.layers(arch), *space.layers(arch, live=True)]
        assert counts[number] == len(both)
        assert macs[number] * 1e6 == pytest.approx(sum(layer.macs for layer in both))
        assert moved[number] * 1e6 == pytest.approx(sum(layer.bytes for layer in both))
