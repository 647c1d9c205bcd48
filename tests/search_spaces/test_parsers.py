"""Architecture strings and genes of all spaces: they round-trip, and a wrong one gives an error that says why."""

from __future__ import annotations

import contextlib
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latlab.search_spaces import Architecture, ArchitectureError, SearchSpace, get, names

OFA = "r160|k3e3,k5e4|k7e6,k3e3,k5e4|k3e3,k3e3,k3e3,k3e3|k5e6,k5e6|k7e3,k7e4"
HAT = "e640|d512|l4|f7680|h10|x22|a6"
ALPHABET = st.sampled_from("|+~_,0123456789rke none skip_connect\tavg_pool²٣\x00")
quick = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_strings_and_genes_round_trip(space: SearchSpace) -> None:
    for arch in space.sample(50, seed=3):
        assert space.parse(str(arch)) == arch
        assert space.parse(str(arch)).genes == arch.genes
        assert space.from_genes(np.array(arch.genes)) == arch
        spread = "  ".join(str(arch)) + "\n"
        assert space.parse(spread) == arch
        assert (arch.space, arch.text) == (space.name, str(arch))


@pytest.mark.parametrize("text", ["", "   ", "|", "_", "nasbench201", "1_2", "r224", "\0", "²"])
def test_malformed_strings_are_explained(space: SearchSpace, text: str) -> None:
    with pytest.raises(ArchitectureError, match=f"^{space.name}: "):
        space.parse(text)


def test_malformed_genes_are_explained(space: SearchSpace) -> None:
    genes = list(space.sample(1)[0].genes)
    for wrong in ([], genes[:-1], [*genes, 0], [99, *genes[1:]], [-1, *genes[1:]], [0.5, *genes[1:]]):
        with pytest.raises(ArchitectureError, match=f"^{space.name}: "):
            space.from_genes(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("nasbench201", "|nor_conv_5x5~0|+|none~0|none~1|+|none~0|none~1|none~2|", "unknown operation 'nor_conv_5x5'"),
        ("nasbench201", "|none~0|+|none~1|none~1|+|none~0|none~1|none~2|", "must end in ~0"),
        ("nasbench201", "|none~0|+|none~0|none~1|", "not three nodes of 1, 2 and 3 edges"),
        ("nasbench201", "|none|+|none|none|+|none|none|none|", "must end in ~0"),
        ("fbnet", "_".join("0" * 21), "has 21 fields"),
        ("fbnet", "_".join("0" * 21 + "9"), "operation 22 of .* is '9'"),
        ("fbnet", "_".join(["0"] * 21 + ["01"]), "operation 22 of .* is '01'"),
        ("ofa-mobilenetv3", OFA.replace("r160", "r161"), "resolution 161 is not one of 128"),
        ("ofa-mobilenetv3", OFA.replace("r160", "160"), "is not a resolution and five stages"),
        ("ofa-mobilenetv3", OFA.replace("k7e3,k7e4", "k7e3"), "stage 5 has depth 1"),
        ("ofa-mobilenetv3", OFA.replace("k7e3,k7e4", ",".join(["k3e3"] * 5)), "stage 5 has depth 5"),
        ("ofa-mobilenetv3", OFA.replace("k7e6", "k9e6"), "stage 2 block 1 is k9e6"),
        ("ofa-mobilenetv3", OFA.replace("k7e6", "e6k7"), "'e6k7' in stage 2 .* not a block such as k5e4"),
        ("ofa-mobilenetv3", OFA + "|k3e3,k3e3", "five stages"),
        ("hat-decoder", "d640|l4", "has 2 fields .* as in e640"),
        ("hat-decoder", HAT.replace("l4", "k4"), "'k4' .* must be l and a number"),
        ("hat-decoder", HAT.replace("l4", "l7"), r"l \(layers\) is one of 1, 2, 3, 4, 5, 6, not 7"),
        ("hat-decoder", HAT.replace("f7680", "f7681"), r"adds up 4 of 512, 1024, 2048, 3072, which cannot give 7681"),
        ("hat-decoder", HAT.replace("h10", "h34"), r"h \(sum of self-attention heads\) adds up 4 of 2, 4, 8"),
    ],
)
def test_errors_say_what_is_wrong(name: str, text: str, reason: str) -> None:
    with pytest.raises(ArchitectureError, match=reason):
        get(name).parse(text)


def check(name: str, text: str) -> None:
    space = get(name)
    with contextlib.suppress(ArchitectureError):
        arch = space.parse(text)
        assert isinstance(arch, Architecture)
        assert space.parse(arch.text) == arch


@quick
@given(st.sampled_from(names()), st.one_of(st.text(max_size=150), st.text(ALPHABET, max_size=150)))
def test_any_text(name: str, text: str) -> None:
    check(name, text)


@quick
@given(st.sampled_from(names()), st.integers(0, 10**6), st.data())
def test_damaged_architectures(name: str, seed: int, data: st.DataObject) -> None:
    text = get(name).random(Random(seed)).text
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(len(text), start + 4)))
        text = text[:start] + data.draw(st.text(ALPHABET, max_size=3)) + text[stop:]
    check(name, text)


@quick
@given(st.sampled_from(names()), st.lists(st.one_of(st.integers(), st.integers(0, 9)), max_size=50))
def test_any_genes(name: str, genes: list[int]) -> None:
    with contextlib.suppress(ArchitectureError):
        assert get(name).from_genes(genes).genes


def test_the_error_about_a_huge_string_is_short() -> None:
    with pytest.raises(ArchitectureError) as failure:
        get("nasbench201").parse("a" * 5_000_000)
    assert len(str(failure.value)) < 1100
