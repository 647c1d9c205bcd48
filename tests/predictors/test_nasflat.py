"""NASFLAT: its network's shortcuts change nothing, and pre-training on devices helps with the next one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transfer_devices import DEVICES, latency, sources

from latlab.predictors.base import SourceDevice
from latlab.predictors.bases.fine_tuning import Settings
from latlab.predictors.common.metrics import spearman
from latlab.predictors.nasflat import Nasflat
from latlab.predictors.nasflat.network import GraphLayer, Graphs, Network
from latlab.predictors.nasflat.predictor import ranking_loss
from latlab.search_spaces import get


def quick(predictor: Nasflat, epochs: int = 6) -> Settings:
    default = predictor.settings
    return replace(
        default,
        pretraining=replace(default.pretraining, epochs=epochs),
        transfer=replace(default.transfer, epochs=5),
        last_epochs=2,
    )


@pytest.fixture(scope="module")
def trained() -> Nasflat:
    space = get("nasbench201")
    predictor = Nasflat(space, settings=quick(Nasflat(space)))
    predictor.folds = 2
    predictor.pretrain(sources(space, 40))
    return predictor


def layer_as_written(
    layer: GraphLayer, x: torch.Tensor, into: torch.Tensor, embedding: torch.Tensor, absent: torch.Tensor
) -> torch.Tensor:
    """The equations of `GraphLayer`, node by node."""
    found = torch.zeros(len(x), x.shape[1], layer.flow.out_features)
    for g in range(len(x)):
        for i in range(x.shape[1]):
            gates = [torch.sigmoid(gate(embedding[g, i])) for gate in (layer.flow_gate, layer.value_gate)]
            flow = gates[0] * layer.flow(into[g, i] @ x[g]) + layer.flow(x[g, i]) + layer.bias
            value = layer.value(x[g])
            logits = F.leaky_relu((value[i] * value) @ layer.attend) * into[g, i]
            weights = logits.masked_fill(absent[g], -torch.inf).softmax(0)
            found[g, i] = (flow + layer.norm(gates[1] * (weights @ value))) / 2
    return found


@pytest.mark.parametrize("space", ["nasbench201", "fbnet", "ofa-mobilenetv3"])
def test_network_is_what_the_paper_says(space: str) -> None:
    predictor = Nasflat(get(space))
    graphs = predictor._inputs(predictor.space.genes(predictor.space.sample(4, 3)))
    assert (graphs.absent is None) == (space != "ofa-mobilenetv3")
    torch.manual_seed(0)
    network = predictor._network(3).eval()
    assert isinstance(network, Network)
    torch.nn.init.normal_(network.other_node)
    device = torch.tensor([0, 2, 1, 2])
    n, v = graphs.operation.shape
    into = graphs.into.expand(n, v, v)
    absent = torch.zeros(n, v, dtype=torch.bool) if graphs.absent is None else graphs.absent

    own = torch.cat([network.operations.weight[graphs.operation], network.devices(device)[:, None].expand(n, v, 8)], 2)
    nodes = network.node(torch.stack([network.input_node, *[network.other_node] * (v - 1)])).expand(n, v, -1)
    y = F.relu(layer_as_written(network.first, nodes, into, own, absent))
    y = layer_as_written(network.last, y, into, own, absent)[:, -1:]
    around = network.refine_surroundings(network.surroundings(y))
    refined = network.refined(F.relu(network.refine_own(own) + around))
    x = nodes
    for number, layer in enumerate(network.main):
        assert isinstance(layer, GraphLayer)
        x = layer_as_written(layer, F.relu(x) if number else x, into, refined, absent)
    means = torch.stack([x[g, 1:][~absent[g, 1:]].mean(0) for g in range(n)])
    assert torch.allclose(
        network(graphs, device), network.head(torch.cat([means, network.costs(graphs.costs)], 1))[:, 0], atol=1e-5
    )


def test_gradients_by_the_table_are_those_without_it() -> None:
    predictor = Nasflat(get("nasbench201"))
    graphs = predictor._inputs(predictor.space.genes(predictor.space.sample(20, 3)))
    network, device = predictor._network(2).eval(), torch.arange(20) % 2
    gradients = []
    for into in (graphs.into, graphs.into.expand(20, 8, 8)):
        network.zero_grad()
        network(Graphs(graphs.operation, into, None, graphs.costs), device).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert torch.allclose(*gradients, atol=1e-5 * float(gradients[0].abs().max()))


def test_ranking_loss() -> None:
    labels = torch.tensor([0.0, 0.5, 1.0])
    assert ranking_loss(torch.tensor([0.0, 1.0, 2.0]), labels) == 0
    assert ranking_loss(torch.zeros(3), labels) == pytest.approx(0.1)
    assert ranking_loss(torch.tensor([2.0, 1.0, 0.0]), labels) == pytest.approx(0.1 + 4 / 3)
    assert ranking_loss(torch.zeros(3), torch.zeros(3)) == 0


def test_learns_a_target_like_a_source(trained: Nasflat) -> None:
    space = trained.space
    support, test = space.genes(space.sample(20, 5)), space.genes(space.sample(300, 9))
    for device in DEVICES:
        trained.adapt(support, latency(space, support, device))
        truth = latency(space, test, device)
        prediction = trained.predict(test)
        assert spearman(prediction.mean_ms, truth) > 0.8
        assert (prediction.lower_ms < prediction.upper_ms).all()


def test_every_target_starts_from_the_pretrained_weights(trained: Nasflat) -> None:
    space = trained.space
    support, test = space.genes(space.sample(6, 5)), space.genes(space.sample(30, 9))
    found = []
    for device in (0, 1, 0):
        trained.adapt(support, latency(space, support, device))
        found.append(trained.predict(test).mean_ms)
    assert np.array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[1])


def test_below_three_measurements_the_typical_source_stands(trained: Nasflat) -> None:
    space = trained.space
    genes = space.genes(space.sample(40, 5))
    typical = trained._source_scores(genes)[trained._typical]
    for n in (1, 2):
        trained.adapt(genes[:n], latency(space, genes[:n], 1))
        assert np.array_equal(np.argsort(trained.predict(genes).mean_ms), np.argsort(typical))


def test_saved_and_loaded_is_the_same(trained: Nasflat, tmp_path: Path) -> None:
    space = trained.space
    support, test = space.genes(space.sample(6, 5)), space.genes(space.sample(30, 9))
    trained.adapt(support, latency(space, support, 1))
    trained.save(tmp_path)
    again = Nasflat.load(tmp_path, space)
    assert np.array_equal(again.predict(test).mean_ms, trained.predict(test).mean_ms)
    again.settings, again.folds = trained.settings, trained.folds
    again.adapt(support, latency(space, support, 0))
    trained.adapt(support, latency(space, support, 0))
    assert np.array_equal(again.predict(test).mean_ms, trained.predict(test).mean_ms)


def test_seed_decides_and_the_global_generator_is_left_alone() -> None:
    space = get("nasbench201")
    found = []
    for seed, noise in ((0, 1), (0, 2), (1, 2)):
        predictor = Nasflat(space, seed=seed, settings=quick(Nasflat(space), epochs=1))
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        predictor.pretrain(sources(space, 10))
        assert torch.equal(before, torch.get_rng_state())
        found.append(predictor._source_scores(predictor._sample))
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_without_sources_the_score_is_the_analytic_cost() -> None:
    space = get("fbnet")
    genes = space.genes(space.sample(50, 1))
    predictor = Nasflat(space)
    predictor.adapt(genes[:5], latency(space, genes[:5], 0))
    assert spearman(predictor.predict(genes).mean_ms, latency(space, genes, 0)) > 0.5


@pytest.mark.parametrize(
    ("values", "says"),
    [([1.0], "fewer than two measurements"), ([1.0, float("nan")], "positive and finite")],
)
def test_a_source_that_says_nothing_is_named(values: list[float], says: str) -> None:
    space = get("nasbench201")
    genes = space.genes(space.sample(len(values), 1))
    with pytest.raises(ValueError, match=f"source device bad.*{says}"):
        Nasflat(space).pretrain([SourceDevice("bad", genes, np.array(values))])
