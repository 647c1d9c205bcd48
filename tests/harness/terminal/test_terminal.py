"""Tests of the live display: no important column is squeezed out, and a log is not silent for long."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from waiting import wait_until

from latlab.harness.devices import session
from latlab.harness.fleet.jobs import DeviceState, Incident
from latlab.harness.store.store import Measurement
from latlab.harness.targets import Target
from latlab.harness.terminal import progress as terminal_live
from latlab.harness.terminal import results as terminal
from latlab.harness.terminal.progress import View
from latlab.harness.terminal.results import show_labels, show_measurements, show_store
from latlab.harness.transports.local.config import LocalDevice

REASON = "the SSH server of the machine closed the connection " * 4
assert len(REASON) > 200


def devices() -> dict[str, DeviceState]:
    target = Target("bench-pi-4", "onnxruntime", "cpu")
    row = Measurement(arch="net", role="train", status="ok", latency_ms=3.14159)
    states = [
        DeviceState("bench-pi-4", "lost", target, total=60, done=12, failed=3, last=row, trouble=REASON),
        DeviceState("bench-pi-5", "done", target, total=60, done=60, last=row),
        DeviceState("phone", "quarantined", total=60, trouble=f"device phone: {REASON}\nmore"),
    ]
    return {state.name: state for state in states}


def screen(width: int, *, terminal: bool = True) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=width, force_terminal=terminal, color_system=None), out


def view(console: Console) -> View:
    one = View(console)
    one.watch(devices())
    return one


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_a_long_reason_squeezes_nothing_out(width: int) -> None:
    console, out = screen(width)
    console.print(view(console))
    lines = out.getvalue().splitlines()
    assert len(lines) == 4, "no row is folded"
    assert all(len(line) <= width for line in lines)
    head, lost, phone, done = lines
    assert "device" in head
    assert "doing" in head
    assert "networks" in head
    assert "bench-pi-4" in lost
    assert " lost " in lost
    assert "12/60 (3 failed)" in lost
    assert "bench-pi-5" in done
    assert "60/60" in done
    assert "phone" in phone
    assert "quarantined" in phone
    assert "0/60" in phone
    assert "latency" in head
    assert "3.14 ms" in lost
    if width >= 80:
        assert "the SSH server" in lost
        assert "…" in lost
    if width >= 100:
        assert "a minute" in head
        assert "temp." in head


def test_the_rate_of_a_finished_device_stays() -> None:
    now = time.monotonic()
    state = DeviceState("pi", "done", done=10, began=now - 120, ended=now - 60)
    assert state.per_minute == pytest.approx(10)


def test_a_log_hears_of_a_long_run_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    console, out = screen(80, terminal=False)
    one = view(console)
    one.observe(Incident("bench-pi-4", "lost", REASON))
    assert out.getvalue() == f"lost  bench-pi-4: {REASON}\n", "one line, told at once; no heartbeat yet"
    monkeypatch.setattr(terminal_live, "HEARTBEAT_S", 0.0)
    one.beat()
    assert out.getvalue().splitlines()[1:] == ["bench-pi-4: 12/60 (3 failed), 3.14 ms last, lost"]


def test_what_takes_long_is_said_without_any_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first inference may take minutes, in which nothing is finished and nothing fails."""
    monkeypatch.setattr(session, "WAIT_S", 0.0)
    monkeypatch.setattr(terminal_live, "HEARTBEAT_S", 0.0)
    monkeypatch.setattr(terminal_live, "BEAT_S", 0.01)
    console, out = screen(80, terminal=False)
    device = session.DeviceSession("pi", LocalDevice(), Target("pi", "onnxruntime"))
    device.begin("loading", "large.onnx, first inference included")
    with terminal_live.beating(terminal_live.View(console)) as view:
        view.watch({"pi": DeviceState("pi", "running", session=device, total=3)})
        wait_until(out.getvalue, "no line is printed")
    assert out.getvalue().splitlines()[0] == "pi: 0/3, loading for 0 s: large.onnx, first inference included"
    monkeypatch.setattr(session, "WAIT_S", 5.0)
    assert device.waiting == ""
    device.begin("resting")
    monkeypatch.setattr(session, "WAIT_S", 0.0)
    assert device.waiting == ""


