"""Whatever the text, parsing gives an architecture or an ArchitectureError."""

from __future__ import annotations

import contextlib
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latlab.search_spaces import Architecture, ArchitectureError, get, names

ALPHABET = st.sampled_from("|+~_,0123456789rke none skip_connect\tavg_pool²٣\x00")
quick = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


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
