"""Tests of `latlab quality` on made-up labels of known noise."""

from __future__ import annotations

import json
import random
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from latlab.harness.cli import main as cli
from latlab.harness.errors import BadInputError
from latlab.harness.lab import Lab
from latlab.harness.quality.assessment import Quality
from latlab.harness.quality.fitness import REMEDIES, discordant_percent, judge_fitness
from latlab.harness.quality.summary import figures
from latlab.harness.report.quality.page import render
from latlab.harness.statistics.verdicts import KINDS
from latlab.harness.store.store import Campaign, Store
from latlab.harness.store.verdict_counts import in_words, verdict_counts
from latlab.harness.targets import Target
from latlab.harness.telemetry.recorded_pass import PassKind, RecordedAnchor, RecordedPass
from latlab.harness.terminal.quality import show_quality
from latlab.harness.terminal.results import show_measurements
from latlab.harness.timing_policy import PRESETS
from latlab.search_spaces import get

TARGET = Target("pi", "onnxruntime")
SPACE = get("nasbench201")
NETWORKS = [arch.text for arch in dict.fromkeys(SPACE.canonical(one) for one in SPACE.sample(60, random.Random(0)))]
PASSES = 3


def true_ms(arch: str) -> float:
    costs = {"nor_conv_3x3": 0.6, "nor_conv_1x1": 0.15, "avg_pool_3x3": 0.1, "skip_connect": 0.02}
    return 0.5 + sum(cost * arch.count(name) for name, cost in costs.items())


