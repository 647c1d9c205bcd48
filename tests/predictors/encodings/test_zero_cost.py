"""Tests of zero-cost proxies: each against its definition, computed alone, and what makes values comparable."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from table_space import TablesOnly
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn import functional as F

from latlab.predictors.encodings import zero_cost
from latlab.predictors.encodings.names import PROXIES
from latlab.predictors.encodings.zero_cost import Batch, Weights, random_batch, zero_cost_proxies
from latlab.search_spaces import Architecture, get

SPACE = get("nasbench201")
ARCH = SPACE.parse("|nor_conv_3x3~0|+|avg_pool_3x3~0|skip_connect~1|+|none~0|nor_conv_1x1~1|skip_connect~2|")
WITHOUT_PATH = SPACE.parse("|none~0|+|none~0|none~1|+|none~0|nor_conv_1x1~1|none~2|")


@pytest.fixture(scope="module")
def batch() -> Batch:
    return random_batch(SPACE, ARCH, seed=3, size=6)


@pytest.fixture(scope="module")
def found(batch: Batch) -> dict[str, float]:
    return zero_cost_proxies(SPACE, ARCH, batch=batch, seed=5)


def network(weights: Weights = Weights.TORCH) -> nn.Module:
    """Return the network whose proxies are tested, with the same weights."""
    built = SPACE.build(ARCH, as_written=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        zero_cost._draw(built, weights)
    return built


def layers(built: nn.Module) -> list[nn.Module]:
    return [module for module in built.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def test_all_are_there_in_order_and_the_same_each_time(found: dict[str, float], batch: Batch) -> None:
    assert tuple(found) == PROXIES
    assert all(math.isfinite(value) for value in found.values())
    assert zero_cost_proxies(SPACE, ARCH, batch=batch, seed=5) == found
    assert zero_cost_proxies(SPACE, ARCH, batch=batch, seed=6)["snip"] != found["snip"]


def test_gradients_of_the_loss(found: dict[str, float], batch: Batch) -> None:
    built = network()
    F.cross_entropy(built(batch.images), batch.labels).backward()
    known = [layer.weight for layer in layers(built) if layer.weight.grad is not None]
    assert found["snip"] == pytest.approx(sum(float((w.detach() * w.grad).abs().sum()) for w in known), rel=1e-4)
    assert found["plain"] == pytest.approx(sum(float((w.detach() * w.grad).sum()) for w in known), abs=1e-4)
    assert found["grad_norm"] == pytest.approx(sum(float(w.grad.norm()) for w in known), rel=1e-4)
    assert found["l2_norm"] == pytest.approx(
        sum(float(layer.weight.detach().norm()) for layer in layers(built)), rel=1e-5
    )


def test_grasp_is_minus_weights_times_hessian_times_gradient(found: dict[str, float], batch: Batch) -> None:
    """The Hessian's product with the weights is the derivative of the gradient along them, in forward mode."""
    built = network()
    values = {name: parameter.detach().clone().requires_grad_() for name, parameter in built.named_parameters()}
    counted = [name for name in values if name.endswith("weight") and values[name].ndim > 1]
    with forward_ad.dual_level():
        along = {
            name: forward_ad.make_dual(one, one.detach()) if name in counted else one for name, one in values.items()
        }
        loss = F.cross_entropy(functional_call(built, along, (batch.images,)), batch.labels)
        gradients = torch.autograd.grad(loss, [values[name] for name in counted], allow_unused=True)
        duals = [forward_ad.unpack_dual(one) for one in gradients if one is not None]
        expected = -sum(float((dual.primal * dual.tangent).sum()) for dual in duals)
    assert found["grasp"] == pytest.approx(expected, rel=0.01)


