"""ROOST: its algebra against dense formulae, its prior against devices made for the purpose, and its manners."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from latlab.predictors.acquisition import choose
from latlab.predictors.base import FloatArray, IntArray, SourceDevice
from latlab.predictors.common.metrics import coverage_percent, mape_percent, spearman
from latlab.predictors.roost import Roost, posterior
from latlab.predictors.roost.posterior import Posterior, condition
from latlab.predictors.roost.prior import Component, SyntheticPrior, fit_source, mixture, synthetic_prior
from latlab.predictors.synthetic.devices import _prices, synthesise
from latlab.predictors.synthetic.workload import workload_of
from latlab.search_spaces import Architecture, Layer, SearchSpace, get
from latlab.search_spaces.nasbench201.space import NASBench201

CELLS = get("nasbench201")


class Own(NASBench201):
    """A user's own space, which says no more than it must: networks of one cell, in some of which edges are dead."""

    name = "own"
    features = SearchSpace.features
    readings = SearchSpace.readings

    def layers(self, arch: Architecture, *, live: bool = False) -> tuple[Layer, ...]:
        parts = ("stem.", "cell1.", "classifier")
        return tuple(layer for layer in super().layers(arch, live=live) if layer.name.startswith(parts))


OWN = Own()


@pytest.fixture(scope="module")
def prior() -> SyntheticPrior:
    return synthetic_prior(CELLS)


@pytest.fixture(scope="module")
def fresh() -> Callable[..., tuple[IntArray, FloatArray]]:
    """Architectures of a space, and what synthetic devices that the prior has not seen take for them, in ms."""

    def measure(space: SearchSpace, count: int = 300, devices: int = 12, seed: int = 77) -> tuple[IntArray, FloatArray]:
        archs = space.sample(count, 5)
        return space.genes(archs), 3 * synthesise(workload_of(space, archs), devices, seed).latency

    return measure


# The posterior


def toy(seed: int = 0, d: int = 5) -> tuple[Component, np.random.Generator]:
    rng = np.random.default_rng(seed)
    root = 0.1 * rng.standard_normal((d, d))
    return Component("toy", rng.uniform(0.5, 1.5, d), root @ root.T, 1.0, (0.5, 1.0, 2.0)), rng


def labels_of(
    component: Component, rng: np.random.Generator, n: int, noise: float = 0.03
) -> tuple[FloatArray, FloatArray]:
    features = rng.uniform(0.5, 2, (n, len(component.mean)))
    table = 7 * rng.multivariate_normal(component.mean, component.covariance)
    return features, np.log(features @ table) + noise * rng.standard_normal(n)