class Maker:
    """Writes sessions of labels into a store, as the scheduler would."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "made.db")
        self.rng = np.random.default_rng(0)

    def campaign(self, policy: str = "default", space: str = "nasbench201", seed: int = 0) -> Campaign:
        return self.store.campaign(TARGET, space, PRESETS[policy], seed, "random")

    def session(
        self,
        number: int,
        *,
        campaign: Campaign | None = None,
        archs: list[str] = NETWORKS,
        within: float = 0.005,
        between: float = 0.0,
        slowdown: Callable[[int], float] = lambda _: 1.0,
        verdict: Callable[[int], str] = lambda _: "",
        judged: bool = True,
        probes: float | None = None,
    ) -> None:
        """Args: `within` is the relative standard error of a label, `between` what it differs by beyond it."""
        campaign = campaign or self.campaign()
        for order, arch in enumerate(archs):
            row = self.store.begin(campaign, number, arch, "listed", artifact_sha256=f"sha of {arch}")
            level = true_ms(arch) * slowdown(order) * np.exp(between * self.rng.normal())
            means = level * np.exp(within * PASSES**0.5 * self.rng.normal(size=PASSES))
            heat = {"temperature_c": {"soc": 40 + 20 * slowdown(order)}}
            for place, mean in enumerate(means):
                self._pass(row.id, place, mean, heat)
            if probes is not None:
                self._pass(row.id, PASSES, level * np.exp(probes * self.rng.normal()), heat, "probe")
            label = float(means.mean())
            interval = {"low_ms": label * (1 - 2 * within), "high_ms": label * (1 + 2 * within)} if judged else {}
            self.store.finish(
                row.id,
                "ok",
                latency_ms=label,
                raw_ms=label,
                stderr_ms=label * within,
                verdict=verdict(order),
                times_s={"export_s": 0.2, "warm_s": 0.1, "measure_s": 0.4},
                **interval,
            )

    def _pass(self, row: int, number: int, ms: float, heat: dict[str, object], kind: str = "label") -> None:
        samples = [round(1e6 * ms * (1 + 0.002 * (k % 3 - 1))) for k in range(6)]
        self.store.add_pass(
            row, RecordedPass(samples[:1], samples, {"before": heat, "after": heat}, number, PassKind(kind))
        )

    def study(self) -> Quality:
        (found,) = Lab(self.store.path).quality()
        return found


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def said(found: Quality, capsys: pytest.CaptureFixture[str]) -> str:
    show_quality([found])
    return capsys.readouterr().out


def test_quiet_labels_are_fit(maker: Maker, capsys: pytest.CaptureFixture[str]) -> None:
    maker.session(1)
    maker.session(2)
    found = maker.study()
    assert found.fitness.grade == "fit"
    assert found.labels.networks == len(NETWORKS)
    assert found.labels.verdicts == {"": 2 * len(NETWORKS)}
    assert found.labels.stderr_percent == pytest.approx(0.5)
    assert found.labels.half_width_percent == pytest.approx(1.0)
    assert found.again is not None
    assert found.again.retest.spearman > 0.98
    assert found.between is not None
    assert found.between.specific_percent is not None
    assert found.between.specific_percent < 0.5
    assert found.slow_ceiling == found.ceiling.spearman > 0.99
    text = said(found, capsys)
    assert "Fit for training" in text
    assert f"{2 * len(NETWORKS)} good" in text


def test_what_sessions_differ_by_is_found_and_counts(maker: Maker) -> None:
    maker.session(1, between=0.05)
    maker.session(2, between=0.05)
    found = maker.study()
    assert found.between is not None
    assert found.between.specific_percent == pytest.approx(5, rel=0.3)
    assert found.again is not None
    assert found.again.retest.spearman < found.again.expected.low, "error bars within a session cannot know it"
    assert "sessions differ by more" in dict(figures(found))["test-retest"]
    assert found.ceiling.spearman < found.again.expected.retest


def test_labels_that_are_mostly_noise_are_unfit(maker: Maker) -> None:
    maker.session(1, within=0.4)
    maker.session(2, within=0.4)
    found = maker.study()
    assert found.fitness.grade == "unfit"
    assert "more passes" in found.fitness.advice


def test_a_step_that_both_sessions_make_hides_from_retest_but_not_from_order(maker: Maker) -> None:
    for number in (1, 2):
        maker.session(number, slowdown=lambda order: 1.4 if order > len(NETWORKS) / 2 else 1.0)
    found = maker.study()
    assert found.again is not None
    assert found.again.retest.spearman > 0.98
    assert all(one.order.rho > 0.5 and one.order.p < 1e-3 for one in found.sessions)
    assert all(one.temperature.rho > 0.5 for one in found.sessions)
    assert all(one.slow_percent == pytest.approx(17, rel=0.4) for one in found.sessions)
    assert found.fitness.grade != "fit"
    assert "when they were measured" in found.fitness.why


def test_one_session_tells_no_more_than_it_can(maker: Maker, capsys: pytest.CaptureFixture[str]) -> None:
    maker.session(1)
    found = maker.study()
    assert found.again is None
    assert found.between is None
    text = said(found, capsys)
    assert "--new-session" in text
    assert "at most" in text


def test_few_networks_are_not_judged(maker: Maker) -> None:
    maker.session(1, archs=NETWORKS[:5])
    found = maker.study()
    assert found.fitness.grade == "unknown"
    assert "too few" in found.fitness.why
    assert all(np.isnan(one.order.rho) for one in found.sessions)


def test_anchors_tell_of_sessions_where_no_network_was_repeated(maker: Maker) -> None:
    campaign = maker.campaign()
    for number, factor in ((1, 1.0), (2, 1.1)):
        maker.session(number, archs=NETWORKS[: len(NETWORKS) // 2] if number == 1 else NETWORKS[len(NETWORKS) // 2 :])
        for anchor in NETWORKS[:3]:
            for _ in range(3):
                samples = [round(1e6 * factor * (1 + 0.001 * maker.rng.normal())) for _ in range(5)]
                maker.store.add_anchor(campaign, number, RecordedAnchor([], samples, {}, arch=anchor))
    found = maker.study()
    assert found.between is not None
    assert found.between.anchors
    assert found.between.networks == 3
    assert found.between.common_percent == pytest.approx(100 * np.log(1.1) / 2**0.5, rel=0.2)


def test_stores_from_before_there_were_verdicts(maker: Maker) -> None:
    maker.session(1, judged=False)
    found = maker.study()
    assert found.labels.verdicts == {}
    assert found.labels.half_width_percent is None
    assert "not judged" in dict(figures(found))["verdicts"]
    assert found.fitness.grade == "fit"


def test_doubts_are_counted_and_have_a_remedy(maker: Maker, capsys: pytest.CaptureFixture[str]) -> None:
    maker.session(1, verdict=lambda order: "throttled" if order % 3 == 0 else "noisy" if order % 7 == 1 else "")
    maker.session(2)
    found = maker.study()
    counts = found.labels.verdicts
    assert list(counts) == ["", "throttled", "noisy"]
    assert sum(counts.values()) == 2 * len(NETWORKS)
    assert found.fitness.grade == "fit", "a fourth of them at most"
    maker.session(3, verdict=lambda order: "throttled")
    again = maker.study().fitness
    assert again.grade == "usable"
    assert "throttles" in again.advice
    rows = maker.store.table()
    show_measurements(rows[rows["session"] == 1], Path("made.db"), raw=False)
    assert "throttled" in capsys.readouterr().out


def test_a_network_is_the_same_whichever_of_its_twins_was_timed(maker: Maker) -> None:
    for number, (timed, copied) in enumerate((NETWORKS[:2], NETWORKS[1::-1]), 1):
        maker.session(number, archs=[timed, *NETWORKS[2:]])
        own = maker.store.table()
        own = own[(own["session"] == number) & (own["arch"] == timed)]
        row = maker.store.begin(maker.campaign(), number, copied, "listed", artifact_sha256="sha of both")
        maker.store.copy_result(row.id, int(own["id"].iloc[0]))
    with sqlite3.connect(maker.store.path) as connection:
        connection.execute(
            "UPDATE measurements SET artifact_sha256 = 'sha of both' WHERE arch IN (?, ?)", tuple(NETWORKS[:2])
        )
    found = maker.study()
    assert found.labels.copied == 2
    assert found.again is not None
    assert found.again.retest.networks == found.labels.networks == len(NETWORKS) - 1


def test_probes_show_noise_that_passes_of_a_label_do_not(maker: Maker) -> None:
    maker.session(1, probes=0.03)
    found = maker.study().probes
    assert found is not None
    assert found.passes == len(NETWORKS)
    assert found.spread_percent == pytest.approx(3, rel=0.4)
    assert found.usual_percent == pytest.approx(100 * 0.005 * PASSES**0.5, rel=0.4)


def test_labels_of_another_policy_are_left_out(maker: Maker) -> None:
    maker.session(1)
    maker.session(1, campaign=maker.campaign("help"), archs=NETWORKS[:10])
    found = maker.study()
    assert found.policies == ("default",)
    assert found.other_rows == 10
    assert found.labels.labels == len(NETWORKS)


def test_a_pause_of_a_day_is_no_part_of_the_wall_clock(maker: Maker) -> None:
    maker.session(1)
    before = maker.study().sessions[0].wall_s
    half = len(NETWORKS) // 2
    with sqlite3.connect(maker.store.path) as connection:
        later = "strftime('%Y-%m-%dT%H:%M:%f+00:00', {}, '+1 day')"
        connection.execute(
            f"UPDATE measurements SET started_at = {later.format('started_at')}, "
            f'finished_at = {later.format("finished_at")} WHERE "order" >= {half}'
        )
        connection.execute(f"UPDATE passes SET at = {later.format('at')} WHERE measurement_id > {half}")
    assert maker.study().sessions[0].wall_s == pytest.approx(before, abs=0.5)


def test_blocks_are_expected_from_their_other_session(maker: Maker) -> None:
    campaign = maker.campaign(space="fbnet-blocks")
    blocks = [block.text for block in get("fbnet-blocks").sample(60, random.Random(0))]
    for number in (1, 2):
        maker.session(number, campaign=campaign, archs=blocks)
    found = maker.study()
    assert "sessions" in found.expectation
    assert all(len(rest) == len(blocks) for rest in found.residuals)


# The page


class Outside(HTMLParser):
    """Collects whatever a page would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [tag] if tag in ("script", "link", "img", "iframe") else []
        self.found += [v for k, v in attrs if k in ("src", "href") and v and not v.startswith("#")]


