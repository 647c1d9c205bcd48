"""CompOFA against its definition: networks of OFA-MobileNetV3 whose depths decide their expansions."""

from __future__ import annotations

import numpy as np
import pytest

from latlab.search_spaces import ArchitectureError, get
from latlab.search_spaces.ofa_mobilenetv3.compofa import CompOFA
from latlab.search_spaces.ofa_mobilenetv3.skeleton import stages

OFA = get("ofa-mobilenetv3")
FIXED = "r160|k3e3,k3e3|k5e4,k5e4,k5e4|k3e6,k3e6,k3e6,k3e6|k3e3,k3e3|k5e4,k5e4,k5e4"
ELASTIC = "r160|k3e3,k7e3|k5e4,k3e4,k5e4|k7e6,k3e6,k5e6,k3e6|k3e3,k3e3|k7e4,k5e4,k3e4"


@pytest.fixture(params=["compofa", "compofa-elastic"])
def compofa(request: pytest.FixtureRequest) -> CompOFA:
    space = get(request.param)
    assert isinstance(space, CompOFA)
    return space


def test_sizes() -> None:
    """243 networks of each resolution with fixed kernels (section 3.3 of the paper)."""
    assert get("compofa").size == 25 * 243 == len(list(get("compofa").enumerate()))
    assert get("compofa-elastic").size == 25 * (9 + 27 + 81) ** 5


def test_depth_decides_expansion(compofa: CompOFA) -> None:
    for arch in compofa.sample(50):
        for stage in stages(OFA.parse(arch.text).genes):
            assert {expansion for _, expansion in stage} == {{2: 3, 3: 4, 4: 6}[len(stage)]}


def test_kernels_are_those_of_mobilenetv3() -> None:
    for arch in get("compofa").sample(50):
        kernels = [{kernel for kernel, _ in stage} for stage in stages(OFA.parse(arch.text).genes)]
        assert kernels == [{3}, {5}, {3}, {3}, {5}]


def test_it_is_the_network_of_ofa(compofa: CompOFA) -> None:
    archs = compofa.sample(20, 3)
    same = [OFA.parse(arch.text) for arch in archs]
    assert np.array_equal(compofa.ofa_genes(compofa.genes(archs)), OFA.genes(same))
    for encoding in compofa.encodings:
        assert np.array_equal(compofa.encode(archs, encoding), OFA.encode(same, encoding))
    assert np.array_equal(compofa.features(compofa.genes(archs)), OFA.features(OFA.genes(same)))
    assert compofa.layers(archs[0]) == OFA.layers(same[0])


def test_what_is_written_is_what_is_meant() -> None:
    fixed, elastic = get("compofa"), get("compofa-elastic")
    assert fixed.parse(FIXED).genes == (160, 2, 3, 4, 2, 3)
    assert elastic.parse(FIXED).genes[6:] == (3, 3, 0, 0, 5, 5, 5, 0, 3, 3, 3, 3, 3, 3, 0, 0, 5, 5, 5, 0)
    assert elastic.parse(ELASTIC).text == ELASTIC
    with pytest.raises(ArchitectureError, match=r"compofa has no .*its network is r160\|k3e3,k3e3\|"):
        fixed.parse(ELASTIC)
    with pytest.raises(ArchitectureError, match="compofa-elastic has no"):
        elastic.parse(FIXED.replace("k3e6,k3e6,k3e6,k3e6", "k3e6,k3e6,k3e6,k3e3"))


@pytest.mark.parametrize(
    ("genes", "words"),
    [
        ([160, 2, 3, 4, 2], r"compofa: genes are 6 numbers \(resolution, 5 depths\), not 5"),
        ([160, 2, 3, 5, 2, 3], "compofa: stage 3 has depth 5"),
        ([161, 2, 3, 4, 2, 3], "compofa: resolution 161"),
        ([160, 2, 3, 4.5, 2, 3], "compofa: genes are integers"),
    ],
)
def test_genes_of_no_network(genes: list[int], words: str) -> None:
    with pytest.raises(ArchitectureError, match=words):
        get("compofa").from_genes(genes)


def test_valid_says_what_from_genes_takes(compofa: CompOFA) -> None:
    chance = np.random.default_rng(0)
    genes = compofa.genes(compofa.sample(200))
    rows, places = np.arange(200), chance.integers(0, compofa.num_genes, 200)
    genes[rows, places] += chance.integers(-9, 9, 200)
    assert np.array_equal(compofa.valid(genes), [compofa._is_architecture(row) for row in genes])