def dense(component: Component, features: FloatArray, y: FloatArray, variance: FloatArray) -> Posterior:
    """What `condition` gives for one component without discounting outliers, with d x d and n x n matrices only."""
    n = len(features)
    level = np.exp(np.mean(y - np.log(features @ component.mean)))
    centre = level * component.mean
    share_of_noise = 0.5 + 0.5 * np.exp(np.median(y) - y) ** 2  # half relative, half absolute
    found = []
    for scale in component.scales:
        tables = scale**2 * level**2 * component.covariance + posterior.LEVEL**2 * np.outer(centre, centre)

        def linear(noise: float, f: FloatArray, tables: FloatArray = tables) -> tuple[FloatArray, ...]:
            gradient = features / f[:, None]
            expected = np.log(f) + gradient @ centre - 1
            own = noise**2 * share_of_noise + variance
            total = gradient @ tables @ gradient.T + np.diag(own)
            gain = tables @ gradient.T @ np.linalg.inv(total)
            mean, covariance = centre + gain @ (y - expected), tables - gain @ gradient @ tables
            return expected, total, own, mean, covariance

        f = features @ centre
        for _ in range(posterior.STEPS):  # one linearisation for all sigmas, at the middle one
            f = np.maximum(features @ linear(0.02, f)[3], 0.3 * f)
        assert (f > 0).all()
        for noise in posterior.NOISES:
            expected, total, own, mean, covariance = linear(noise, f)
            left = []
            for i in range(n):  # refits without label i, the linearisation held
                rest = np.delete(np.arange(n), i)
                part = np.linalg.solve(total[np.ix_(rest, rest)], np.stack([y - expected, total[i]], axis=1)[rest])
                spread = total[i, i] - own[i] - total[i, rest] @ part[:, 1]
                left.append((expected[i] + total[i, rest] @ part[:, 0], spread))
            weight = multivariate_normal.logpdf(y, expected, total)
            weight -= 0.5 * (np.log(noise / posterior.TYPICAL_NOISE) / posterior.NOISE_WIDTH) ** 2
            middle = np.exp(np.mean(np.log(component.scales)))
            weight -= 0.5 * (np.log(scale / middle) / posterior.SCALE_WIDTH) ** 2
            found.append((weight / posterior.TEMPERATURE, mean, covariance, noise**2, np.array(left).reshape(n, 2).T))
    share = np.exp([one[0] for one in found] - logsumexp([one[0] for one in found]))
    mean = sum(p * one[1] for p, one in zip(share, found, strict=True))
    second = sum(p * (one[2] + np.outer(one[1], one[1])) for p, one in zip(share, found, strict=True))
    left_mean = sum(p * one[4][0] for p, one in zip(share, found, strict=True))
    left_second = sum(p * (one[4][1] + one[4][0] ** 2) for p, one in zip(share, found, strict=True))
    return Posterior(
        mean=mean,
        covariance=second - np.outer(mean, mean),
        noise=float(share @ [one[3] for one in found]),
        precision=np.ones(n),
        weights=np.ones(1),
        left_out_mean=left_mean,
        left_out_variance=left_second - left_mean**2,
    )


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7, 40])
def test_is_the_textbook_posterior(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of solving (n up to the 6 columns, and more): evidence, moments, and leaving out one by refitting."""
    monkeypatch.setattr(posterior, "NEGLIGIBLE", 0.0)
    monkeypatch.setattr(posterior, "NARROW", 1000)  # all values of sigma
    component, rng = toy(n)
    features, y = labels_of(component, rng, n)
    variance = rng.uniform(0, 0.05, n) ** 2
    found = condition([component], features, y, variance, robust=False)
    wanted = dense(component, features, y, variance)
    for field in ("mean", "covariance", "noise", "left_out_mean", "left_out_variance"):
        scale = np.abs(getattr(wanted, field)).max()
        assert getattr(found, field) == pytest.approx(getattr(wanted, field), rel=1e-6, abs=1e-7 * scale), field


def test_components_are_weighed_by_evidence() -> None:
    one, rng = toy(1)
    other = replace(one, mean=one.mean[::-1].copy())
    features, y = labels_of(one, rng, 30)
    alone = [condition([c], features, y, np.zeros(30), robust=False) for c in (one, other)]
    both = condition([replace(c, weight=0.5) for c in (one, other)], features, y, np.zeros(30), robust=False)
    assert both.weights.sum() == pytest.approx(1)
    assert both.weights[0] > 0.9
    assert both.mean == pytest.approx(both.weights @ [a.mean for a in alone], rel=1e-2)


def test_units_of_latency_do_not_matter(prior: SyntheticPrior) -> None:
    components, rng = mixture(prior, []), np.random.default_rng(0)
    y = np.log(prior.sample[:20] @ components[3].mean) + 0.05 * rng.standard_normal(20)
    ms, us = (condition(components, prior.sample[:20], y + shift, np.zeros(20)) for shift in (0, np.log(1000)))
    assert us.mean == pytest.approx(1000 * ms.mean, rel=1e-6)
    assert us.covariance == pytest.approx(1e6 * ms.covariance, rel=1e-5, abs=1e-6 * np.abs(us.covariance).max())
    assert us.noise == pytest.approx(ms.noise)


def test_uncertain_labels_count_less() -> None:
    component, rng = toy(2)
    features, y = labels_of(component, rng, 12)
    wrong = y + np.where(np.arange(12) == 3, 0.3, 0)
    moved = []
    for stderr in (0.0, 0.1, 1.0):
        variance = np.where(np.arange(12) == 3, stderr**2, 0)
        right_mean, wrong_mean = (condition([component], features, z, variance, robust=False).mean for z in (y, wrong))
        moved.append(np.abs(np.log(features @ wrong_mean / (features @ right_mean))).mean())
    assert moved[0] > 2 * moved[1]
    assert moved[1] > moved[2]
    assert moved[2] < 0.01


def test_outliers_are_discounted(prior: SyntheticPrior) -> None:
    components, rng = mixture(prior, []), np.random.default_rng(3)
    truth = prior.sample @ components[2].mean
    y = np.log(truth[:24]) + 0.01 * rng.standard_normal(24)
    y[7] += 1
    robust, plain = (condition(components, prior.sample[:24], y, np.zeros(24), robust=on) for on in (True, False))
    errors = [np.abs(prior.sample @ found.mean / truth - 1).mean() for found in (robust, plain)]
    assert errors[0] < 0.7 * errors[1]
    assert robust.precision.argmin() == 7
    assert robust.precision[7] < 0.4 * np.median(robust.precision)
    assert (plain.precision == 1).all()


def test_pruning_changes_little(prior: SyntheticPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    components, rng = mixture(prior, []), np.random.default_rng(4)
    n = posterior.PRUNED + 36
    y = np.log(prior.sample[:n] @ components[1].mean) + 0.03 * rng.standard_normal(n)
    pruned = condition(components, prior.sample[:n], y, np.zeros(n))
    assert (pruned.weights > 0).sum() <= posterior.KEPT_OF_MANY
    for name, value in {"PRUNED": n, "KEPT": 1000, "UNLIKELY": -1.0, "NARROW": 1000}.items():
        monkeypatch.setattr(posterior, name, value)
    every = condition(components, prior.sample[:n], y, np.zeros(n))
    assert (every.weights > 0).sum() > 3 * posterior.KEPT_OF_MANY
    ratio = np.log(np.maximum(prior.sample @ pruned.mean, 0.1) / np.maximum(prior.sample @ every.mean, 0.1))
    assert np.abs(ratio).mean() < 0.005
    assert pruned.noise == pytest.approx(every.noise, rel=0.1)


# The prior


def test_synthetic_devices_are_devices() -> None:
    workload = workload_of(CELLS, CELLS.sample(100, 1))
    found, again, other = (synthesise(workload, 200, seed) for seed in (1, 1, 2))
    assert found.latency.shape == (200, 100)
    assert (found.latency > 0).all()
    assert np.isfinite(found.latency).all()
    assert found.latency.mean(axis=1) == pytest.approx(1)
    assert np.array_equal(found.latency, again.latency)
    assert np.array_equal(found.reading, again.reading)
    assert not np.array_equal(found.latency, other.latency)
    assert set(found.reading) == set(range(len(workload.readings)))


def test_where_each_layer_costs_the_same_the_number_of_kernels_ranks() -> None:
    space = get("fbnet")
    workload = workload_of(space, space.sample(100, 1))
    price = _prices(workload, 600, np.random.default_rng(5))
    latency = synthesise(workload, 600, 5).latency
    runs = workload.readings["written"][0].toarray()
    spread = np.array([np.log(p[p > 0]).std() for p in price.T])
    ranks = np.array([spearman(times, runs @ (p > 0)) for times, p in zip(latency, price.T, strict=True)])
    overhead, work = np.argsort(spread)[:20], np.argsort(spread)[-20:]
    assert np.median(ranks[overhead]) > 0.9
    assert np.median(ranks[overhead]) > np.median(ranks[work]) + 0.1


@pytest.mark.parametrize("number", range(0, 24, 4))
def test_a_source_is_recovered(number: int, prior: SyntheticPrior) -> None:
    """With one label in twenty four times too large; these move the level, which the target's own labels tell."""
    rng = np.random.default_rng(6)
    cluster = prior.clusters[number]
    genes = CELLS.genes(CELLS.sample(300, 9))
    scaled = CELLS.features(genes) / prior.scale
    truth = 40 * np.maximum(scaled @ rng.multivariate_normal(cluster.mean, 0.3 * cluster.covariance), 0.05)
    latency = truth * np.exp(0.02 * rng.standard_normal(300))
    for wrong, level_within in ((1, 0.03), (4, 0.12)):
        latency[::20] *= wrong
        table = fit_source(prior, SourceDevice("phone", genes, latency), scaled)
        assert table.name == "phone"
        assert (prior.sample @ table.mean).mean() == pytest.approx(1)
        ratio = table.mean_ms * (scaled @ table.mean) / truth
        assert np.median(ratio) == pytest.approx(1, abs=level_within)
        assert np.median(np.abs(ratio / np.median(ratio) - 1)) < 0.04
        assert np.linalg.eigvalsh(table.covariance).min() > -1e-9


def test_mixtures(prior: SyntheticPrior) -> None:
    rng = np.random.default_rng(7)
    genes = CELLS.genes(CELLS.sample(100, 9))
    scaled = CELLS.features(genes) / prior.scale
    tables = [
        fit_source(prior, SourceDevice(c.kind, genes, np.maximum(scaled @ c.mean, 0.1) * noise), scaled)
        for c, noise in zip(prior.clusters, rng.uniform(0.9, 1.1, (3, 100)), strict=False)
    ]
    for sources in ([], tables[:1], tables):
        for synthetic in (True, False):
            found = mixture(prior, sources, synthetic=synthetic)
            assert sum(component.weight for component in found) == pytest.approx(1)
            kinds = {component.kind for component in found}
            assert bool({"synthetic", "broad"} & kinds) == (synthetic or not sources)
            assert ("source" in kinds) == bool(sources)
            assert ("span" in kinds) == (len(sources) > 1)


# The predictor


@pytest.mark.parametrize(
    ("space", "least"),
    [(CELLS, 0.9), (get("fbnet"), 0.9), (get("ofa-mobilenetv3"), 0.95), (get("hat-decoder"), 0.95), (OWN, 0.9)],
    ids=lambda value: value.name if isinstance(value, SearchSpace) else None,
)
def test_few_labels_of_a_new_device_rank_the_rest(
    space: SearchSpace, least: float, fresh: Callable[..., tuple[IntArray, FloatArray]]
) -> None:
    genes, latency = fresh(space, 250, 9)
    predictor = Roost(space)
    chosen = choose(predictor, genes[:150], genes[150:], 10)
    assert len(set(chosen)) == 10
    ranks = []
    for device in latency:
        predictor.adapt(genes[chosen], device[chosen])
        ranks.append(spearman(predictor.predict(genes[150:]).mean_ms, device[150:]))
    assert np.median(ranks) > least


def test_intervals_cover(fresh: Callable[..., tuple[IntArray, FloatArray]]) -> None:
    genes, latency = fresh(CELLS, 300, 30, seed=78)
    noisy = latency * np.exp(0.03 * np.random.default_rng(0).standard_normal(latency.shape))
    predictor, found = Roost(CELLS), []
    for device in noisy:
        predictor.adapt(genes[:12], device[:12])
        found.append(coverage_percent(predictor.predict(genes[12:]), device[12:]))
    assert 80 <= np.mean(found) <= 99
    assert np.percentile(found, 10) > 50


def test_before_any_label() -> None:
    genes = CELLS.genes(CELLS.sample(200, 3))
    guess = Roost(CELLS).predict(genes)
    informed = Roost(CELLS, facts={"cores": 4, "clock_ghz": 2, "launch_us": 5}).predict(genes)
    faster = Roost(CELLS, facts={"tops": 100, "bandwidth_gbs": 1000}).predict(genes)
    taught = Roost(CELLS)
    macs = np.array([sum(layer.macs for layer in CELLS.layers(arch)) for arch in CELLS.architectures(genes)])
    taught.pretrain([SourceDevice(str(ms), genes, ms * (1 + macs / macs.mean())) for ms in (200.0, 250.0)])
    learned = taught.predict(genes)
    widths = [float(np.median(p.upper_ms / p.lower_ms)) for p in (guess, informed, learned)]
    assert widths[0] > 100
    assert 4 < widths[1] < widths[0]
    assert 4 < widths[2] < widths[0]
    assert np.median(informed.mean_ms) > 10 * np.median(faster.mean_ms)
    assert 300 < np.median(learned.mean_ms) < 700
    assert spearman(learned.mean_ms, macs) > spearman(guess.mean_ms, macs)
    assert spearman(learned.mean_ms, macs) > 0.85  # synthetic devices outweigh two sources
    untaught = Roost(CELLS, sources=False)
    untaught.pretrain([SourceDevice("one", genes, 1.0 + macs)])
    assert np.array_equal(untaught.predict(genes).mean_ms, guess.mean_ms)
    with pytest.raises(ValueError, match="at least two"):
        taught.leave_one_out()


@pytest.mark.parametrize(
    ("facts", "message"),
    [({"ram": 4}, "unknown hardware fact 'ram'; known are: cores"), ({"tops": 0}, "must be positive"),
     ({"tops": float("nan")}, "must be positive"), ({"bandwidth_gbs": 20}, "no compute rate")],
)  # fmt: skip
def test_facts_that_say_nothing_are_refused(facts: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Roost(CELLS, facts=facts)


@pytest.mark.parametrize("options", [{}, {"synthetic": False, "robust": False}, {"facts": {"tops": 2.0}}])
@pytest.mark.parametrize("n", [0, 8])
def test_files_keep_it(
    options: dict[str, object], n: int, tmp_path: Path, fresh: Callable[..., tuple[IntArray, FloatArray]]
) -> None:
    genes, latency = fresh(CELLS, 60, 3)
    kept = Roost(CELLS, **options)  # type: ignore[arg-type]
    kept.pretrain([SourceDevice(name, genes[:40], latency[k, :40]) for k, name in enumerate("ab")])
    kept.adapt(genes[:n], latency[2, :n], 0.02 * latency[2, :n])
    kept.save(tmp_path / "roost")
    loaded = Roost.load(tmp_path / "roost", CELLS)
    for field in ("mean_ms", "std_ms", "lower_ms", "upper_ms"):
        old, new = (getattr(one.predict(genes), field) for one in (kept, loaded))
        assert new == pytest.approx(old, rel=1e-9)
    # Whatever comes next, too: options are kept.
    for one in (kept, loaded):
        one.adapt(genes[:20], latency[0, :20])
    assert loaded.predict(genes).upper_ms == pytest.approx(kept.predict(genes).upper_ms, rel=1e-9)


def test_labels_that_are_not_paid_for_change_nothing(fresh: Callable[..., tuple[IntArray, FloatArray]]) -> None:
    genes, latency = fresh(CELLS, 200, 1)
    seen = []
    for shuffle in (False, True):
        table, predictor, bought = latency[0].copy(), Roost(CELLS), [0, 1]
        for _ in range(3):
            if shuffle:
                rest = np.setdiff1d(np.arange(200), bought)
                order = np.random.default_rng(len(bought)).permutation(rest)
                # The next two are what both worlds must agree on; all else may be anything.
                table[rest] = table[order]
                table[seen[0][0]] = latency[0, seen[0][0]]
            predictor.adapt(genes[bought], table[bought])
            rest = np.setdiff1d(np.arange(200), bought)
            bought = [*bought, *(int(rest[i]) for i in choose(predictor, genes[rest], genes, 2))]
        predictor.adapt(genes[bought], table[bought])
        seen.append((bought, predictor.predict(genes).upper_ms))
    assert seen[0][0] == seen[1][0]
    assert np.array_equal(seen[0][1], seen[1][1])


def test_choices_are_new_and_mind_what_is_pending(fresh: Callable[..., tuple[IntArray, FloatArray]]) -> None:
    genes, latency = fresh(CELLS, 120, 1)
    predictor = Roost(CELLS)
    assert sorted(choose(predictor, genes[:20], genes, 20)) == list(range(20))
    assert choose(predictor, genes, genes, 0) == []
    for support in ([], [3, 50, 90]):
        predictor.adapt(genes[support], latency[0, support])
        rest = np.setdiff1d(np.arange(120), support)
        first, second, third = rest[choose(predictor, genes[rest], genes, 3)]
        left = np.setdiff1d(rest, [first, second])
        assert left[choose(predictor, genes[left], genes, 1, pending=genes[[first, second]])[0]] == third
    with pytest.raises(ValueError, match="4 of 3"):
        choose(predictor, genes[:3], genes, 4)


def test_values_and_genes_are_the_same(fresh: Callable[..., tuple[IntArray, FloatArray]]) -> None:
    genes, latency = fresh(CELLS, 80, 1)
    archs = CELLS.architectures(genes)
    by_genes, by_value = Roost(CELLS), Roost(CELLS)
    by_genes.adapt(genes[:9], latency[0, :9])
    by_value.adapt(archs[:9], latency[0, :9].tolist())
    assert np.array_equal(by_genes.predict(genes).upper_ms, by_value.predict(archs).upper_ms)
    assert np.array_equal(by_genes.covariance(genes, genes[:4]), by_value.covariance(archs, archs[:4]))
    assert len(by_genes.predict([]).mean_ms) == 0


@pytest.mark.parametrize("n", [1, 2, 3, 200])
def test_any_number_of_labels(n: int, fresh: Callable[..., tuple[IntArray, FloatArray]]) -> None:
    genes, latency = fresh(CELLS, 300, 1, seed=79)
    predictor = Roost(CELLS)
    predictor.adapt(genes[:n], latency[0, :n])
    found = predictor.predict(genes)
    assert (found.lower_ms > 0).all()
    assert (found.lower_ms < found.mean_ms).all()
    assert (found.mean_ms < found.upper_ms).all()
    assert np.isfinite(found.upper_ms).all()
    assert mape_percent(found.mean_ms[200:], latency[0, 200:]) < (60 if n < 200 else 8)
    if n > 1:
        assert predictor.leave_one_out().mean_ms.shape == (n,)


def test_odd_labels(fresh: Callable[..., tuple[IntArray, FloatArray]]) -> None:
    genes, latency = fresh(CELLS, 60, 1)
    predictor = Roost(CELLS)
    predictor.adapt(genes[:15], np.full(15, 2.5))
    assert predictor.predict(genes).mean_ms == pytest.approx(2.5, rel=0.5)
    twice = np.repeat(np.arange(6), 3)
    predictor.adapt(genes[twice], latency[0, twice] * np.exp(0.05 * np.random.default_rng(1).standard_normal(18)))
    assert np.isfinite(predictor.predict(genes).upper_ms).all()
    assert predictor.leave_one_out().mean_ms == pytest.approx(latency[0, twice], rel=0.2)
    predictor.adapt(genes[:2], [1e-6, 1e6])
    assert np.isfinite(predictor.predict(genes).upper_ms).all()
    assert (predictor.predict(genes).lower_ms > 0).all()


def test_what_follows_a_refused_label_is_what_was_before(fresh: Callable[..., tuple[IntArray, FloatArray]]) -> None:
    genes, latency = fresh(CELLS, 20, 1)
    predictor = Roost(CELLS)
    predictor.adapt(genes[:5], latency[0, :5])
    before = predictor.predict(genes).mean_ms
    with pytest.raises(ValueError, match="positive and finite"):
        predictor.adapt(genes[:2], [1.0, -1.0])
    assert np.array_equal(predictor.predict(genes).mean_ms, before)
    assert len(predictor.leave_one_out().mean_ms) == 5


# Networks without a path from input to output


@pytest.fixture(scope="module")
def cells() -> tuple[IntArray, FloatArray]:
    """1,300 cells, of which the last 100 are constant as some of the others are, and what a device takes as written."""
    genes = np.array([arch.genes for arch in CELLS.enumerate()])
    order = np.random.default_rng(0).permutation(len(genes))
    rows = np.concatenate([order[:1200], order[1200:][CELLS.constant(genes[order[1200:]])][:100]])
    latency = []
    for arch in CELLS.architectures(genes[rows]):
        layers = [layer for layer in CELLS.layers(arch) if layer.kind != "zero"]
        latency.append(0.02 * len(layers) + sum(layer.macs for layer in layers) / 4e7)
    return genes[rows], np.array(latency) * np.exp(0.01 * np.random.default_rng(1).standard_normal(len(rows)))


@pytest.mark.parametrize("folded", ["all", "none", "some"])
def test_constant_networks_that_are_folded_or_not(folded: str, cells: tuple[IntArray, FloatArray]) -> None:
    genes, latency = cells
    constant = CELLS.constant(genes)
    is_folded = constant & {"all": True, "none": False, "some": (genes == 3).sum(axis=1) >= 2}[folded]
    latency = np.where(is_folded, 0.05 * latency / latency[constant].mean(), latency)
    predictor, bought = Roost(CELLS), np.array([], int)
    for _ in range(4):
        rest = np.setdiff1d(np.arange(1200), bought)
        bought = np.concatenate([bought, rest[choose(predictor, genes[rest], genes[:600], 5)]])
        predictor.adapt(genes[bought], latency[bought])
    assert constant[bought].sum() <= 4  # the design does not spend itself on them
    bought = np.concatenate([bought, np.flatnonzero(constant)[-2:]])
    predictor.adapt(genes[bought], latency[bought])
    test = np.setdiff1d(np.arange(len(genes)), bought)
    found, truth = predictor.predict(genes[test]), latency[test]
    error = np.abs(np.log(found.mean_ms / truth))
    ordinary = ~constant[test]
    assert error[ordinary].mean() < 0.02
    assert spearman(found.mean_ms[ordinary], truth[ordinary]) > 0.99
    # Where some fold, nothing says of another which it is. It lies in the interval all the same.
    assert np.median(error[~ordinary]) < {"all": 0.6, "none": 0.1, "some": np.inf}[folded]
    assert coverage_percent(found, truth) > 85
    assert np.median(np.abs(np.log(predictor.leave_one_out().mean_ms / latency[bought]))) < 0.03


def test_only_constant_networks_are_labelled(cells: tuple[IntArray, FloatArray]) -> None:
    genes, latency = cells
    constant = CELLS.constant(genes)
    predictor = Roost(CELLS)
    predictor.adapt(genes[constant][:4], latency[constant][:4])
    assert np.isfinite(predictor.predict(genes).upper_ms).all()


# Labels that cannot all be right


@pytest.mark.parametrize(("factor", "loses"), [(0.1, 0.03), (10.0, 0.1)])
def test_one_label_among_ten_that_is_wrong(
    factor: float, loses: float, fresh: Callable[..., tuple[IntArray, FloatArray]]
) -> None:
    genes, latency = fresh(CELLS, 400, 12, seed=81)
    predictor, lost = Roost(CELLS), []
    for device in latency:
        ranks = []
        for wrong in (1.0, factor):
            labels = device[:10].copy()
            labels[3] *= wrong
            predictor.adapt(genes[:10], labels)
            ranks.append(spearman(predictor.predict(genes[10:]).mean_ms, device[10:]))
            text = CELLS.from_genes(genes[3]).text
            if wrong != 1:
                named = [text in remark for remark in predictor.remarks()]
                assert any(named) or max(labels[3] / device[:10].max(), device[:10].min() / labels[3]) < 4
        lost.append(ranks[0] - ranks[1])
    assert np.mean(lost) < loses
    assert np.median(lost) < 0.05


def test_right_labels_need_no_remarks(fresh: Callable[..., tuple[IntArray, FloatArray]]) -> None:
    genes, latency = fresh(CELLS, 60, 12, seed=82)
    noisy = latency * np.exp(0.02 * np.random.default_rng(2).standard_normal(latency.shape))
    predictor, remarked = Roost(CELLS), 0
    assert predictor.remarks() == ()
    for device in noisy:
        for n in (1, 3, 10, 60):
            predictor.adapt(genes[:n], device[:n])
            remarked += bool(predictor.remarks())
    assert remarked <= 2


def test_misuse_is_put_in_words(fresh: Callable[..., tuple[IntArray, FloatArray]]) -> None:
    genes, latency = fresh(CELLS, 60, 1, seed=83)
    predictor, labels = Roost(CELLS), latency[0, :10]

    def remarks(genes: IntArray, labels: FloatArray) -> str:
        predictor.adapt(genes, labels)
        return " ".join(predictor.remarks())

    names = [arch.text for arch in CELLS.architectures(genes[:10])]
    text = remarks(genes[:10], labels * np.where(np.arange(10) == 4, 10, 1))
    assert f"The label of {names[4]}, " in text
    assert "times as large as the other labels say" in text
    assert "counts little" in text
    assert "two units" in remarks(genes[:10], labels * np.where(np.arange(10) < 5, 1000, 1))
    assert "All 10 labels are 2.5 ms" in remarks(genes[:10], np.full(10, 2.5))
    assert "only 1 different network." in remarks(np.repeat(genes[:1], 10, axis=0), labels[0] * np.linspace(1, 1.1, 10))
    assert "only 2 different networks." in remarks(np.repeat(genes[:2], 5, axis=0), np.repeat(labels[:2], 5))
    assert remarks(genes[:2], labels[:2]) == ""


@pytest.mark.filterwarnings("error")
def test_nothing_overflows(cells: tuple[IntArray, FloatArray]) -> None:
    """Neither with folded networks nor with absurd labels; errors of left-out labels stay of a size to be told."""
    genes, latency = cells
    constant = CELLS.constant(genes)
    folded = np.where(constant, 1e-3 * latency, latency)
    predictor = Roost(CELLS)
    absurd = np.geomspace(1e-9, 1e9, 12)
    for n, labels in ((12, folded), (12, absurd), (2, absurd[[0, -1]]), (1, absurd)):
        rows = np.concatenate([np.arange(n - 1), np.flatnonzero(constant)[:1]])
        predictor.adapt(genes[rows], labels[rows] if labels is folded else labels[:n])
        found = predictor.predict(genes)
        for field in (found.mean_ms, found.std_ms, found.lower_ms, found.upper_ms):
            assert np.isfinite(field).all()
            assert (field > 0).all()
        if n > 1:
            left = predictor.leave_one_out()
            assert np.isfinite(left.upper_ms).all()
            assert np.abs(np.log(left.mean_ms / predictor.predict(genes[rows]).mean_ms)).max() < 50


def test_wrong_errors_and_genes_are_refused(fresh: Callable[..., tuple[IntArray, FloatArray]]) -> None:
    genes, latency = fresh(CELLS, 20, 1)
    predictor = Roost(CELLS)
    with pytest.raises(ValueError, match="standard errors must not be negative"):
        predictor.adapt(genes[:3], latency[0, :3], [0.1, -0.1, 0.1])
    with pytest.raises(ValueError, match=r"genes of nasbench201 have the shape \(n, 6\)"):
        predictor.adapt(genes[:3, :5], latency[0, :3])
