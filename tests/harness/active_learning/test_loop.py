"""Tests of the active-learning loop on synthetic latencies: it spends its budget, learns, stops, and sees no more."""

from __future__ import annotations

import random

import numpy as np
import pandas as pd
import pytest

from latlab.harness.active_learning.holdout import holdout_of
from latlab.harness.active_learning.loop import ClosedLoop, refitted
from latlab.harness.active_learning.stopping import parse_goals
from latlab.predictors.common.metrics import spearman
from latlab.search_spaces import Architecture, get

SPACE = get("nasbench201")


def latency_ms(arch: Architecture) -> float:
    layers = SPACE.layers(arch, live=True)
    return 0.1 + sum(layer.macs for layer in layers) / 5e7 + 0.005 * len(layers)


def run(loop: ClosedLoop, truth: dict[str, float] | None = None, lag: int = 0) -> list[str]:
    """Measure what the loop proposes; each result arrives `lag` proposals later."""
    proposed: list[str] = []
    waiting: list[str] = []
    for text in loop.proposals():
        proposed.append(text)
        waiting.append(text)
        if len(waiting) > lag:
            done = waiting.pop(0)
            value = truth[done] if truth is not None else latency_ms(SPACE.parse(done))
            loop.record(done, "ok", value, 0.0)
    for text in waiting:
        loop.record(text, "ok", truth[text] if truth is not None else latency_ms(SPACE.parse(text)), 0.0)
    loop.fit(always=True)
    return proposed


@pytest.mark.parametrize("lag", [0, 5])
def test_spends_its_budget_and_learns(lag: int) -> None:
    loop = ClosedLoop(SPACE, "ridge", budget=15)
    proposed = run(loop, lag=lag)
    assert len(proposed) == len(set(proposed)) == loop.measured == 15
    test = SPACE.sample(200, 99)
    assert spearman(loop.predict(test).mean_ms, np.array([latency_ms(a) for a in test])) > 0.97
    curve = loop.learning_curve(test, [latency_ms(a) for a in test])
    assert curve["n"].tolist()[0] == 3
    assert curve["n"].tolist()[-1] == 15
    assert curve["holdout_spearman"].iloc[-1] > 0.97


def test_never_proposes_the_hold_out_nor_a_network_that_equals_one() -> None:
    holdout = holdout_of(SPACE, 300, 0)
    proposed = run(ClosedLoop(SPACE, "ridge", budget=12, exclude=holdout))
    banned = {SPACE.canonical(arch).text for arch in holdout}
    assert not banned & {SPACE.canonical(SPACE.parse(text)).text for text in proposed}


def test_longer_hold_out_begins_with_the_shorter() -> None:
    assert holdout_of(SPACE, 50, 3)[:20] == holdout_of(SPACE, 20, 3)
    assert holdout_of(SPACE, 20, 3) != holdout_of(SPACE, 20, 4)


def test_labels_that_were_not_paid_for_change_nothing() -> None:
    """Permute the latencies of every architecture that was not measured: the choices stay the same."""
    truth = {arch.text: latency_ms(arch) for arch in SPACE.enumerate()}
    first = run(ClosedLoop(SPACE, "ridge", budget=8), truth)
    rest = [text for text in truth if text not in set(first)]
    shuffled = rest[:]
    random.Random(0).shuffle(shuffled)
    permuted = truth | {a: truth[b] for a, b in zip(rest, shuffled, strict=True)}
    assert run(ClosedLoop(SPACE, "ridge", budget=8), permuted) == first


@pytest.mark.parametrize("words", ["spearman 0.98", "60% within 20%"])
def test_stops_once_good_enough(words: str) -> None:
    loop = ClosedLoop(SPACE, "roost", budget=200, goals=parse_goals(words))
    assert 5 <= len(run(loop)) < 100
    assert str(loop.reached) == words
    (standing,) = loop.standings()
    assert standing.reached
    test = SPACE.sample(300, 99)
    truth = np.array([latency_ms(arch) for arch in test])
    assert spearman(loop.predict(test).mean_ms, truth) > 0.95


