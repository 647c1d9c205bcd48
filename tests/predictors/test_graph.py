"""The posterior of costs: it finds costs that were made up, keeps its intervals, and widens them for what is new."""

from __future__ import annotations

import numpy as np
import pytest

from latlab.predictors.graph import CostPosterior, Kernel, Work, interval_of_label, work_of
from latlab.predictors.graph.work import CACHE_BYTES, COLD, QUANTITIES, columns_of, matrix, quantities

PACE_MS = {"conv": 12.0, "pointwise": 15.0, "depthwise": 70.0, "linear": 20.0}
"""Milliseconds of 10^9 multiply-accumulates on a made-up device."""


def conv(kind: str, c: int, o: int, size: int) -> Kernel:
    window = {"conv": 9, "depthwise": 9}.get(kind, 1)
    into = 1 if kind == "depthwise" else c
    pixels = 1 if kind == "linear" else size * size
    macs, params = o * into * window * pixels, o * into * window
    wide = {"in_channels": into, "out_channels": 1 if kind == "depthwise" else o, "kernel": window}
    return Kernel(kind, kind, macs, params, c * pixels, o * pixels, **wide)


def relu(elements: int) -> Kernel:
    return Kernel("clip", "Relu", in_elements=elements, out_elements=elements)


def truth_ms(work: Work, context: float = 0.3) -> float:
    """Return what a graph takes on the made-up device, where many different kernels disturb one another."""
    parts = []
    for kernel, count in zip(work.kernels, work.counts, strict=True):
        moved = (kernel.in_elements + kernel.out_elements + kernel.params) * 4e-6
        parts.append(count * (0.005 + PACE_MS.get(kernel.kind, 0) * kernel.macs / 1e9 + 0.05 * moved))
    shares = np.array(parts) / sum(parts)
    return float(sum(parts) * np.exp(context * (1 - (shares**2).sum())))


def operators() -> list[Work]:
    sizes = [(16, 32, 56), (64, 64, 28), (128, 128, 14), (256, 256, 7)]
    works = [work_of([conv(kind, c, c if kind == "depthwise" else o, s)] * 2) for kind in PACE_MS for c, o, s in sizes]
    return [*works, *(work_of([relu(n)] * 4) for n in (10_000, 300_000))]


def network() -> Work:
    rows = [conv("conv", 3, 32, 112), relu(32 * 112**2)]
    for c, o, size in ((32, 64, 56), (64, 128, 28), (128, 256, 14)):
        rows += [conv("depthwise", c, c, size), conv("pointwise", c, o, size), relu(o * size**2)] * 3
    return work_of([*rows, conv("linear", 256, 1000, 1)])


def labelled(noise: float = 0.02) -> tuple[list[Work], np.ndarray]:
    works = operators()
    rng = np.random.default_rng(0)
    return works, np.array([truth_ms(work) for work in works]) * np.exp(noise * rng.standard_normal(len(works)))


def test_it_finds_the_costs_of_a_made_up_device() -> None:
    posterior = CostPosterior(*labelled())
    (found,) = posterior.predict([network()])
    assert found.latency_ms == pytest.approx(truth_ms(network()), rel=0.2)
    assert found.lower_ms < truth_ms(network()) < found.upper_ms
    assert found.upper_ms / found.lower_ms < 4
    assert not found.unseen
    assert sum(found.shares.values()) == pytest.approx(1)
    assert list(found.shares.values()) == sorted(found.shares.values(), reverse=True)


def test_left_out_operators_lie_in_their_intervals() -> None:
    works, latency = labelled()
    left = CostPosterior(works, latency).leave_one_out()
    assert ((left.lower_ms < latency) & (latency < left.upper_ms)).mean() > 0.8


def test_what_was_never_measured_is_named_and_uncertain() -> None:
    works, latency = labelled()
    seen = [at for at, work in enumerate(works) if "depthwise" not in work.kinds]
    with_all = CostPosterior(works, latency).predict([network()])[0]
    fewer = CostPosterior([works[at] for at in seen], latency[seen])
    without = fewer.predict([network()])[0]
    assert without.unseen == ("depthwise",)
    assert without.upper_ms / without.lower_ms > with_all.upper_ms / with_all.lower_ms
    alone = work_of([conv("depthwise", 96, 96, 28)] * 3)
    known, guessed = (one.predict([alone])[0] for one in (CostPosterior(works, latency), fewer))
    assert np.log(guessed.upper_ms / guessed.lower_ms) > 1.3 * np.log(known.upper_ms / known.lower_ms)
    assert without.lower_ms < truth_ms(network()) < without.upper_ms


