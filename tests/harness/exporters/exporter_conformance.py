"""The conformance suite of exporters. A new exporter subclasses `ExporterConformance` and gives its name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from operators import NETWORKS, SHAPE, network
from torch import nn

from latlab.harness.exporters import Exporter, get_exporter
from latlab.harness.exporters.parity import compare
from latlab.search_spaces import SearchSpace, get
from latlab.search_spaces.torch_modules import images


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class ExporterConformance:
    """The tests of any exporter; a subclass gives `name`."""

    name: str

    @pytest.fixture
    def exporter(self) -> Exporter:
        return get_exporter(self.name)

    @pytest.fixture
    def path(self, exporter: Exporter, tmp_path: Path) -> Path:
        return tmp_path / f"net{exporter.suffix}"

    def test_is_what_its_entry_point_says(self, exporter: Exporter) -> None:
        assert exporter.name == self.name
        assert exporter.suffix.startswith(".")
        assert exporter.version

    @pytest.mark.parametrize("batch_size", [1, 3])
    @pytest.mark.parametrize("operator", NETWORKS)
    def test_every_operator_agrees_with_eager_pytorch(
        self, exporter: Exporter, path: Path, operator: str, batch_size: int
    ) -> None:
        module = network(operator)
        shape = (batch_size, *SHAPE)
        assert sum(exporter.export(module, torch.zeros(shape), path).values()) > 0
        parity = compare(module, exporter, path, shape, rows_independent=False)
        assert parity.passed, parity
        assert parity.inputs >= 4
        assert parity.exempt is None
        # The rule's yardstick is the output's reaction; it must be one that differences stand out against.
        assert parity.output_change > 0.01

    def test_a_large_batch_is_compared_in_full(self, exporter: Exporter, path: Path) -> None:
        module = network("residual")
        exporter.export(module, torch.zeros(16, *SHAPE), path)
        assert compare(module, exporter, path, (16, *SHAPE)).passed

    @pytest.mark.parametrize("space", ["nasbench201", "fbnet"])
    def test_any_perturbed_layer_is_noticed(self, exporter: Exporter, path: Path, space: str) -> None:
        """One layer's weights changed by 1 % after the export, wherever in the network it is."""
        found: SearchSpace = get(space)
        arch = found.sample(1, seed=5)[0]
        module = found.build(arch)
        shape = (1, *found.input_shape(arch))
        exporter.export(module, torch.zeros(shape), path)
        assert compare(module, exporter, path, shape).passed
        layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        assert len(layers) > 20
        for layer in (layers[0], layers[len(layers) // 2], layers[-1]):
            kept = layer.weight.clone()
            layer.weight.mul_(1.01)
            assert not compare(module, exporter, path, shape).passed
            layer.weight.copy_(kept)
        assert compare(module, exporter, path, shape).passed

    def test_a_graph_that_returns_its_bias_is_noticed(self, exporter: Exporter, path: Path) -> None:
        module = network("linear-classifier")
        dead = network("linear-classifier")
        dead.get_submodule("linear").weight.data.zero_()  # type: ignore[union-attr, operator]
        exporter.export(dead, torch.zeros(1, *SHAPE), path)
        assert not compare(module, exporter, path, (1, *SHAPE)).passed

    def test_the_same_module_gives_the_same_bytes(self, exporter: Exporter, path: Path, tmp_path: Path) -> None:
        again = tmp_path / f"another-name{exporter.suffix}"
        for operator in ("residual", "grouped-shuffled"):
            exporter.export(network(operator), torch.zeros(1, *SHAPE), path)
            exporter.export(network("conv-bn"), torch.zeros(1, *SHAPE), again)
            exporter.export(network(operator), torch.zeros(1, *SHAPE), again)
            assert digest(path) == digest(again)

    def test_architectures_with_the_same_graph_give_the_same_bytes(
        self, exporter: Exporter, path: Path, tmp_path: Path
    ) -> None:
        space = get("nasbench201")
        dead_edge = "|none~0|+|nor_conv_3x3~0|{}~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"
        digests = set()
        for op in ("none", "nor_conv_3x3"):
            exporter.export(space.build(space.parse(dead_edge.format(op))), torch.zeros(1, 3, 32, 32), path)
            digests.add(digest(path))
        assert len(digests) == 1

    def test_exporting_leaves_the_module_as_it_was(self, exporter: Exporter, path: Path) -> None:
        module = network("residual")
        before = {name: value.clone() for name, value in module.state_dict().items()}
        gradients = [parameter.requires_grad for parameter in module.parameters()]
        expected = module(images(2, SHAPE, 0))
        exporter.export(module, torch.zeros(1, *SHAPE), path)
        assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
        assert [parameter.requires_grad for parameter in module.parameters()] == gradients
        assert not any(layer.training for layer in module.modules())
        assert torch.equal(module(images(2, SHAPE, 0)), expected)