def test_stops_after_so_many_samples_or_seconds() -> None:
    loop = ClosedLoop(SPACE, "roost", budget=200, goals=parse_goals("7 samples"))
    assert len(run(loop, lag=3)) == 7
    clock = iter(range(1000))
    loop = ClosedLoop(SPACE, "roost", budget=200, goals=parse_goals("4 s, 50 samples"), elapsed_s=lambda: next(clock))
    assert len(run(loop)) == 4
    assert str(loop.reached) == "4 s"


def test_a_loop_with_a_pool_proposes_nothing_else() -> None:
    pool = SPACE.sample(40, 5)
    proposed = run(ClosedLoop(SPACE, "roost", budget=12, as_written=True, pool=pool))
    assert len(proposed) == 12
    assert set(proposed) <= {arch.text for arch in pool}


def test_whole_space_as_a_pool_changes_nothing() -> None:
    whole = list(SPACE.enumerate())
    random.Random(1).shuffle(whole)
    assert run(ClosedLoop(SPACE, "roost", budget=8, pool=whole)) == run(ClosedLoop(SPACE, "roost", budget=8))


def test_more_labels_are_expected_to_help() -> None:
    loop = ClosedLoop(SPACE, "roost", budget=6)
    noise = np.random.default_rng(0)
    for text in loop.proposals():
        loop.record(text, "ok", latency_ms(SPACE.parse(text)) * np.exp(0.1 * noise.standard_normal()), 0.0)
    now, then, exact = loop.accuracy(), loop.accuracy(more=10), loop.accuracy(more=10, exact=True)
    assert now.spearman.low < now.spearman.value < now.spearman.high
    assert now.spearman.value < then.spearman.value < exact.spearman.value
    assert now.within(5).value < now.within(10).value <= 100


def test_replaces_failures_but_not_for_ever() -> None:
    loop = ClosedLoop(SPACE, "ridge", budget=6)
    for number, text in enumerate(loop.proposals()):
        ok = number % 2 == 1
        loop.record(text, "ok" if ok else "crash", latency_ms(SPACE.parse(text)) if ok else None, None)
    assert (loop.measured, loop.failed) == (6, 6)
    hopeless = ClosedLoop(SPACE, "ridge", budget=6)
    for text in hopeless.proposals():
        hopeless.record(text, "crash", None, None)
    assert (hopeless.measured, hopeless.failed) == (0, 7)


def test_what_an_earlier_run_left_is_not_proposed_again() -> None:
    first = run(ClosedLoop(SPACE, "ridge", budget=8))
    loop = ClosedLoop(SPACE, "ridge", budget=8)
    for text in first[:5]:
        loop.record(text, "ok", latency_ms(SPACE.parse(text)), 0.0)
    loop.expect(first[5:7])
    assert len(list(loop.proposals())) == 1


def rows_of(**columns: object) -> pd.DataFrame:
    archs = [arch.text for arch in SPACE.sample(6, 0)]
    base = {
        "arch": archs,
        "latency_ms": np.arange(1.0, 7),
        "stderr_ms": 0.01,
        "status": "ok",
        "role": "listed",
        "policy_hash": "p",
        "selection": "listed",
        "as_written": 0,
    }
    return pd.DataFrame(base | columns)


def test_refitting_pools_no_policies_and_spares_the_hold_out() -> None:
    mixed = refitted(SPACE, rows_of(policy_hash=["p", "p", "p", "p", "q", "q"]), "ridge")
    assert mixed is not None
    assert mixed.support_ms().tolist() == [1, 2, 3, 4]
    spared = refitted(SPACE, rows_of(role=["holdout"] * 3 + ["train"] * 3), "ridge")
    assert spared is not None
    assert spared.support_ms().tolist() == [4, 5, 6]
    assert refitted(SPACE, rows_of(status="crash"), "ridge") is None
