"""Tests of the labels that an interrupted onboarding leaves: used, marked, and made final by the same command."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pandas as pd
import pytest
from waiting import wait_until

from latlab.harness import Lab
from latlab.harness.store.store import Store

WORDS = ["onboard", "sim", "--space", "nasbench201", "--budget", "12"]
TARGET = "sim/onnxruntime/cpu/fp32/t1/b1"


def latlab(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "latlab.harness", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module", params=[signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def interrupted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store of an onboarding that was ended after a few first passes."""
    folder = tmp_path_factory.mktemp("interrupted")
    (folder / "inventory.yaml").write_text("devices: {sim: {transport: simulated, kind: pi4, pace: 0.2}}")
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "latlab.harness", *WORDS], cwd=folder, stdout=said, stderr=said
        )

    def has_labels() -> bool:
        assert process.poll() is None, (folder / "said").read_text()
        with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{folder}/latlab.db?mode=ro", uri=True)) as store:
            query = "SELECT count(*) FROM measurements WHERE latency_ms > 0"
            return bool(store.execute(query).fetchone()[0] >= 6)
        return False

    try:
        wait_until(has_labels, "nothing is measured", 180)
    finally:
        process.send_signal(request.param)
    assert process.wait(60) in (130, -signal.SIGKILL)
    return folder


def table_of(folder: Path) -> pd.DataFrame:
    store = Store(folder / "latlab.db")
    try:
        return store.table(provisional=True)
    finally:
        store.close()


def test_they_are_marked(interrupted: Path) -> None:
    table = table_of(interrupted)
    assert table["provisional"].all()
    assert (table["latency_ms"] > 0).all()


def test_they_are_predicted_from(interrupted: Path) -> None:
    lab = Lab(interrupted / "latlab.db", inventory=interrupted / "inventory.yaml")
    found = lab.predict("sim")
    lab.store.close()
    assert found.support >= 6
    assert "are provisional" in found.remarks[0]


@pytest.mark.slow
@pytest.mark.parametrize("interrupted", [signal.SIGINT], indirect=True)
def test_every_command_says_so(interrupted: Path) -> None:
    shown = latlab(interrupted, "show")
    assert "are provisional" in shown.stdout
    assert f"latlab onboard {TARGET} --space nasbench201" in shown.stdout
    exported = latlab(interrupted, "export", "--out", "m.csv")
    assert (exported.returncode, "are provisional" in exported.stderr) == (0, True), exported.stderr
    assert pd.read_csv(interrupted / "m.csv")["provisional"].all()
    reported = latlab(interrupted, "report")
    assert reported.returncode == 0, reported.stderr
    assert "are provisional" in (interrupted / "report.html").read_text()
    done = latlab(interrupted, *WORDS)  # and the same command makes them final
    assert done.returncode == 0, done.stderr
    table = table_of(interrupted)
    assert len(table) == 12
    assert not table["provisional"].any()
    assert "provisional" not in latlab(interrupted, "show").stdout


def test_a_clock_that_was_set_back_leaves_no_label_provisional(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text("devices: {sim: {transport: simulated, kind: pi4}}")
    Lab(tmp_path / "latlab.db", inventory=inventory).measure("sim", space="nasbench201", count=2)
    with closing(sqlite3.connect(tmp_path / "latlab.db")) as store, store:
        store.execute("UPDATE measurements SET finished_at = '2099' || substr(finished_at, 5)")
    Lab(tmp_path / "latlab.db", inventory=inventory).measure("sim", space="nasbench201", count=3)
    assert table_of(tmp_path)["provisional"].tolist() == [False] * 3