def test_graphs_that_are_alike_say_little_of_others() -> None:
    """However well their labels agree."""
    alike = [work_of([conv("conv", 16 + at, 16, 32), relu(16 * 32 * 32)] * (2 + at % 4)) for at in range(30)]
    other = work_of([conv("depthwise", 96, 96, 28)] * 3)
    widths = []
    for count in (4, 30):
        works = alike[:count]
        found = CostPosterior(works, [truth_ms(work) for work in works]).predict([other])[0]
        widths.append(np.log(found.upper_ms / found.lower_ms))
    assert widths[1] > 0.9 * widths[0]


def test_without_labels_only_the_order_is_known() -> None:
    small, large = CostPosterior([], []).predict([operators()[0], network()])
    assert small.latency_ms < large.latency_ms
    assert large.upper_ms / large.lower_ms > 50


def test_slower_labels_are_slower_predictions() -> None:
    works, latency = labelled()
    (fast,), (slow,) = (CostPosterior(works, factor * latency).predict([network()]) for factor in (1, 10))
    assert slow.latency_ms / fast.latency_ms == pytest.approx(10, rel=0.2)


def test_noisy_labels_count_less() -> None:
    works, latency = labelled()
    wrong = latency.copy()
    wrong[:4] *= 3
    stderr = np.where(np.arange(len(works)) < 4, 2 * wrong, 0.01 * wrong)
    trusting, careful = (CostPosterior(works, wrong, error).predict([network()])[0] for error in (None, stderr))
    truth = truth_ms(network())
    assert abs(np.log(careful.latency_ms / truth)) < abs(np.log(trusting.latency_ms / truth)) + 0.02
    assert careful.latency_ms == pytest.approx(truth, rel=0.35)


@pytest.mark.parametrize(
    ("latency", "words"), [([1.0], "18 graphs"), ([0.0] * 18, "positive"), ([np.nan] * 18, "positive")]
)
def test_labels_that_cannot_be_are_refused(latency: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CostPosterior(operators(), latency)


def test_quantities_are_in_their_units() -> None:
    one = conv("conv", 16, 32, 10)
    found = dict(zip(QUANTITIES, quantities(one), strict=True))
    assert found["start"] == 1
    assert found["macs"] == pytest.approx(32 * 16 * 9 * 100 / 1e9)
    assert found["narrow in"] == pytest.approx(found["macs"] / 2)
    assert found["narrow out"] == pytest.approx(found["macs"] / 4)
    assert found["weights"] == pytest.approx(4 * 32 * 16 * 9 / 1e6)
    assert found["moved"] == pytest.approx(4 * (1600 + 3200) / 1e6)
    work = work_of([one] * 3)
    columns = columns_of([work])
    assert columns[0] == COLD
    weights = 3 * 4 * 32 * 16 * 9
    row = matrix(work, {column: at for at, column in enumerate(columns)})[0]
    assert row.tolist() == [
        pytest.approx(weights / 1e6 * weights / (weights + CACHE_BYTES)),
        *(3 * found[name] for _, name in columns[1:]),
    ]


def test_measured_networks_say_what_a_network_costs_above_its_kernels() -> None:
    works, latency = labelled()
    unlike = [work_of([conv(kind, 24, 24, size) for kind in PACE_MS for size in (20, 30)]), network()]
    asked = work_of([conv(kind, 40, 40, size) for kind in PACE_MS for size in (25, 35)])
    found = []
    for context in (0.1, 0.6):
        more = [truth_ms(work, context) for work in unlike]
        found.append(CostPosterior([*works, *unlike], [*latency, *more]).predict([asked])[0].latency_ms)
    assert found[1] > 1.05 * found[0]


def test_a_measured_graph_has_an_interval_around_its_label() -> None:
    low, high = interval_of_label(2.0, 0.0)
    assert 1.5 < low < 2 < high < 2.6
    wider = interval_of_label(2.0, 0.5)
    assert wider[0] < low
    assert wider[1] > high
