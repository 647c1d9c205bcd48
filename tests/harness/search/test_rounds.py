"""The rounds of a search, on a device whose true latencies are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from table_evidence import TARGET, FunctionEvidence, search_in

from latlab.harness.errors import BadInputError
from latlab.harness.search.accuracy import Proxy
from latlab.harness.search.accuracy_models import Function
from latlab.harness.search.candidates import Evolved, Listed
from latlab.harness.search.choice import finalists_to_measure
from latlab.harness.search.limits import Constraints, Limit
from latlab.harness.search.result import Found, SearchResult
from latlab.harness.search.scoring import Scores
from latlab.harness.search.wording import costs_in_words, headline
from latlab.predictors.common.cost_totals import totals
from latlab.search_spaces import get

SPACE = get("nasbench201")
ALL = SPACE.genes(list(SPACE.enumerate()))[:3000]
WEIGHTS = np.random.default_rng(0).normal(size=(6, 5)) + np.array([0.0, 1.0, 3.0, 4.0, 1.0])


def accuracy(genes: np.ndarray) -> np.ndarray:
    return 60 + WEIGHTS[np.arange(6), genes].sum(axis=1)


def latency(genes: np.ndarray) -> np.ndarray:
    macs, _, _, operators = totals(SPACE)(genes).T
    return np.asarray(0.5 + macs / 2e7 + operators / 40)


SOURCE = Function("accuracy", accuracy)
LIMIT = float(np.quantile(latency(ALL), 0.4))
BEST = float(accuracy(ALL[latency(ALL) <= 0.99 * LIMIT]).max())


def found(folder: Path, **more: object) -> tuple[SearchResult, FunctionEvidence]:
    evidence = FunctionEvidence(SPACE, latency, **more)  # type: ignore[arg-type]
    return search_in(folder, evidence, SOURCE, Listed(ALL), LIMIT, 20).run(), evidence


def test_the_answer_is_the_best_network_below_the_limit_and_was_measured_twice(tmp_path: Path) -> None:
    result, evidence = found(tmp_path)
    winner = result.winner
    assert winner is not None
    assert winner.accuracy >= BEST
    assert evidence.known[winner.arch].latency_ms <= LIMIT
    assert winner.latencies[0].measured_ms == evidence.known[winner.arch].latency_ms
    assert winner.latencies[0].sessions == 2
    assert result.found is Found.STANDS
    assert evidence.tried[-1] == (winner.arch, True)
    assert result.costs.measured == len(evidence.tried) < 20
    assert result.finalists[0] == winner
    keeps = [one.keeps for one in result.finalists]
    assert keeps == sorted(keeps, reverse=True)
    front = [(one.latencies[0].predicted_ms, one.accuracy) for one in result.front]
    assert front == sorted(front)
    assert [one for _, one in front] == sorted(one for _, one in front)


def test_a_noisy_device_has_a_slower_answer_further_from_the_limit(tmp_path: Path) -> None:
    result, _ = found(tmp_path, spread=0.05)
    assert result.winner is not None
    measured, sessions = result.winner.latencies[0].measured_ms, result.winner.latencies[0].sessions
    assert measured is not None
    assert measured <= LIMIT * np.exp(-1.28 * 0.05 * np.sqrt(1 + 1 / sessions))
    assert result.winner.probability >= 0.9


def test_the_last_measurement_of_a_small_budget_confirms(tmp_path: Path) -> None:
    evidence = FunctionEvidence(SPACE, latency)
    result = search_in(tmp_path, evidence, SOURCE, Listed(ALL), LIMIT, 3).run()
    assert [again for _, again in evidence.tried] == [False, False, True]
    assert result.costs.measured == 3
    assert result.winner is not None


def test_networks_that_fail_are_not_asked_for_again(tmp_path: Path) -> None:
    best = SPACE.from_genes(ALL[latency(ALL) <= LIMIT][np.argmax(accuracy(ALL[latency(ALL) <= LIMIT]))]).text
    result, evidence = found(tmp_path, broken=lambda arch: arch == best)
    tried = [arch for arch, again in evidence.tried if not again]
    assert best in tried
    assert len(set(tried)) == len(tried)
    assert result.winner is not None
    assert result.winner.arch != best


@pytest.mark.parametrize("dies_after", [0, 1, 4, 6])
def test_a_search_that_was_killed_goes_on_to_the_same_answer(tmp_path: Path, dies_after: int) -> None:
    whole, evidence = found(tmp_path / "whole")
    killed = FunctionEvidence(SPACE, latency, dies_after=dies_after)
    assert len(evidence.tried) > dies_after
    with pytest.raises(KeyboardInterrupt):
        search_in(tmp_path / "killed", killed, SOURCE, Listed(ALL), LIMIT, 20).run()
    again = search_in(tmp_path / "killed", killed, SOURCE, Listed(ALL), LIMIT, 20)
    assert again.folder.continues
    result = again.run()
    assert killed.tried == evidence.tried, "the same networks in the same order, none twice"
    assert result.winner == whole.winner
    assert result.costs.measured == whole.costs.measured


def test_a_search_one_of_whose_targets_fails_says_what_is_known_and_goes_on(tmp_path: Path) -> None:
    whole, _ = found(tmp_path / "whole")
    evidence = FunctionEvidence(SPACE, latency, fails_after=2)
    result = search_in(tmp_path / "failed", evidence, SOURCE, Listed(ALL), LIMIT, 20).run()
    assert result.found is Found.FAILED
    assert [str(one) for one in result.failures] == [f"{TARGET}: the cable is cut"]
    assert "failed before the search had ended" in headline(result)
    assert result.costs.measured == 0, "a round that failed does not count, its labels do"
    assert len(evidence.tried) == 2
    again = search_in(tmp_path / "failed", evidence, SOURCE, Listed(ALL), LIMIT, 20).run()
    assert again.winner == whole.winner
    assert again.failures == ()
    assert len(set(evidence.tried)) == len(evidence.tried), "nothing is measured twice"


def test_passes_are_added_where_it_is_not_certain_that_a_limit_is_kept(tmp_path: Path) -> None:
    noisy = {"noise": 0.06}
    plain, _ = found(tmp_path / "plain", **noisy)
    evidence = FunctionEvidence(SPACE, latency, **noisy)  # type: ignore[arg-type]
    search = search_in(tmp_path / "resolved", evidence, SOURCE, Listed(ALL), LIMIT, 20, resolve=True)
    result = search.run()
    assert 0 < len(evidence.resolved) == len(set(evidence.resolved)) == result.costs.resolved
    assert plain.costs.resolved == 0
    assert result.winner is not None
    assert plain.winner is not None
    assert latency(SPACE.genes([SPACE.parse(result.winner.arch)]))[0] <= LIMIT
    assert result.winner.accuracy >= plain.winner.accuracy
    assert "measured longer" in costs_in_words(result)
    tried, resolved = list(evidence.tried), list(evidence.resolved)
    again = search_in(tmp_path / "resolved", evidence, SOURCE, Listed(ALL), LIMIT, 20, resolve=True).run()
    assert (evidence.tried, evidence.resolved) == (tried, resolved), "a search that has ended adds none"
    assert again.winner == result.winner


def test_a_finished_search_measures_nothing_and_a_larger_budget_goes_on(tmp_path: Path) -> None:
    evidence = FunctionEvidence(SPACE, latency)
    first = search_in(tmp_path, evidence, SOURCE, Listed(ALL), LIMIT, 2).run()
    assert len(evidence.tried) == 2
    again = search_in(tmp_path, evidence, SOURCE, Listed(ALL), LIMIT, 2).run()
    assert len(evidence.tried) == 2
    assert again.winner == first.winner
    more = search_in(tmp_path, evidence, SOURCE, Listed(ALL), LIMIT, 12).run()
    assert 2 < len(evidence.tried) <= 12
    assert more.winner is not None
    assert more.winner.accuracy >= BEST


def test_an_impossible_limit_says_what_is_possible(tmp_path: Path) -> None:
    evidence = FunctionEvidence(SPACE, latency)
    with pytest.raises(
        BadInputError, match=r"the fastest of these candidates takes \d\.\d+ ms on toy.*0\.1 ms are allowed"
    ):
        search_in(tmp_path, evidence, SOURCE, Listed(ALL), 0.1, 5).run()
    assert evidence.tried == []


def test_a_device_that_is_slower_than_predicted_has_no_answer(tmp_path: Path) -> None:
    evidence = FunctionEvidence(SPACE, latency)
    evidence.latency = lambda genes: 3 * latency(genes)
    least = float(np.quantile(latency(ALL), 0.02))
    result = search_in(tmp_path, evidence, SOURCE, Listed(ALL), least, 4).run()
    assert result.found is Found.NOTHING
    assert result.winner is None
    assert result.measured
    assert not any(one.keeps for one in result.finalists)


def test_without_measuring_the_answer_is_a_prediction(tmp_path: Path) -> None:
    evidence = FunctionEvidence(SPACE, latency)
    result = search_in(tmp_path, evidence, SOURCE, Listed(ALL), LIMIT, 0, top=3).run()
    assert result.found is Found.UNMEASURED
    assert evidence.tried == []
    assert result.winner is not None
    assert not result.winner.measured
    assert len(result.finalists) == 3
    assert all(one.probability >= 0.9 for one in result.finalists)


def test_of_equally_accurate_networks_the_faster_one_is_the_answer(tmp_path: Path) -> None:
    plain = Function("plain", lambda genes: np.full(len(genes), 70.0))
    evidence = FunctionEvidence(SPACE, latency)
    result = search_in(tmp_path / "predicted", evidence, plain, Listed(ALL[:200]), LIMIT, 0).run()
    predicted = evidence.predicts()[0](ALL[:200]).mean_ms
    assert result.winner is not None
    assert result.winner.latencies[0].predicted_ms == pytest.approx(predicted.min())
    measured = search_in(tmp_path / "measured", evidence, plain, Listed(ALL), LIMIT, 10).run()
    assert measured.winner is not None
    probabilities = [one.probability for one in measured.finalists if one.keeps]
    assert measured.winner.probability == max(probabilities)


def test_few_macs_and_parameters(tmp_path: Path) -> None:
    evidence = FunctionEvidence(SPACE, latency)
    search = search_in(tmp_path, evidence, SOURCE, Listed(ALL), LIMIT, 6)
    most = float(np.quantile(totals(SPACE)(ALL, "macs"), 0.1))
    object.__setattr__(search.plan, "constraints", Constraints((Limit("toy", LIMIT),), 0.9, most, 4e5))
    result = search.run()
    assert result.winner is not None
    assert result.winner.macs <= most
    assert result.winner.params <= 4e5
    object.__setattr__(search.plan, "constraints", Constraints((Limit("toy", LIMIT),), 0.9, 1.0))
    with pytest.raises(
        BadInputError, match=r"has so few MACs and parameters\nThe smallest of these candidates have [0-9,]+ MACs"
    ):
        search.run()


# Evolution

FBNET = get("fbnet")


def _fbnet_latency(genes: np.ndarray) -> np.ndarray:
    return np.asarray(1 + totals(FBNET)(genes, "macs")[:, 0] / 1e8 + (genes % 4).sum(axis=1) / 60)


def test_evolution_comes_near_the_optimum_and_repeats_itself(tmp_path: Path) -> None:
    """Latency is close to linear in MACs here, so that the most MACs below the limit are known."""
    evidence = FunctionEvidence(FBNET, _fbnet_latency, first=60)
    source = Proxy(FBNET, "macs")
    results = [
        search_in(tmp_path / name, evidence, source, Evolved(FBNET, 40, 60), 3.0, 0, seed=seed).run()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert results[0].finalists == results[1].finalists
    assert results[0].finalists != results[2].finalists
    random = FBNET.genes(FBNET.sample(2400, 0))
    best = float(totals(FBNET)(random[_fbnet_latency(random) <= 3.0], "macs").max())
    for one in results:
        assert one.winner is not None
        assert one.winner.accuracy > 1.05 * best
        assert one.winner.latencies[0].upper_ms >= one.winner.latencies[0].predicted_ms
        assert _fbnet_latency(FBNET.genes([FBNET.parse(one.winner.arch)]))[0] < 3.15


def test_an_evolution_that_was_interrupted_goes_on_to_the_same_answer(tmp_path: Path) -> None:
    asked: list[int] = []

    class Slow:
        name, identity, quick = "slow", "slow", False

        def __call__(self, genes: np.ndarray) -> np.ndarray:
            if len(asked) == 25:
                asked.append(0)
                raise KeyboardInterrupt
            asked.append(len(genes))
            return np.asarray(totals(FBNET)(genes, "macs")[:, 0])

    evidence = FunctionEvidence(FBNET, _fbnet_latency, first=60)
    source, candidates = Slow(), Evolved(FBNET, 20, 30)
    first = search_in(tmp_path / "killed", evidence, source, candidates, 3.0, 0)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    first.folder.save_accuracies(always=True)  # as it does every few seconds
    first.folder.save()
    before = sum(asked)
    killed = search_in(tmp_path / "killed", evidence, source, candidates, 3.0, 0).run()
    assert sum(asked) - before < 0.4 * before, "what is known is not asked again"
    whole = search_in(tmp_path / "whole", evidence, source, candidates, 3.0, 0).run()
    assert killed.finalists == whole.finalists


def test_a_finished_evolution_has_the_same_answer_when_it_is_run_again(tmp_path: Path) -> None:
    evidence = FunctionEvidence(FBNET, _fbnet_latency, first=60)
    words = (tmp_path, evidence, Proxy(FBNET, "macs"), Evolved(FBNET, 20, 30), 3.0, 7)
    first = search_in(*words).run()  # type: ignore[arg-type]
    tried = list(evidence.tried)
    again = search_in(*words).run()  # type: ignore[arg-type]
    assert again.winner == first.winner
    assert again.front == first.front
    assert evidence.tried == tried


def test_a_whole_small_space_is_no_endless_evolution(tmp_path: Path) -> None:
    evidence = FunctionEvidence(SPACE, latency)
    result = search_in(tmp_path, evidence, SOURCE, Evolved(SPACE, 60, 40), LIMIT, 0).run()
    assert result.winner is not None
    assert result.winner.accuracy > BEST - 2


# The choice of what to measure


def _scores(rows: list[tuple[float, float]]) -> Scores:
    accuracy, probability = np.array(rows).T
    zeros = np.zeros(len(rows))
    return Scores(np.zeros((len(rows), 6), np.int64), accuracy, zeros[:, None], probability, zeros, zeros)


@pytest.mark.parametrize(
    ("rows", "best", "size", "expected"),
    [
        ([(70, 0.95), (71, 0.99), (72, 0.5), (73, 0.05)], None, 3, [1, 2, 0]),  # sure, likely, the next sure one
        ([(70, 0.95), (71, 0.99), (72, 0.5), (73, 0.3)], None, 2, [1, 3]),  # .3 x 2 > .5 x 1
        ([(70, 0.95), (71, 0.99)], 71.0, 2, []),  # none is better than what was measured
        ([(72.0, 0.6), (72.1, 0.61), (75, 0.2)], 70.0, 3, [1, 2]),  # those of one probability teach the same
        ([(70, 0.01), (60, 0.04), (50, 0.0)], None, 3, [1, 0]),  # nothing is likely
    ],
)
def test_what_is_measured_next(
    rows: list[tuple[float, float]], best: float | None, size: int, expected: list[int]
) -> None:
    assert finalists_to_measure(_scores(rows), 0.9, best, size) == expected
