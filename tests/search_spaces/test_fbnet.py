"""FBNet against hand counts and, where they are at hand, the published tables."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest

from latlab.search_spaces import get
from latlab.search_spaces.fbnet.skeleton import OPS, STAGE_CHANNELS
from latlab.search_spaces.torch_modules import ChannelShuffle, images

CIFAR, IMAGENET = get("fbnet"), get("fbnet-imagenet")
SKIPS = [8] * 22


def test_parameters_of_the_network_of_skips() -> None:
    """Only the stem, the six changes of width and the head remain."""
    stem = 3 * 16 * 9 + 2 * 16
    widths = [16, *STAGE_CHANNELS]
    changes = sum(a * b + 2 * b for a, b in pairwise(widths) if a != b)
    head = 352 * 1504 + 2 * 1504 + 1504 * 100 + 100
    assert sum(layer.params for layer in CIFAR.layers(CIFAR.from_genes(SKIPS))) == stem + changes + head


@pytest.mark.parametrize("op", range(8))
def test_macs_of_one_block(op: int) -> None:
    """Layer 2 (16 -> 24 channels at 32 px, stride 1) instead of a skip."""
    genes = list(SKIPS)
    genes[1] = op
    choice = OPS[op]
    assert choice is not None
    middle = 16 * choice.expansion
    block = 32 * 32 * (16 * middle // choice.groups + middle * choice.kernel**2 + middle * 24 // choice.groups)
    skip = 32 * 32 * 16 * 24
    macs = [sum(layer.macs for layer in CIFAR.layers(CIFAR.from_genes(g))) for g in (genes, SKIPS)]
    assert macs[0] - macs[1] == block - skip


def test_settings_differ_in_resolution_head_and_strides() -> None:
    for space, size, stem, final, head, classes in (
        (CIFAR, 32, 32, 4, 1504, 100),
        (IMAGENET, 224, 112, 7, 1984, 1000),
    ):
        layers = {layer.name: layer for layer in space.layers(space.from_genes([0] * 22))}
        assert space.input_shape(space.sample(1)[0]) == (3, size, size)
        assert layers["stem.conv"].out_size == stem
        assert layers["head.conv"].out_size == final
        assert (layers["classifier"].in_channels, layers["classifier"].out_channels) == (head, classes)


def test_shuffle_interleaves_groups() -> None:
    x = images(2, (6, 3, 3), 0)
    assert np.array_equal(ChannelShuffle(6, 2, 3)(x).numpy(), x[:, [0, 3, 1, 4, 2, 5]].numpy())


def test_mutation_changes_one_layer() -> None:
    for seed, arch in enumerate(CIFAR.sample(50)):
        mutant = CIFAR.mutate(arch, Random(seed))
        assert sum(a != b for a, b in zip(arch.genes, mutant.genes, strict=True)) == 1


def test_help_encoding() -> None:
    encoded = CIFAR.encode([CIFAR.from_genes([0, 3, 4, 6, 8, *[8] * 17])], "help")[0].reshape(22, 6)
    assert encoded[:5].astype(int).tolist() == [
        [1, 0, 1, 0, 0, 0],
        [1, 0, 0, 0, 0, 1],
        [0, 1, 1, 0, 0, 0],
        [0, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    assert not encoded[5:].any()


def test_shapes_of_encodings() -> None:
    archs = CIFAR.sample(4)
    assert CIFAR.encode(archs, "one-hot").shape == (4, 198)
    assert CIFAR.encode(archs, "graph").shape == (4, 24, 24 + 11)
    assert CIFAR.encode(archs, "help").shape == (4, 132)


@pytest.mark.data
def test_parameters_and_references_of_the_published_tables(data: Path) -> None:
    pandas = pytest.importorskip("pandas")
    ops = pandas.read_parquet(data / "fbnet_latency_ms.parquet", columns=["ops"])["ops"]
    params = pandas.read_parquet(data / "fbnet_zcp.parquet", columns=["params"])["params"]
    archs = [CIFAR.from_genes(genes) for genes in ops]
    assert len(archs) == 5000
    counted = [sum(layer.params for layer in CIFAR.layers(arch)) for arch in archs]
    assert counted == params.astype(int).tolist()
    indices = json.loads((data / "help_reference_architectures.json").read_text())["fbnet"]
    assert list(CIFAR.references()) == [archs[index] for index in indices]
