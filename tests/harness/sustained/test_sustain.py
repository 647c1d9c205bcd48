"""Tests of sustained load: windows of recorded passes, and simulated devices that heat up, vanish or are stopped."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latlab.harness import Lab
from latlab.harness.cli.main import main
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.exporters.campaign_options import campaign_options
from latlab.harness.fleet.jobs import Incident, RunListener
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.report.sustained.page import write_chart
from latlab.harness.store.store import Campaign, Measurement, Store
from latlab.harness.store.vocabulary import Role
from latlab.harness.sustained import SustainedResult, SustainedRun, policy_of
from latlab.harness.sustained.run import close_earlier
from latlab.harness.sustained.summary import headline
from latlab.harness.sustained.windows import SustainedPass, nice_window_s, summarise, windows
from latlab.harness.targets import Target
from latlab.harness.telemetry.recorded_pass import RecordedPass
from latlab.harness.terminal.braille import curve, sparkline
from latlab.harness.transports.simulated.config import SimulatedDevice

ARCH = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"
HOT = {"watts": 6.0, "ambient_c": 40.0, "c_per_watt": 10.0, "time_constant_s": 30.0, "throttle_c": 80.0}


def sustained_pass(
    began_s: float, samples_ms: np.ndarray, calls: int = 1, telemetry: dict[str, Any] | None = None
) -> SustainedPass:
    samples_ns = np.round(samples_ms * 1e6).astype(int).tolist()
    return SustainedPass(began_s, RecordedPass([], samples_ns, {"calls": calls, **(telemetry or {})}))


def reading(began_s: float, ms: float, runs: int = 10, **after: Any) -> SustainedPass:
    """Runs in which a tenth takes twice as long."""
    samples = np.full(runs, ms)
    samples[:: max(2, runs)] *= 2
    return sustained_pass(began_s, samples, telemetry={"before": {}, "after": after})


# Windows


def test_minutes_are_summed_up() -> None:
    passes = [
        reading(t, 100 + t, temperature_c={"cpu": 40 + t / 10}, frequency_mhz=[1000.0, 500.0]) for t in range(300)
    ]
    found = windows(passes, 60)
    assert [(one.start_s, one.end_s, one.runs) for one in found] == [(60 * n, 60 * n + 60, 600) for n in range(5)]
    assert found[0].median_ms == pytest.approx(133, abs=5)
    assert found[0].mean_ms < found[1].mean_ms < found[4].mean_ms
    assert found[0].p10_ms < found[0].median_ms < found[0].p90_ms
    assert found[0].temperature_c == pytest.approx(42.95)
    assert (found[0].clock_mhz, found[0].power_w, found[0].throttled_s) == (1000, None, 0)


def test_the_first_minute_and_the_last() -> None:
    found = summarise([reading(t, 100 if t < 150 else 130) for t in range(300)])
    assert found.slowdown_percent == pytest.approx(30)
    assert (found.first.end_s, found.runs) == (60, 3000)
    assert found.seconds == pytest.approx(300, abs=2)
    assert found.throttled_from_s is None
    assert found.slowest.start_s >= 120
    short = summarise([reading(t, 100 if t < 10 else 130) for t in range(20)])
    assert short.first.end_s == pytest.approx(short.seconds / 4)
    assert summarise([reading(0, 100)]).slowdown_percent == 0
    with pytest.raises(ValueError, match="without a pass"):
        summarise([])


def test_the_headline_does_not_hide_what_comes_and_goes() -> None:
    """A run that was throttled for a quarter of the time, but neither at first nor at last, read "+0.0 %"."""
    passes = [
        reading(t, 150 if 100 <= t < 175 else 100, clock_limit_mhz=[1500.0 if 100 <= t < 175 else 2000.0])
        for t in range(300)
    ]
    found = summarise(passes)
    assert found.slowdown_percent == pytest.approx(0)
    seconds = [1.5 if 100 <= t < 175 else 1.0 for t in range(300)]
    means = [150.0 if 100 <= t < 175 else 100.0 for t in range(300)]
    expected = sum(s * m for s, m in zip(seconds, means, strict=True)) / sum(seconds)
    assert found.time_weighted_ms == pytest.approx(expected), "not the mean over inferences"
    assert found.throttled_percent == pytest.approx(100 * 75 * 1.5 / sum(seconds))
    assert found.slowest.start_s == 120
    assert found.worst_percent > 20
    said = headline(found)
    assert said.startswith(f"{expected:.0f} ms on average over ")
    assert "150 ms in the worst minute (+29 %)" in said
    assert "throttled 33 % of the time" in said
    told = json.loads(json.dumps(found.to_json()))
    assert {"time_weighted_ms", "worst_percent", "throttled_percent"} <= set(told)
    assert headline(summarise([reading(t, 100) for t in range(300)])).endswith("never throttled")


def test_throttling_is_what_the_device_says_or_its_limits_show() -> None:
    passes = [reading(t, 100, clock_limit_mhz=[1800.0 if 5 <= t < 8 else 2000.0]) for t in range(10)]
    found = summarise(passes)
    assert found.throttled_from_s == 5
    assert found.throttled_s == pytest.approx(3 * passes[0].busy_s)
    flagged = [reading(0, 100), sustained_pass(1, np.ones(3), telemetry={"throttled": True})]
    assert summarise(flagged).throttled_from_s == 1
    slow = [reading(t, 100, frequency_mhz=[2000.0 if t else 1400.0]) for t in range(3)]
    assert summarise(slow).throttled_from_s == 0


def test_energy_is_known_where_all_of_it_is_told() -> None:
    def telemetry(at_s: float) -> dict[str, Any]:
        before, after = ({"energy": {"at_s": at_s + d, "uj": {"package-0": 1e6 * 5 * (at_s + d)}}} for d in (0, 1.0))
        return {"before": before, "after": after}

    passes = [sustained_pass(t, np.full(100, 10.0), telemetry=telemetry(t)) for t in range(10)]
    found = summarise(passes)
    assert found.energy_mj == pytest.approx(50)
    assert found.first.power_w == pytest.approx(5)
    assert found.busy_percent == pytest.approx(100)


def test_a_time_without_passes_is_no_window() -> None:
    found = windows([reading(t, 100) for t in (0, 1, 130, 131)], 60)
    assert [one.start_s for one in found] == [0, 120]


@pytest.mark.parametrize("after", [{"temperature_c": 3}, {"temperature_c": {"x": "hot"}}, {"frequency_mhz": ["a"]}, {}])
def test_nonsense_is_not_known(after: dict[str, Any]) -> None:
    found = summarise([reading(0, 100, **after)])
    assert (found.hottest_c, found.first.clock_mhz, found.energy_mj) == (None, None, None)


@pytest.mark.parametrize(("seconds", "length"), [(10, 1), (60, 2), (300, 10), (1800, 60), (7200, 300), (10**6, 33334)])
def test_windows_have_round_lengths(seconds: float, length: float) -> None:
    assert nice_window_s(seconds) == length


def test_a_curve_of_dots() -> None:
    lines = curve([0, 0.5, 0.999], [0, 10, 0], 10, 2, 0, 10)
    assert [len(line) for line in lines] == [10, 10]
    assert lines[1][0] != chr(0x2800)
    assert lines[0][0] == chr(0x2800)
    assert lines[0][5] != chr(0x2800)
    assert sparkline([0, None, 10], 0, 10) == "▁ █"


# Runs


def lab(tmp_path: Path, **device: Any) -> Lab:
    made = Lab(tmp_path / "s.db")
    fields = {"transport": "simulated", "kind": "phone", "heating": HOT, "noise": {"slow_clock": None}, **device}
    made.inventory = Inventory({"sim": SimulatedDevice.model_validate(fields)})
    return made


def rows_of(store: Store, session: int) -> tuple[Campaign, Measurement]:
    target = Target("sim", "onnxruntime")
    campaign = store.campaign(
        target, "nasbench201", policy_of(target), 0, Role.SUSTAIN, campaign_options(target, False)
    )
    (row,) = store.rows(campaign, session).values()
    return campaign, row


def test_a_phone_throttles_and_every_run_is_kept(tmp_path: Path) -> None:
    made = lab(tmp_path)
    result = made.sustain("sim", space="nasbench201", arch=ARCH, minutes=3)
    found = result.summary
    assert found is not None
    assert result.complete
    assert (result.status, result.error, result.simulated) == ("ok", None, True)
    assert 180 <= found.seconds < 190
    assert found.busy_percent > 98
    assert 10 < (found.throttled_from_s or 0) < 60
    assert found.slowest.mean_ms > 1.3 * found.first.p10_ms
    assert found.hottest_c == pytest.approx(80, abs=1)
    assert found.energy_mj is not None
    assert found.energy_mj == pytest.approx(found.mean_ms * 5.2, rel=0.25)
    _, row = rows_of(made.store, 1)
    assert (row.role, row.status, row.verdict) == (Role.SUSTAIN, "ok", "throttled")
    assert row.latency_ms == pytest.approx(found.mean_ms)
    assert row.metrics["energy_mj"] == pytest.approx(found.energy_mj, rel=0.02)
    passes = made.store.passes(row.id)
    assert {one.kind for one in passes} == {Role.SUSTAIN}
    assert sum(len(one.samples_ns) for one in passes) == found.runs
    began = [one.telemetry["began_s"] for one in passes]
    assert began == sorted(began)
    assert began[0] == 0


def test_it_makes_no_label(tmp_path: Path) -> None:
    made = lab(tmp_path)
    made.sustain("sim", space="nasbench201", arch=ARCH, minutes=0.1)
    assert made.store.table().empty
    assert list(made.store.table(sustained=True)["role"]) == [Role.SUSTAIN]


def test_the_same_call_begins_anew(tmp_path: Path) -> None:
    made = lab(tmp_path)
    for _ in range(2):
        made.sustain("sim", space="nasbench201", arch=ARCH, minutes=0.1)
    for session in (1, 2):
        assert rows_of(made.store, session)[1].status == "ok"


def test_a_run_that_is_interrupted_is_as_long_as_it_is(tmp_path: Path) -> None:
    made = lab(tmp_path, pace=0.05)
    runs: list[SustainedRun] = []

    def interrupt(_: Measurement | Incident) -> None:
        if len(runs[0].passes) >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.sustain(
            "sim",
            space="nasbench201",
            arch=ARCH,
            minutes=600,
            listener=RunListener(observe=interrupt),
            follow=runs.append,
        )
    result = runs[0].result()
    assert not result.complete
    assert 3 <= len(result.passes) < 200
    _, row = rows_of(made.store, 1)
    assert row.status == "ok"
    assert len(made.store.passes(row.id)) == len(result.passes)


def test_a_run_that_was_killed_is_closed_by_the_next(tmp_path: Path) -> None:
    made = lab(tmp_path)
    made.sustain("sim", space="nasbench201", arch=ARCH, minutes=0.2)
    campaign, row = rows_of(made.store, 1)
    made.store.finish(row.id, "running", latency_ms=None, metrics={})
    close_earlier(made.store, campaign)
    closed = rows_of(made.store, 1)[1]
    assert closed.status == "ok"
    assert closed.latency_ms == pytest.approx(row.latency_ms)
    assert closed.artifact == row.artifact


@pytest.mark.parametrize("kind", ["disconnect", "crash", "hang"])
def test_a_device_that_is_lost_meanwhile_goes_on(tmp_path: Path, kind: str) -> None:
    made = lab(tmp_path, faults={"schedule": [{"kind": kind, "verb": "time", "after_requests": 5}]})
    result = made.sustain("sim", space="nasbench201", arch=ARCH, minutes=0.5)
    assert result.complete
    assert result.status == "ok"
    began = [one.began_s for one in result.passes]
    assert began == sorted(began)
    numbers = [one.number for one in made.store.passes(rows_of(made.store, 1)[1].id)]
    assert numbers == list(range(len(began)))


def test_a_network_that_kills_its_worker_is_told(tmp_path: Path) -> None:
    result = lab(tmp_path, faults={"crashes": 1.0}).sustain("sim", space="nasbench201", arch=ARCH, minutes=0.5)
    assert (result.status, result.summary) == ("crash", None)
    assert "SIGSEGV" in (result.error or "")


def test_a_device_that_is_gone_is_an_error_or_an_early_end(tmp_path: Path) -> None:
    gone = {"kind": "disconnect", "verb": "time", "connects": 10**6}
    with pytest.raises(LatlabError, match="not reached again"):
        lab(tmp_path, reconnect_s=0, faults={"schedule": [gone]}).sustain(
            "sim", space="nasbench201", arch=ARCH, minutes=0.5
        )
    late = lab(tmp_path, reconnect_s=0, faults={"schedule": [{**gone, "after_requests": 4}]})
    result = late.sustain("sim", space="nasbench201", arch=ARCH, minutes=0.5)
    assert len(result.passes) == 4
    assert not result.complete
    assert "not reached again" in (result.error or "")
    assert rows_of(late.store, 2)[1].status == "ok"


def test_the_first_minute_is_of_a_cool_device(tmp_path: Path) -> None:
    made = lab(tmp_path, cooldown={"below_c": 45})
    for _ in range(2):
        result = made.sustain("sim", space="nasbench201", arch=ARCH, minutes=0.5)
        assert result.passes[0].recorded.telemetry["before"]["temperature_c"]["soc"] < 45
    assert result.passes[0].recorded.telemetry["rested_s"] > 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "say which network"),
        ({"space": "nasbench201"}, "say which network"),
        ({"space": "nasbench201", "arch": "x"}, "nasbench201"),
        ({"model": "nothing.onnx"}, "no model file"),
    ],
)
def test_what_is_asked_for_must_make_sense(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        lab(tmp_path).sustain("sim", **wrong)


# What a person sees


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SustainedResult:
    return lab(tmp_path_factory.mktemp("sustained")).sustain("sim", space="nasbench201", arch=ARCH, minutes=4)


@pytest.mark.parametrize(
    ("name", "begins"), [("plot.png", b"\x89PNG"), ("plot.svg", b"<?xml"), ("new/plot.html", b"<!DOCTYPE html>")]
)
def test_plots(result: SustainedResult, tmp_path: Path, name: str, begins: bytes) -> None:
    path = tmp_path / name
    write_chart(result, path)
    content = path.read_bytes()
    assert content.startswith(begins)
    assert b"#c0de" not in content  # stand-ins of colours


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inventory.yaml").write_text("devices:\n  sim: {transport: simulated, kind: phone}\n")

    def latlab(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["latlab", "sustain", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    network = ("--space", "nasbench201", "--arch", ARCH)
    code, out, _ = latlab("sim", *network, "--minutes", "2", "--out", "plot.svg")
    assert code == 0
    assert "throttled" in out
    assert "in the first quarter" in out
    assert "(simulated)" in out
    assert (tmp_path / "plot.svg").exists()
    code, out, _ = latlab("sim", *network, "--minutes", "1", "--json")
    told = json.loads(out)
    assert (code, told["complete"], told["status"]) == (0, True, "ok")
    assert 8 <= len(told["windows"]) <= 30
    for words in (
        ("sim",),
        ("sim", *network, "--model", "x.onnx"),
        ("sim", *network, "--out", "x.pdf"),
        ("no", *network),
    ):
        code, out, err = latlab(*words)
        assert code == 2, words
        assert err.startswith("latlab: ")
