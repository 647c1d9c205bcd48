"""A store with values that latlab has not written says so, names the file, and never ends in a traceback."""

from __future__ import annotations

import gzip
import sqlite3
from pathlib import Path

import pytest

from latlab.harness.errors import BadInputError
from latlab.harness.lab import Lab
from latlab.harness.store.store import Store, StoreError
from latlab.harness.targets import Target
from latlab.harness.timing_policy import PRESETS

FIXTURE = Path(__file__).parent / "fixtures" / "version_0_1.db.gz"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "latlab.db"
    path.write_bytes(gzip.decompress(FIXTURE.read_bytes()))
    return path


def damage(path: Path, sql: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(sql)
    connection.close()


@pytest.mark.parametrize("value", ["null", "[1, 2]", "7", "no JSON"])
@pytest.mark.parametrize("column", ["metrics", "times_s"])
def test_a_table_in_a_measurement(path: Path, column: str, value: str) -> None:
    damage(path, f"UPDATE measurements SET {column} = '{value}' WHERE id = 1")
    with pytest.raises(StoreError, match="is damaged, or a newer latlab has written it"):
        Store(path).table()


@pytest.mark.parametrize("value", ["NULL", "'slow'", "9e999"])
def test_a_label_that_is_no_latency(path: Path, value: str) -> None:
    damage(path, f"UPDATE measurements SET latency_ms = {value} WHERE id = 1")
    with pytest.raises(StoreError, match="has no latency"):
        Store(path).table()


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("UPDATE passes SET kind = 'zebra'", "unknown kind 'zebra'"),
        ("UPDATE passes SET telemetry = '[1, 2]'", "has no telemetry"),
        ("UPDATE passes SET telemetry = 'null'", "has no telemetry"),
        ("UPDATE passes SET samples_ns = '[1, \"x\"]'", "no whole numbers"),
        ("UPDATE passes SET samples_ns = 'no JSON'", "not JSON"),
        ("UPDATE anchors SET telemetry = '7'", "has no telemetry"),
        ("UPDATE sessions SET facts = 'null'", "holds no table"),
    ],
)
def test_what_an_assessment_reads(path: Path, sql: str, message: str) -> None:
    damage(path, sql)
    with pytest.raises(StoreError, match=message) as caught:
        Lab(path).quality("toy", space="nasbench201")
    assert str(path) in str(caught.value)


def test_a_seed_that_the_file_cannot_hold(path: Path) -> None:
    with pytest.raises(BadInputError, match="at most 64 bits"):
        Store(path).campaign(Target("toy", "onnxruntime"), "nasbench201", PRESETS["quick"], 10**20, "random")
