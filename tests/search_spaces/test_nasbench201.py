"""NAS-Bench-201 against the facts that its authors published."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from latlab.search_spaces import Architecture, ArchitectureError, CellEdge, get
from latlab.search_spaces.nasbench201.cell import EDGES, live_edges, to_unique_str
from latlab.search_spaces.nasbench201.space import NASBench201
from latlab.search_spaces.torch_modules import images

SPACE = NASBench201()


@pytest.fixture(scope="module")
def everything() -> list[Architecture]:
    return list(SPACE.enumerate())


def test_official_order_is_the_authors_shuffle(everything: list[Architecture]) -> None:
    genes = list(itertools.product(range(5), repeat=6))
    random.seed(88)
    random.shuffle(genes)
    assert [arch.genes for arch in everything] == genes
    assert str(everything[0]) == (
        "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
    )


def test_an_official_index_gives_its_architecture(everything: list[Architecture]) -> None:
    for index in (0, 1, 11982, 15624):
        assert SPACE.at(index) == everything[index]
    for index in (-1, 15625):
        with pytest.raises(ArchitectureError, match="not in 0-15624"):
            SPACE.at(index)


def test_sizes(everything: list[Architecture]) -> None:
    assert len({str(arch) for arch in everything}) == 15625
    assert len({to_unique_str(arch.genes) for arch in everything}) == 6466
    assert sum(not SPACE.is_constant(arch) for arch in everything) == 15284


def test_unique_string_follows_the_definition() -> None:
    # none, conv1x1 | skip | none, pool, conv3x3
    arch = SPACE.parse("|none~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|")
    assert to_unique_str(arch.genes) == "#+#+(#+(0)@nor_conv_1x1)@nor_conv_3x3"


def test_live_edges_lie_on_a_path_from_input_to_output(everything: list[Architecture]) -> None:
    paths = [((3, 0),), ((1, 0), (3, 1)), ((2, 0), (3, 2)), ((1, 0), (2, 1), (3, 2))]
    for arch in everything[::7]:
        op = dict(zip(EDGES, arch.genes, strict=True))
        on_path = {edge for path in paths if all(op[edge] for edge in path) for edge in path}
        assert live_edges(arch.genes) == tuple(edge in on_path for edge in EDGES)


def test_published_extremes_of_cost() -> None:
    """The largest and the smallest: 1.531546 and 0.073306 million parameters in the authors' table."""
    largest, smallest = SPACE.from_genes([3] * 6), SPACE.from_genes([0] * 6)
    assert sum(layer.params for layer in SPACE.layers(largest)) == 1_531_546
    assert sum(layer.params for layer in SPACE.layers(smallest)) == 73_306
    # Their FLOPs (220.11969 million) also count the ten biases of the classifier.
    assert sum(layer.macs for layer in SPACE.layers(largest)) == 220_119_680


def test_dead_edges_cost_nothing_live() -> None:
    dead_end = SPACE.parse("|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|")
    alone = SPACE.parse("|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|")
    assert SPACE.canonical(dead_end) == alone
    assert SPACE.layers(dead_end, live=True) == SPACE.layers(alone, live=True)
    assert len(SPACE.layers(dead_end)) > len(SPACE.layers(dead_end, live=True))
    names = [layer.name for layer in SPACE.layers(dead_end) if layer.name.startswith("cell1.")]
    assert names == [
        "cell1.1<-0.relu",
        "cell1.1<-0.conv",
        "cell1.2<-0.zero",
        "cell1.2<-1.zero",
        "cell1.2<-1.add",
        "cell1.3<-0.relu",
        "cell1.3<-0.conv",
        "cell1.3<-1.zero",
        "cell1.3<-1.add",
        "cell1.3<-2.relu",
        "cell1.3<-2.conv",
        "cell1.3<-2.add",
    ]


@pytest.mark.parametrize("as_written", [False, True])
def test_unconnected_cells_give_a_constant(as_written: bool) -> None:
    arch = SPACE.parse("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|")
    assert SPACE.is_constant(arch)
    y = SPACE.build(arch, as_written=as_written)(images(4, (3, 32, 32), 5))
    assert torch.equal(y, y[:1].expand_as(y))


def test_a_cell_computes_what_its_string_says() -> None:
    arch = SPACE.parse("|avg_pool_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|nor_conv_1x1~1|avg_pool_3x3~2|")
    cell = SPACE.build(arch).get_submodule("body.0")
    x = images(2, (16, 8, 8), 3)

    def convolution(edge: str, y: torch.Tensor) -> torch.Tensor:
        _, conv, norm = cell.get_submodule(edge).children()
        y = F.conv2d(F.relu(y), conv.weight, padding=conv.weight.shape[-1] // 2)
        return F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5)

    def pool(y: torch.Tensor) -> torch.Tensor:
        inside = F.avg_pool2d(torch.ones_like(y), 3, stride=1, padding=1)
        return F.avg_pool2d(y, 3, stride=1, padding=1) / inside

    one, two = pool(x), convolution("edge2_0", x)
    torch.testing.assert_close(cell(x), x + convolution("edge3_1", one) + pool(two))


def test_mutation_changes_one_edge() -> None:
    for seed, arch in enumerate(SPACE.sample(50)):
        mutant = SPACE.mutate(arch, random.Random(seed))
        assert sum(a != b for a, b in zip(arch.genes, mutant.genes, strict=True)) == 1


def test_graph_joins_edges_that_meet() -> None:
    graph = SPACE.encode([SPACE.from_genes([0, 1, 2, 3, 4, 0])], "graph")[0]
    assert graph.shape == (8, 15)
    assert np.argwhere(graph[:, :8]).tolist() == [
        [0, 1], [0, 2], [0, 4], [1, 3], [1, 5], [2, 6], [3, 6], [4, 7], [5, 7], [6, 7],
    ]  # fmt: skip
    assert graph[:, 8:].argmax(axis=1).tolist() == [0, 1, 2, 3, 4, 5, 1, 6]


@pytest.mark.data
def test_order_of_the_published_table(data: Path, everything: list[Architecture]) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(data / "nasbench201_latency_ms.parquet", columns=["arch"])
    assert [str(arch) for arch in everything] == table["arch"].tolist()


def test_edges_of_a_cell_for_a_drawing() -> None:
    arch = SPACE.parse("|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|avg_pool_3x3~2|")
    assert SPACE.cell_edges(arch) == (
        CellEdge(0, 1, "nor_conv_3x3", False),
        CellEdge(0, 3, "skip_connect", True),
        CellEdge(2, 3, "avg_pool_3x3", False),
    )
    fbnet = get("fbnet")
    assert fbnet.cell_edges(fbnet.sample(1, 0)[0]) == ()