def test_the_page_is_one_closed_file(maker: Maker) -> None:
    maker.session(1, verdict=lambda order: "noisy" if order == 3 else "")
    maker.session(2)
    found = maker.study()
    page = render([found, found])
    outside = Outside()
    outside.feed(page)
    assert not outside.found
    for title in (
        "Measured again",
        "How noisy labels are",
        "Do labels depend on their order?",
        "Verdicts",
    ):
        assert page.count(f"<h3>{title}</h3>") == 2
    ids = [part.split('"')[0] for part in page.split(' id="')[1:]]
    assert len(ids) == len(set(ids)), "charts of two targets share a page"


def test_the_title_says_simulated(maker: Maker) -> None:
    maker.session(1, archs=NETWORKS[:5], judged=False)
    real = maker.study()
    simulated = replace(real, simulated=True)
    for found, end in (([real], ""), ([simulated], " (simulated)"), ([real, simulated], " (partly simulated)")):
        assert f"<title>Quality of labels{end} – latlab</title>" in render(found)


def test_a_page_of_hardly_anything(maker: Maker) -> None:
    maker.session(1, archs=NETWORKS[:1], judged=False)
    assert "too few" in render([maker.study()])


# The command


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["latlab", "quality", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_command_takes_a_store_or_a_target(
    maker: Maker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    maker.session(1)
    store = str(maker.store.path)
    out = tmp_path / "charts" / "quality.html"
    assert run(monkeypatch, store, "--json", "--out", str(out)) == 0
    (one,) = json.loads(capsys.readouterr().out)["quality"]
    assert one["target"] == str(TARGET)
    assert one["fitness"]["grade"] == "fit"
    assert one["again"] is None
    assert one["labels"]["verdicts"] == {"good": len(NETWORKS)}
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    for target in ("pi", str(TARGET)):
        assert run(monkeypatch, target, "--store", store, "--space", "nasbench201") == 0
        assert str(TARGET) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("phone", "--store", "{store}"), "no labels of phone"),
        (("{store}", "--space", "fbnet"), "no labels of anything in fbnet"),
        (("{store}", "--store", "other.db"), "two stores"),
        (("nowhere.db",), "there is no store nowhere.db"),
        (("{store}", "--out", "quality.png"), "quality.png"),
        (("{store}", "--out", "/proc/quality.html"), "cannot write /proc/quality.html"),
    ],
)
def test_bad_input_is_one_clear_message(
    maker: Maker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    maker.session(1, archs=NETWORKS[:3])
    assert run(monkeypatch, *(word.format(store=maker.store.path) for word in words)) == 2
    assert message in capsys.readouterr().err


def test_an_empty_store_and_one_of_failures_say_so(maker: Maker) -> None:
    with pytest.raises(BadInputError, match="has no labels"):
        Lab(maker.store.path).quality()
    row = maker.store.begin(maker.campaign(), 1, NETWORKS[0], "listed")
    maker.store.finish(row.id, "crash", error="it did")
    with pytest.raises(BadInputError, match="has no labels"):
        Lab(maker.store.path).quality("pi")


# Words


def test_every_verdict_has_a_remedy() -> None:
    assert set(REMEDIES) == set(KINDS) - {""}


def test_verdicts_in_words(maker: Maker) -> None:
    maker.session(1, verdict=lambda order: ("", "noisy", "drift")[order % 3])
    assert in_words({"noisy": 1, "": 1200, "drift": 2}) == "1,200 good, 2 drift, 1 noisy"
    assert list(verdict_counts(maker.store.table())) == ["", "drift", "noisy"]
    assert in_words({}) == ""


@pytest.mark.parametrize(
    ("changed", "grade", "advice"),
    [
        ({}, "fit", ""),
        ({"between_percent": None}, "fit", "--new-session"),
        ({"ceiling": 0.95}, "usable", "more passes"),
        ({"ceiling": 0.95, "between_percent": 9.0}, "unfit", "average several"),
        ({"ceiling": 0.95, "between_percent": 3.0}, "usable", "average several"),
        ({"between_percent": 9.0}, "unfit", "average several"),
        ({"ceiling": 0.85}, "unfit", "more passes"),
        ({"slow_percent": 20.0, "slow_ceiling": 0.8}, "unfit", "anchors"),
        ({"slow_percent": 6.0, "slow_ceiling": 0.99}, "unfit", "anchors"),
        ({"slow_percent": 2.0, "slow_ceiling": 0.989}, "fit", ""),
        ({"verdicts": {"": 50, "disturbed": 30}}, "usable", "doctor"),
        ({"verdicts": {}}, "fit", ""),
        ({"networks": 19}, "unknown", "20 or more"),
        ({"ceiling": float("nan"), "slow_ceiling": float("nan")}, "unknown", "several passes"),
    ],
)
def test_grades(changed: dict[str, object], grade: str, advice: str) -> None:
    usual: dict[str, object] = {
        "networks": 100,
        "ceiling": 0.99,
        "verdicts": {"": 99, "noisy": 1},
        "within_percent": 1.0,
        "between_percent": 1.0,
        "slow_percent": 0.0,
        "slow_ceiling": 0.99,
    }
    if "ceiling" in changed and "slow_ceiling" not in changed:
        changed = {**changed, "slow_ceiling": changed["ceiling"]}
    found = judge_fitness(**{**usual, **changed})  # type: ignore[arg-type]
    assert found.grade == grade
    assert advice in found.advice
    assert bool(found.advice) == bool(advice)


def test_pairs_in_the_wrong_order() -> None:
    rng = np.random.default_rng(0)
    truth, noise = rng.normal(size=(2, 4000))
    seen = truth + 0.5 * noise
    wrong = np.mean((truth[:2000] < truth[2000:]) != (seen[:2000] < seen[2000:]))
    rho = np.corrcoef(truth.argsort().argsort(), seen.argsort().argsort())[0, 1]
    assert discordant_percent(float(rho)) == pytest.approx(100 * wrong, abs=2)
    assert discordant_percent(1.0) == pytest.approx(0, abs=1e-5)
