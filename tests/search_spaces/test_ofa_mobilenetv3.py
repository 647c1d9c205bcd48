"""OFA-MobileNetV3 against its definition and, where they are at hand, the published architectures."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest

from latlab.search_spaces import Architecture, get
from latlab.search_spaces.ofa_mobilenetv3.skeleton import make_divisible, stages, widths

SPACE, WIDE = get("ofa-mobilenetv3"), get("ofa-mobilenetv3-w1.2")
TEXT = "r160|k3e3,k5e4|k7e6,k3e3,k5e4|k3e3,k3e3,k3e3,k3e3|k5e6,k5e6|k7e3,k7e4"


def choices_changed(a: Architecture, b: Architecture) -> int:
    """Resolution, depths, and kernels and expansions of the blocks that both have."""
    changed = int(a.genes[0] != b.genes[0])
    for one, other in zip(stages(a.genes), stages(b.genes), strict=True):
        changed += len(one) != len(other)
        for (k1, e1), (k2, e2) in zip(one, other, strict=False):
            changed += (k1 != k2) + (e1 != e2)
    return changed


def test_widths() -> None:
    assert widths(1.0) == (16, 16, 24, 40, 80, 112, 160, 960, 1280)
    assert widths(1.2) == (24, 24, 32, 48, 96, 136, 192, 1152, 1536)
    assert [make_divisible(v) for v in (4, 12, 19.2, 36, 68)] == [8, 16, 24, 40, 72]


def test_a_block_by_hand() -> None:
    """Stage 2, block 1 of `TEXT` at width 1.0: 24 -> 40 channels, k7e6, stride 2, SE, 20 px (160 / 8)."""
    block = [layer for layer in SPACE.layers(SPACE.parse(TEXT)) if layer.name.startswith("stage2.block1.")]
    assert [(layer.kind, layer.out_channels, layer.out_size) for layer in block] == [
        ("pointwise", 144, 40),
        ("relu", 144, 40),
        ("depthwise", 144, 20),
        ("relu", 144, 20),
        ("mean", 144, 1),
        ("pointwise", 40, 1),
        ("relu", 40, 1),
        ("pointwise", 144, 1),
        ("hsigmoid", 144, 1),
        ("mul", 144, 20),
        ("pointwise", 40, 20),
    ]
    assert sum(layer.macs for layer in block) == (
        40 * 40 * 24 * 144 + 20 * 20 * 144 * 49 + 2 * 144 * 40 + 20 * 20 * 144 * 40
    )
    assert sum(layer.params for layer in block) == (
        24 * 144 + 2 * 144 + 49 * 144 + 2 * 144 + (144 * 40 + 40) + (40 * 144 + 144) + 144 * 40 + 2 * 40
    )


def test_stages_have_their_activations_strides_and_gates() -> None:
    layers = SPACE.layers(SPACE.parse(TEXT))
    activations = {layer.name.split(".")[0]: layer.kind for layer in layers if "depthwise." in layer.name}
    relu, hswish = ["first", "stage1", "stage2"], ["stage3", "stage4", "stage5"]
    assert activations == dict.fromkeys(relu, "relu") | dict.fromkeys(hswish, "hswish")
    assert {layer.name.split(".")[0] for layer in layers if layer.kind == "mul"} == {"stage2", "stage4", "stage5"}
    sizes = {layer.name.split(".")[0]: layer.out_size for layer in layers}
    assert [sizes[name] for name in ("stem", *relu, *hswish)] == [80, 80, 40, 20, 10, 10, 5]
    assert [layer.name for layer in layers if layer.name.startswith("first")] == [
        "first.depthwise",
        "first.depthwise.relu",
        "first.project",
        "first.add",
    ]
    assert [layer.out_channels for layer in layers[-6:]] == [960, 960, 960, 1280, 1280, 1000]


def test_genes_beyond_the_depth_are_ignored() -> None:
    arch = SPACE.parse(TEXT)
    assert arch.genes[:6] == (160, 2, 3, 4, 2, 2)
    assert arch.genes[6:10] == (3, 5, 0, 0)
    filled = list(arch.genes)
    filled[8], filled[28] = 7, 6
    assert SPACE.from_genes(filled) == arch
    assert SPACE.from_genes(filled).genes == arch.genes


def test_mutation_changes_one_choice_that_is_used() -> None:
    for seed, arch in enumerate(SPACE.sample(300)):
        assert choices_changed(arch, SPACE.mutate(arch, Random(seed))) == 1


def test_samples_cover_every_choice_evenly() -> None:
    archs = SPACE.sample(3000, seed=1)
    genes = np.array([arch.genes for arch in archs])
    assert np.unique(genes[:, 0]).tolist() == list(range(128, 225, 4))
    for column, values in ((1, (2, 3, 4)), (6, (3, 5, 7)), (26, (3, 4, 6))):
        shares = [(genes[:, column] == value).mean() for value in values]
        assert np.allclose(shares, 1 / 3, atol=0.05)


def test_encodings() -> None:
    arch = SPACE.parse(TEXT)
    shapes = {name: SPACE.encode([arch], name).shape[1:] for name in SPACE.encodings}
    assert shapes == {"one-hot": (160,), "graph": (22, 22 + 35), "help": (145,), "ofa": (128,)}
    helps, ofa = SPACE.encode([arch], "help")[0], SPACE.encode([arch], "ofa")[0]
    kernels, expansions = helps[:60].reshape(20, 3), helps[60:120].reshape(20, 3)
    assert kernels[:5].astype(int).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert expansions[:5].astype(int).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert helps[120:].argmax() == (160 - 128) // 4
    assert helps.sum() == ofa.sum() == 2 * 13 + 1
    assert np.array_equal(ofa[:120], helps[:120])
    assert ofa[120:].argmax() == (160 - 112) // 16
    one_hot = SPACE.encode([arch], "one-hot")[0]
    assert one_hot[25:40].reshape(5, 3).argmax(axis=1).tolist() == [0, 1, 2, 0, 0]


def test_graph_bridges_absent_blocks() -> None:
    graph = SPACE.encode([SPACE.parse(TEXT)], "graph")[0]
    present = [0, 1, 2, 5, 6, 7, 9, 10, 11, 12, 13, 14, 17, 18, 21]
    assert np.argwhere(graph[:, :22]).tolist() == [list(pair) for pair in pairwise(present)]
    assert graph[0, 22:].argmax() == (160 - 128) // 4
    assert graph[5, 22 + 25 :].argmax() == 8


@pytest.mark.data
def test_macs_of_the_published_architectures(data: Path) -> None:
    """In the order of the file; HELP prints them in millions."""
    published = json.loads((data / "help_ofa_published_architectures.json").read_text())
    macs = []
    for entry in published:
        config = entry["config"]
        arch = WIDE.from_genes([config["r"], *config["d"], *config["ks"], *config["e"]])
        macs.append(round(sum(layer.macs for layer in WIDE.layers(arch)) / 1e6))
    assert macs == [336, 375, 230, 268, 346, 243, 279]


@pytest.mark.data
def test_published_samples_and_references(data: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(data / "ofa_mobilenetv3_latency_ms.parquet", columns=["ks", "e", "d", "r"])
    archs = [SPACE.from_genes([row.r, *row.d, *row.ks, *row.e]) for row in table.itertuples()]
    assert len(set(archs)) == 5000
    indices = json.loads((data / "help_reference_architectures.json").read_text())["ofa_mobilenetv3"]
    assert list(SPACE.references()) == [archs[index] for index in indices]
