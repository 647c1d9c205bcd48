"""The space of operators: every kind is built as its layers say, and the design is what it claims to be."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from latlab.search_spaces import ArchitectureError, get
from latlab.search_spaces.op_counter import count_operators
from latlab.search_spaces.operators.skeleton import KINDS
from latlab.search_spaces.torch_modules import images

SPACE = get("operators")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rest", ["c64|o16|s7|k5|t2|x2", "c8|o32|s4|k3|t1|x1"])
def test_every_kind_executes_what_layers_says(kind: str, rest: str) -> None:
    arch = SPACE.parse(f"{kind}|{rest}")
    module, shape = SPACE.build(arch), SPACE.input_shape(arch)
    assert [(row.kind, row.macs, row.params, row.activations) for row in count_operators(module, shape)] == [
        (layer.kind, layer.macs, layer.params, layer.activations) for layer in SPACE.layers(arch)
    ]
    x = images(4, shape, 5)
    y = module(x)
    assert y.shape == (4, SPACE.num_classes)
    torch.testing.assert_close(module(x[1:2]), y[1:2], rtol=1e-3, atol=1e-4)
    assert 0.1 < (y.amax(0) - y.amin(0)).max() < 50


def test_the_design_is_distinct_and_canonical_and_has_every_kind_in_its_first_thirty() -> None:
    design = SPACE.designed()
    assert len(set(design)) == len(design) == 40
    assert all(SPACE.canonical(arch) == arch for arch in design)
    first = Counter(arch.text.split("|")[0] for arch in design[:30])
    assert set(first) == set(KINDS)
    assert first["conv"] >= 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("swish|c8|o8|s1|k3|t1|x1", "no 'swish'.*conv, pointwise"),
        ("conv|c8|o8|s1|k3|t1", "6 fields.*not 7"),
        ("conv|c8|o8|s2|k3|t1|x1", "'s2'.*one of: s1, s4"),
        ("conv|c512|o512|s112|k7|t1|x4", "too large"),
    ],
)
def test_what_is_no_operator_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ArchitectureError, match=words):
        SPACE.parse(text)
