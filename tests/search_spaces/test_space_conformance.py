"""What every search space must fulfil; a newly installed space inherits all of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from network_spaces import NETWORK_SPACES
from table_space import install
from torch import nn

from latlab.harness.architectures import space_to_measure
from latlab.harness.errors import BadInputError
from latlab.search_spaces import SearchSpace, UnknownSpaceError, get, names
from latlab.search_spaces.op_counter import count_operators
from latlab.search_spaces.torch_modules import images

networks = pytest.mark.parametrize("space", NETWORK_SPACES, indirect=True)
"""Of spaces that have networks, and not only architectures to predict."""


def test_unknown_space_names_those_that_exist() -> None:
    with pytest.raises(UnknownSpaceError, match=r"'nosuch'.*nasbench201"):
        get("nosuch")


def test_importing_spaces_does_not_import_torch() -> None:
    code = (
        "import sys, latlab.search_spaces as s; [s.get(n).layers(s.get(n).sample(1)[0]) for n in s.names()]; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_samples_are_distinct_repeatable_and_grow(space: SearchSpace) -> None:
    longer = space.sample(60, seed=11)
    assert len(set(longer)) == 60
    assert space.sample(25, seed=11) == longer[:25]
    assert space.sample(25, seed=12) != longer[:25]
    assert space.sample(5, seed=Random(11)) == longer[:5]


def test_a_finite_space_can_be_sampled_whole(space: SearchSpace) -> None:
    if not space.finite:
        pytest.skip(f"{space.name} is too large")
    whole = space.sample(space.size, seed=2)
    assert len(set(whole)) == space.size
    assert space.sample(space.size - 7, seed=2) == whole[:-7]


def test_more_than_the_space_has_is_refused(space: SearchSpace) -> None:
    with pytest.raises(ValueError, match="has only"):
        space.sample(space.size + 1)


def test_enumerate_is_the_whole_space_or_refuses(space: SearchSpace) -> None:
    if space.finite:
        assert len(set(space.enumerate())) == space.size
    else:
        with pytest.raises(NotImplementedError, match="sample it"):
            next(iter(space.enumerate()))


def test_mutants_are_neighbours_in_the_space(space: SearchSpace) -> None:
    arch = space.sample(1, seed=4)[0]
    mutants = [space.mutate(arch, Random(seed)) for seed in range(400)]
    assert arch not in mutants
    assert mutants[:9] == [space.mutate(arch, Random(seed)) for seed in range(9)]
    assert all(space.parse(str(mutant)) == mutant for mutant in mutants)
    changed = {place for mutant in mutants for place, gene in enumerate(mutant.genes) if gene != arch.genes[place]}
    assert changed >= {place for place, gene in enumerate(arch.genes) if gene}, "some choice never changes"


def test_children_take_each_choice_from_a_parent(space: SearchSpace) -> None:
    a, b = space.sample(2, seed=5)
    children = {space.crossover(a, b, Random(seed)) for seed in range(40)}
    assert len(children) > 1
    for child in children:
        assert space.parse(str(child)) == child
        assert all(gene in pair for gene, *pair in zip(child.genes, a.genes, b.genes, strict=True))
    assert space.crossover(a, a, Random(0)) == a


def test_arrays_of_genes_mutate_to_neighbours(space: SearchSpace) -> None:
    genes = np.repeat(space.genes(space.sample(1, seed=4)), 400, axis=0)
    mutants = space.mutate_genes(genes, np.random.default_rng(0))
    one_by_one = {space.mutate(space.from_genes(genes[0]), Random(seed)) for seed in range(400)}
    assert space.valid(mutants).all()
    assert (mutants != genes).any(axis=1).all()
    assert ((mutants != genes) & (genes != 0)).any(axis=0).sum() == (genes[0] != 0).sum(), "some choice never changes"
    most = max(sum(x != y for x, y in zip(arch.genes, genes[0], strict=True)) for arch in one_by_one)
    assert (mutants != genes).sum(axis=1).max() <= most
    np.testing.assert_array_equal(mutants, space.mutate_genes(genes, np.random.default_rng(0)))
    np.testing.assert_array_equal(mutants[:9], space.genes([space.from_genes(row) for row in mutants[:9]]))


def test_arrays_of_genes_take_each_choice_from_a_parent(space: SearchSpace) -> None:
    a, b = (space.genes(space.sample(50, seed=seed)) for seed in (5, 6))
    children = space.crossover_genes(a, b, np.random.default_rng(0))
    assert space.valid(children).all()
    assert ((children == a) | (children == b) | (children == 0)).all()
    assert (children != a).any()
    assert (children != b).any()
    np.testing.assert_array_equal(space.crossover_genes(a, a, np.random.default_rng(0)), a)
    np.testing.assert_array_equal(children[:9], space.genes([space.from_genes(row) for row in children[:9]]))


def test_references_are_ten_networks_of_the_space(space: SearchSpace) -> None:
    references = space.references()
    assert len(set(references)) == 10
    assert all(space.parse(str(arch)) == arch for arch in references)


def spreads_behind_batch_norms(module: nn.Module, x: torch.Tensor) -> list[float]:
    spreads: list[float] = []
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.register_forward_hook(lambda _part, _inputs, out: spreads.append(out.std().item()))
    module(x)
    return spreads


def test_a_space_of_tables_only_is_named_and_cannot_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch)
    assert "tables-only" in {*names()} - {*names(buildable=True)}
    with pytest.raises(BadInputError, match="tables-only cannot be measured: it has no networks to build"):
        space_to_measure("tables-only")


@networks
@pytest.mark.parametrize("as_written", [False, True])
def test_build_gives_a_calibrated_network(space: SearchSpace, as_written: bool) -> None:
    for arch in [a for a in space.sample(4, seed=6) if not space.is_constant(a)][:2]:
        module = space.build(arch, as_written=as_written)
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())
        x = images(6, space.input_shape(arch), 1234)
        y, spreads = module(x), spreads_behind_batch_norms(module, x)
        assert y.shape == ((6, space.num_classes) if space.num_classes else (6, *space.input_shape(arch)[1:]))
        # Order 1 on images that calibration has not seen.
        assert len(spreads) == sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())
        assert all(0.2 < spread < 5 for spread in spreads)
        change = (y.amax(0) - y.amin(0)).max().item()
        assert 0.1 < change < 50
        torch.testing.assert_close(module(x[2:3]), y[2:3], rtol=1e-3, atol=1e-4 * change)


@networks
def test_every_operator_costs_what_layers_says(space: SearchSpace) -> None:
    for arch in space.sample(3, seed=7):
        for as_written in (False, True):
            module = space.build(arch, as_written=as_written)
            layers = space.layers(arch, live=not as_written)
            counted = [(layer.kind, layer.macs, layer.params, layer.activations) for layer in layers]
            executed = [
                (row.kind, row.macs, row.params, row.activations)
                for row in count_operators(module, space.input_shape(arch))
            ]
            if any(kind == "hardtanh" for kind, *_ in executed):
                # Published forms of h_swish and means are several operators of one layer.
                executed = [row for row in executed if row[2]]
                counted = [row for row in counted if row[2]]
            assert executed == counted
            assert sum(layer.params for layer in layers) == sum(p.numel() for p in module.parameters())


@networks
def test_layers_agree_with_forward_hooks(space: SearchSpace) -> None:
    arch = space.sample(1, seed=8)[0]
    module = space.build(arch, as_written=True)
    found: list[tuple[int, int, int, int, int]] = []

    def hook(part: nn.Module, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        if isinstance(part, nn.Conv2d):
            found.append((part.kernel_size[0], part.stride[0], part.groups, inputs[0].shape[-1], out.shape[-1]))

    for part in module.modules():
        part.register_forward_hook(hook)
    module(torch.zeros(1, *space.input_shape(arch)))
    convolutions = [
        layer for layer in space.layers(arch) if layer.kind in {"conv", "pointwise", "grouped", "depthwise"}
    ]
    assert found == [(c.kernel, c.stride, c.groups, c.in_size, c.out_size) for c in convolutions]


def test_layer_names_are_unique_and_bytes_positive(space: SearchSpace) -> None:
    layers = space.layers(space.sample(1, seed=9)[0])
    assert len({layer.name for layer in layers}) == len(layers)
    for layer in layers:
        assert layer.bytes == 4 * (layer.in_elements + layer.params + layer.activations) > 0


@networks
def test_pruned_and_as_written_agree(space: SearchSpace) -> None:
    for arch in space.sample(4, seed=10):
        pruned, written = space.build(arch), space.build(arch, as_written=True)
        everything = written.state_dict()
        for name, tensor in pruned.named_parameters():
            assert torch.equal(tensor, everything[name]), name
        x = images(2, space.input_shape(arch), 99)
        torch.testing.assert_close(pruned(x), written(x), rtol=1e-3, atol=1e-4)
        live, total = space.layers(arch, live=True), space.layers(arch)
        assert sum(layer.macs for layer in live) <= sum(layer.macs for layer in total)


@networks
def test_weights_come_from_the_seed(space: SearchSpace) -> None:
    arch = space.sample(1, seed=13)[0]
    first, again, other = (space.build(arch, seed=seed).state_dict() for seed in (0, 0, 1))
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@networks
def test_canonical_architectures_build_the_same_network(space: SearchSpace) -> None:
    for arch in space.sample(6, seed=14):
        canonical = space.canonical(arch)
        assert space.canonical(canonical) == canonical
        one, two = space.build(arch).state_dict(), space.build(canonical).state_dict()
        assert list(one) == list(two)
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert space.layers(arch, live=True) == space.layers(canonical, live=True)
        assert space.is_constant(arch) == space.is_constant(canonical)


@networks
@pytest.mark.parametrize("as_written", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_networks_can_be_traced(space: SearchSpace, as_written: bool) -> None:
    arch = space.sample(1, seed=15)[0]
    module = space.build(arch, as_written=as_written)
    x = images(2, space.input_shape(arch), 7)
    y = module(x)
    assert torch.equal(torch.fx.symbolic_trace(module)(x), y)
    traced = torch.jit.trace(module, x[:1], check_trace=False)
    torch.testing.assert_close(traced(x), y)


def test_encodings_are_float32_rows(space: SearchSpace) -> None:
    archs = space.sample(30, seed=16)
    for encoding in space.encodings:
        encoded = space.encode(archs, encoding)
        assert encoded.dtype == np.float32
        assert np.isfinite(encoded).all()
        assert np.array_equal(space.encode(archs[3:4], encoding)[0], encoded[3])
        assert space.encode([], encoding).shape == (0, *encoded.shape[1:])
    one_hot = space.encode(archs, "one-hot")
    assert one_hot.ndim == 2
    assert set(np.unique(one_hot)) == {0.0, 1.0}
    assert len(np.unique(one_hot, axis=0)) == len(archs)


def test_graphs_are_acyclic_and_labelled(space: SearchSpace) -> None:
    if "graph" not in space.encodings:
        pytest.skip(f"{space.name} has no graphs")
    archs = space.sample(30, seed=17)
    graphs = space.encode(archs, "graph")
    nodes = graphs.shape[1]
    adjacency, operations = graphs[..., :nodes], graphs[..., nodes:]
    assert not np.tril(adjacency).any()
    present = operations.sum(axis=2)
    assert set(np.unique(present)) <= {0.0, 1.0}
    assert (present[:, [0, -1]] == 1).all()
    # Everything present lies on a way from the input to the output; everything absent has no edge.
    assert np.array_equal(adjacency[:, :-1].any(axis=2), present[:, :-1] > 0)
    assert np.array_equal(adjacency[:, :, 1:].any(axis=1), present[:, 1:] > 0)
    assert len({graph.tobytes() for graph in graphs}) == len(archs)


def test_unknown_encoding_names_those_that_exist(space: SearchSpace) -> None:
    with pytest.raises(ValueError, match=r"no encoding 'nosuch'.*one-hot"):
        space.encode(space.sample(1), "nosuch")


def test_genes_are_checked_and_made_canonical_as_architectures_are(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    archs = space.sample(min(300, space.size), 3)
    genes = space.genes(archs)
    assert space.valid(genes).all()
    np.testing.assert_array_equal(space.canonical_genes(genes), space.genes([space.canonical(arch) for arch in archs]))
    spoilt = genes.copy()
    places = rng.integers(0, genes.shape[1], len(genes))
    spoilt[np.arange(len(genes)), places] += rng.choice([-1000, -1, 1, 2, 1000], len(genes))
    good = space.valid(spoilt)
    assert good.tolist() == [SearchSpace._is_architecture(space, row) for row in spoilt]
    kept = spoilt[good]
    np.testing.assert_array_equal(
        space.canonical_genes(kept), space.genes([space.canonical(space.from_genes(row)) for row in kept])
    )
