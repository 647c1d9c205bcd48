"""Networks of HAT's decoders and Transformers: what they execute is what is counted, and no step is for nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from latlab.search_spaces import get
from latlab.search_spaces.hat.layers import BEAM, TOKENS, VOCABULARY
from latlab.search_spaces.op_counter import count_operators
from latlab.search_spaces.torch_modules import Autoregressive, images

TEXTS = {"hat-decoder": "e640|d512|l2|f1536|h6|x10|a3", "hat": "d512|f3072|h12+d640|l1|f512|h2|x4|a2"}


def built(name: str, seed: int = 0) -> Autoregressive:
    space = get(name)
    network = space.build(space.parse(TEXTS[name]), seed=seed)
    assert isinstance(network, Autoregressive)
    return network


@pytest.fixture(scope="module")
def decoder() -> Autoregressive:
    return built("hat-decoder")


@pytest.mark.parametrize("name", TEXTS)
def test_every_operator_costs_what_layers_says(name: str) -> None:
    space, network = get(name), built(name)
    arch = space.parse(TEXTS[name])
    counted: Counter[tuple[str, str]] = Counter()
    executed: Counter[tuple[str, str]] = Counter()
    layers, operators = space.layers(arch), count_operators(network, space.input_shape(arch))
    rows: Sequence[tuple[Counter[tuple[str, str]], Sequence[Any]]] = [(counted, layers), (executed, operators)]
    for found, parts in rows:
        for part in parts:
            found[part.kind, "macs"] += part.macs
            found[part.kind, "activations"] += part.activations
    assert executed == counted
    assert sum(layer.params for layer in layers) == sum(p.numel() for p in network.parameters())


def test_the_output_depends_on_the_input_and_on_every_step(decoder: Autoregressive) -> None:
    x = images(2, (3, TOKENS, 640), 1)
    tokens: list[Tensor] = []
    step = decoder.step

    def watched(position: Tensor, encoded: Sequence[Tensor], state: Sequence[Tensor]) -> tuple[Tensor, ...]:
        tokens.append(state[0].argmax(2))
        return step(position, encoded, state)

    decoder.step = watched  # type: ignore[method-assign]
    y = decoder(x)
    del decoder.step
    assert y.shape == (2, BEAM, VOCABULARY)
    assert len(tokens) == TOKENS
    assert torch.stack(tokens).unique().numel() > TOKENS / 2  # chosen anew, and not one for ever
    assert 0.1 < (y[0] - y[1]).abs().max() < 50
    assert torch.equal(y[:, 0], y[:, 4])
    torch.testing.assert_close(decoder(x[1:]), y[1:], rtol=1e-3, atol=1e-3)
    for number in (0, TOKENS - 1):
        kept = decoder.positions[number].clone()
        decoder.positions[number] += 1
        assert (decoder(x[:1]) - y[:1]).abs().max() > 1e-3
        decoder.positions[number] = kept


def test_all_encoder_layers_that_are_attended_to_matter(decoder: Autoregressive) -> None:
    x = images(1, (3, TOKENS, 640), 1)
    y = decoder(x)
    for layer, read in ((0, True), (1, True), (2, False)):  # two layers attend to 1 and to 2
        other = x.clone()
        other[:, layer] += 1
        assert torch.equal(decoder(other), y) != read


def test_weights_come_from_the_seed_and_do_not_repeat(decoder: Autoregressive) -> None:
    first, other = decoder.state_dict(), built("hat-decoder", 1).state_dict()
    assert all(torch.equal(tensor, built_again) for tensor, built_again in _pairs(first, built("hat-decoder")))
    assert not any(torch.equal(first[name], other[name]) for name in first)
    vocabulary = first["output.weight"]
    assert vocabulary.std() == pytest.approx((2 / 512) ** 0.5, rel=0.01)
    assert vocabulary[:, :4].unique(dim=0).shape[0] == VOCABULARY


def _pairs(first: dict[str, Tensor], network: Autoregressive) -> list[tuple[Tensor, Tensor]]:
    again = network.state_dict()
    return [(first[name], again[name]) for name in first]


def test_a_transformer_is_its_encoder_and_its_decoder() -> None:
    network: Any = built("hat")
    x = images(1, (1, TOKENS, 512), 1)
    outputs = network.encoder.last_outputs(x, 3)
    assert torch.equal(outputs[0], network.encoder(x))
    assert torch.equal(network.decoder(torch.stack(outputs, 1)), network(x))