@pytest.mark.parametrize("width", [80, 200])
def test_a_bar_says_what_takes_long(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "WAIT_S", 0.0)
    console, out = screen(width)
    device = session.DeviceSession("pi", LocalDevice(), Target("pi", "onnxruntime"))
    device.begin("loading", "large.onnx, first inference included")
    live = terminal_live._LiveView(console, "user")
    live.watch({"pi": DeviceState("pi", "running", session=device, total=3)})
    live.stop()
    assert "loading for 0 s" in out.getvalue()
    assert ("large.onnx, first inference included" in out.getvalue()) == (width == 200)


@pytest.mark.parametrize(("stderr_ms", "noisy"), [(0.02, False), (0.2, True)])
def test_noise_of_measurements_is_told(stderr_ms: float, noisy: bool, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"target": "pi/onnxruntime/cpu/fp32/t1/b1", "arch": "net", "status": "ok", "error": None}
    row |= {"latency_ms": 2.0, "stderr_ms": stderr_ms, "high_ms": 2.1, "verdict": "noisy" if noisy else ""}
    show_measurements(pd.DataFrame([row]), Path("s.db"), raw=False)
    said = capsys.readouterr().out
    assert f"median standard error {stderr_ms / 2:.1%}".replace("%", " %") in said
    assert ("latlab doctor" in said) == ("(1 noisy)" in said) == noisy
    assert not any(line.endswith(" ") for line in said.splitlines())


@pytest.mark.parametrize(
    ("factor", "low", "high", "unit"),
    [(1e-3, "2.00", "30.0", "µs"), (1.0, "2.00", "30.0", "ms"), (1e4, "20.0", "300", "s")],
)
def test_latencies_have_the_unit_that_fits_one_in_a_column(
    factor: float, low: str, high: str, unit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pd.DataFrame({"arch": ["a", "b"], "status": "ok", "error": None, "target": ["pi/x", "pi/x"], "space": "s"})
    rows = rows.assign(latency_ms=[2.0 * factor, 30.0 * factor], stderr_ms=0.004 * factor, high_ms=1.0, verdict="")
    rows = rows.assign(passes=[[[int(2e6 * factor)]], [[int(3e7 * factor)]]])
    show_measurements(rows, Path("s.db"), raw=True)
    said = capsys.readouterr().out
    assert {low, high} == set(re.findall(rf"[ab] +([\d.]+) {unit} ", said))
    assert not re.search(r"(?<![\d.])0(\.0+)? (µs|ms|s)\b", said), "a latency or its error is shown as none"

    show_measurements(rows.assign(target=["pi/x", "phone/x"]), Path("s.db"), raw=False)
    said = capsys.readouterr().out
    assert len(re.findall(rf"(?:{low} {unit} +){{3}}|(?:{high} {unit} +){{3}}", said)) == 2

    percentiles = {f"{name}_ms": rows["latency_ms"] for name in ("p50", "p90", "p95", "p99")}
    show_labels(rows.assign(**percentiles, jitter_percent=1.0, throughput_per_s=5.0))
    said = capsys.readouterr().out
    assert {"µs": "microseconds", "ms": "milliseconds", "s": "seconds"}[unit] in said
    assert len(re.findall(rf"\b{low}\b", said)) == 5


def test_campaigns_fit_into_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow, out = screen(60)
    monkeypatch.setattr(terminal, "console", lambda: narrow)
    row = {"space": "nasbench201", "selection": "onboard:ridge", "policy": "default", "seed": 0, "session": 1}
    row |= {"target": "pi/onnxruntime/cpu/fp32/t1/b1", "simulated": False, "ok": 15, "failed": 0, "running": 0}
    show_store(Path("s.db"), pd.DataFrame([row | {"last": "2026-03-02T10:15:42"}]), pd.DataFrame())
    assert len(out.getvalue().splitlines()) == 3