def test_fisher_counts_each_channel_once_per_weight(found: dict[str, float], batch: Batch) -> None:
    built = network()
    outputs: list[tuple[nn.Module, torch.Tensor]] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        output.retain_grad()
        outputs.append((module, output))

    for layer in layers(built):
        layer.register_forward_hook(note)
    F.cross_entropy(built(batch.images), batch.labels).backward()
    expected = 0.0
    for layer, output in outputs:
        if output.grad is None:
            continue
        product = (output * output.grad).reshape(len(output), output.shape[1], -1).sum(dim=2)
        expected += float((0.5 * product**2).mean(dim=0).sum()) * math.prod(layer.weight.shape[1:])
    assert found["fisher"] == pytest.approx(expected, rel=1e-3)


def test_synflow_sees_no_signs_and_no_batch_norms(found: dict[str, float]) -> None:
    built = network().double()
    for module in list(built.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.abs_()
    built(torch.ones(1, 3, 32, 32, dtype=torch.float64)).sum().backward()
    expected = sum(float((w.detach() * w.grad).sum()) for w in (x.weight for x in layers(built)) if w.grad is not None)
    assert found["synflow"] == pytest.approx(expected, rel=1e-6)


def test_jacobian_scores_are_those_of_numpys_correlations(found: dict[str, float], batch: Batch) -> None:
    built = network()
    images = batch.images.clone().requires_grad_(True)
    built(images).sum().backward()
    rows = images.grad.flatten(1).double().numpy()
    v = np.linalg.eigvalsh(np.corrcoef(rows))
    assert found["jacov"] == pytest.approx(-np.sum(np.log(v + 1e-5) + 1 / (v + 1e-5)), rel=1e-3)
    expected = 0.0
    for label in set(batch.labels.tolist()):
        own = np.atleast_2d(np.corrcoef(rows[batch.labels.numpy() == label]))
        expected += abs(np.log(np.abs(own) + 1e-5).sum())
    assert found["epe_nas"] == pytest.approx(expected, rel=1e-3)


def test_a_network_that_ignores_its_input_has_no_jacobian(batch: Batch) -> None:
    values = zero_cost_proxies(SPACE, WITHOUT_PATH, batch=batch)
    assert math.isnan(values["jacov"])
    assert math.isnan(values["epe_nas"])
    assert values["flops"] > 0


@pytest.mark.parametrize("name", ["fbnet", "ofa-mobilenetv3", "hat-encoder", "operators"])
@pytest.mark.slow
def test_every_buildable_space_has_proxies(name: str) -> None:
    space = get(name)
    (arch,) = space.sample(1, 1)
    values = zero_cost_proxies(space, arch, batch=random_batch(space, arch, size=2))
    assert tuple(values) == PROXIES
    assert sum(math.isfinite(value) for value in values.values()) >= 10


@pytest.mark.data
def test_flops_and_params_are_those_of_the_published_table() -> None:
    pytest.importorskip("pyarrow")
    import os
    from pathlib import Path

    import pandas as pd

    from latlab.harness.bench.tables import read_table

    folder = Path(os.environ["LATLAB_DATA"])
    published = pd.read_parquet(folder / "fbnet_zcp.parquet")
    table = read_table(folder / "fbnet_latency_ms.parquet", "fbnet")
    for row in range(0, 5000, 50):
        layers_ = table.space.layers(table.space.from_genes(table.genes[row]))
        assert zero_cost._flops(table.space, layers_) == published["flops"].iloc[row]
        assert sum(layer.params for layer in layers_) == published["params"].iloc[row]


def test_what_has_no_networks_or_another_shape_is_refused(batch: Batch) -> None:
    for space, reason in ((TablesOnly(), "no networks to build"), (get("hat-decoder"), "no gradient passes a choice")):
        with pytest.raises(ValueError, match=reason):
            zero_cost_proxies(space, space.sample(1, 0)[0])
    small = Batch(batch.images[:, :, :8, :8], batch.labels)
    with pytest.raises(ValueError, match="takes images of shape"):
        zero_cost_proxies(SPACE, ARCH, batch=small)
    with pytest.raises(ValueError, match="at least two"):
        Batch(batch.images[:1], batch.labels[:1])
    assert isinstance(ARCH, Architecture)
