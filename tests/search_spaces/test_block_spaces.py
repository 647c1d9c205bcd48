"""Blocks add up to networks, and each is a network that can be built."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pytest
import torch

from latlab.search_spaces import Architecture, ArchitectureError, BlockSpace, Layer, UnknownSpaceError, blocks_of, get
from latlab.search_spaces.fbnet.space import FBNetCIFAR
from latlab.search_spaces.op_counter import count_operators
from latlab.search_spaces.torch_modules import images

WHOLE = ("nasbench201", "fbnet", "fbnet-imagenet", "ofa-mobilenetv3", "ofa-mobilenetv3-w1.2", "compofa")
SIZES = {
    "nasbench201": 4 * 3 + 3 + 4,
    "fbnet": 12 * 9 - 6 + 2,
    "ofa-mobilenetv3": 25 * (2 * 5 * 9 + 3),
    "compofa": 25 * (2 * 5 * 3 + 3),
}


@pytest.fixture(params=WHOLE)
def blocks(request: pytest.FixtureRequest) -> BlockSpace:
    found = get(f"{request.param}-blocks")
    assert isinstance(found, BlockSpace)
    return found


def costs(layers: tuple[Layer, ...]) -> Counter[tuple[object, ...]]:
    """What is executed, wherever it stands."""
    return Counter(tuple(getattr(layer, name) for name in Layer.__slots__ if name != "name") for layer in layers)


def test_layers_of_the_blocks_are_those_of_the_network(blocks: BlockSpace) -> None:
    archs = blocks.whole.sample(15, 4)
    ids = blocks.ids(blocks.whole.genes(archs))
    assert ids.shape == (15, len(blocks.places)) == (15, len(blocks.repeats))
    for arch, row in zip(archs, ids, strict=True):
        total: Counter[tuple[object, ...]] = Counter()
        for number, repeats in zip(row, blocks.repeats, strict=True):
            if number >= 0:
                for layer, count in costs(blocks.layers(blocks.from_genes([number]))).items():
                    total[layer] += count * int(repeats)
        assert total == costs(blocks.whole.layers(arch))


def test_every_block_is_distinct_and_used(blocks: BlockSpace) -> None:
    assert len(set(blocks.block_names)) == blocks.size == len(blocks.kinds)
    assert blocks.size == SIZES.get(blocks.whole.name, blocks.size)
    used = np.unique(blocks.ids(blocks.whole.genes(blocks.whole.sample(3000, 1))))
    assert set(used) - {-1} == set(range(blocks.size))


def test_blocks_build_what_they_cost(blocks: BlockSpace) -> None:
    """Hooks on the built block see the layers that are counted."""
    chosen = {arch.text: arch for arch in (*blocks.sample(6, 2), *(blocks.from_genes([blocks.size - 1]),))}
    for name in ("stem", "head", "reduction1", "stage2/add", "stage1/none", "r160/stem", "r160/head", "r160/first"):
        if name in blocks.block_names:
            chosen[name] = blocks.parse(name)
    for arch in chosen.values():
        seen = count_operators(blocks.build(arch, as_written=True), blocks.input_shape(arch))
        assert sum(layer.macs for layer in seen) == sum(layer.macs for layer in blocks.layers(arch)), arch
        assert sum(layer.params for layer in seen) == sum(layer.params for layer in blocks.layers(arch)), arch


def test_blocks_are_a_space(blocks: BlockSpace) -> None:
    arch = blocks.sample(1, 5)[0]
    assert blocks.parse(f" {arch} ") == blocks.from_genes(arch.genes) == arch
    assert blocks.mutate(arch, Random(0)) != arch
    assert get(blocks.name) is blocks
    assert blocks.encode([arch], "one-hot").sum() == 1
    for wrong in ("stage9/nothing", ""):
        with pytest.raises(ArchitectureError, match=blocks.name):
            blocks.parse(wrong)
    with pytest.raises(ArchitectureError):
        blocks.from_genes([blocks.size])


def test_unknown_blocks() -> None:
    with pytest.raises(UnknownSpaceError, match="unknown search space 'pudding-blocks'"):
        get("pudding-blocks")


def test_as_written_reaches_the_blocks() -> None:
    """The published and the short forms of activations give the same numbers."""
    blocks = get("ofa-mobilenetv3-blocks")
    arch: Architecture = blocks.parse("r128/stage5.later/k3e4")
    x = images(2, blocks.input_shape(arch), 1)
    written, short = (blocks.build(arch, as_written=flag)(x) for flag in (True, False))
    assert torch.allclose(written, short, atol=1e-4)


def test_the_registry_knows_the_blocks_of_a_space() -> None:
    assert blocks_of(get("fbnet")) is get("fbnet-blocks")
    assert blocks_of(get("hat-encoder")) is None
    assert blocks_of(get("fbnet-blocks")) is None


def test_a_users_variant_of_a_space_has_its_blocks() -> None:
    class Own(FBNetCIFAR):
        name = "own"

    blocks = blocks_of(Own())
    assert blocks is not None
    assert blocks.name == "own-blocks"
    assert blocks.size == SIZES["fbnet"]
