"""A store with values that latlab has not written: it names table and row, and the rest is shown."""

from __future__ import annotations

import contextlib
import gzip
import sqlite3
import warnings
from pathlib import Path

import pytest

from latlab.harness.errors import BadInputError
from latlab.harness.lab import Lab
from latlab.harness.store.distributions import with_distributions
from latlab.harness.store.errors import StoreWarning
from latlab.harness.store.inspection import check_store, store_info
from latlab.harness.store.schema import Base
from latlab.harness.store.sources import listing
from latlab.harness.store.store import Store, StoreError
from latlab.harness.targets import Target
from latlab.harness.timing_policy import PRESETS

FIXTURE = Path(__file__).parent / "fixtures" / "version_0_1.db.gz"
VALUES = {
    "null": "NULL", "word": "'zebra'", "minus": "-1", "infinite": "9e999", "bytes": "x'ff00fe'",
    "not utf-8": "CAST(x'c328' AS TEXT)", "list": "'[1, \"x\"]'", "table of a text": "'{\"p50_ms\": \"slow\"}'",
    "nested": "'{\"before\": {\"temperature_c\": [[]]}}'", "deep": f"'{'[' * 3000}'",
}  # fmt: skip
COLUMNS = [
    (table.name, column.name)
    for table in Base.metadata.sorted_tables
    for column in table.columns
    if not column.primary_key or str(column.type) == "VARCHAR"
]


@pytest.fixture(scope="module")
def content() -> bytes:
    return gzip.decompress(FIXTURE.read_bytes())


@pytest.fixture
def path(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "latlab.db"
    path.write_bytes(content)
    with Store(path) as store:
        store.note("toy", "lost", "for a moment")
        store.note("toy", "back", "")
    return path


def damage(path: Path, sql: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(sql)
    connection.close()


def read(path: Path) -> dict[str, int]:
    """Read all that commands read, and return the number of rows of each answer."""
    with Store(path, must_exist=True) as store:
        table = store.table(raw=True)
        return {
            "labels": len(with_distributions(store, table)),
            "sessions": len(store.campaigns()),
            "failures": len(store.failures()),
            "incidents": len(store.incidents()),
            "sources": len(listing(store)),
            "passes": sum(map(len, table["passes"])),
        }


@pytest.mark.slow
@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_any_value_in_any_column(path: Path, table: str, column: str) -> None:
    whole = read(path)
    content = path.read_bytes()
    for name, value in VALUES.items():
        path.write_bytes(content)
        try:
            damage(path, f'UPDATE {table} SET "{column}" = {value} WHERE rowid = (SELECT min(rowid) FROM {table})')
        except sqlite3.DatabaseError:
            continue  # SQLite itself does not let the column have this value
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = read(path)
        assert all(
            found[what] <= count for what, count in whole.items() if what in ("labels", "incidents", "passes")
        ), name
        for one in said:
            assert issubclass(one.category, StoreWarning), f"{name}: {one.message}"
        assert not said or not check_store(path).is_sound, name


def test_info_of_a_damaged_store(path: Path) -> None:
    damage(path, "UPDATE campaigns SET options = CAST(x'c328' AS TEXT), target = x'ff'")
    with pytest.warns(StoreWarning, match="campaigns row"):
        assert store_info(path).targets == {}


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("campaigns", "target"),
        ("campaigns", "selection"),
        ("measurements", "arch"),
        ("measurements", "started_at"),
        ("measurements", "verdict"),
        ("measurements", "low_ms"),
        ("passes", "samples_ns"),
        ("passes", "telemetry"),
        ("anchors", "warmup_ns"),
        ("sessions", "facts"),
    ],
)
@pytest.mark.parametrize("name", ["word", "not utf-8", "nested"])
def test_an_assessment_of_damaged_rows(path: Path, table: str, column: str, name: str) -> None:
    damage(path, f'UPDATE {table} SET "{column}" = {VALUES[name]} WHERE rowid = (SELECT min(rowid) FROM {table})')
    with warnings.catch_warnings(), contextlib.suppress(BadInputError):  # what is left may be another target's
        warnings.simplefilter("ignore", StoreWarning)
        Lab(path).quality("toy", space="nasbench201")


@pytest.mark.parametrize("value", ["null", "[1, 2]", "7", "no JSON", '{"p50_ms": "slow"}'])
@pytest.mark.parametrize("column", ["metrics", "times_s"])
def test_the_other_rows_are_shown(path: Path, column: str, value: str) -> None:
    rows = len(Store(path).table())
    damage(path, f"UPDATE measurements SET {column} = '{value}' WHERE id = 1")
    with pytest.warns(StoreWarning, match=f"a damaged row, which is left out: measurements row 1 .{column} is") as said:
        assert len(Store(path).table()) == rows - 1
    assert str(path) in str(said[0].message)


@pytest.mark.parametrize("value", ["NULL", "'slow'", "9e999"])
def test_a_label_that_is_no_latency(path: Path, value: str) -> None:
    damage(path, f"UPDATE measurements SET latency_ms = {value} WHERE id = 1")
    with pytest.warns(StoreWarning, match="measurements row 1"):
        assert 1 not in set(Store(path).table()["id"])


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("UPDATE passes SET kind = 'zebra' WHERE id = 1", "passes row 1 .kind is zebra"),
        ("UPDATE passes SET telemetry = '[1, 2]' WHERE id = 1", "passes row 1 .telemetry"),
        ("UPDATE passes SET samples_ns = '[1, \"x\"]' WHERE id = 1", "passes row 1 .samples_ns"),
        ("UPDATE anchors SET telemetry = '7' WHERE id = 1", "anchors row 1 .telemetry"),
        ("UPDATE sessions SET facts = 'null' WHERE session = 1", "sessions row .* .facts"),
        ("UPDATE measurements SET started_at = 'yesterday' WHERE id = 1", "measurements row 1 .started_at"),
    ],
)
def test_what_an_assessment_reads(path: Path, sql: str, message: str) -> None:
    damage(path, sql)
    with pytest.warns(StoreWarning, match=message):
        assert Lab(path).quality("toy", space="nasbench201")


def test_a_store_that_is_damaged_inside_a_page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        read(path)


def test_a_seed_that_the_file_cannot_hold(path: Path) -> None:
    with pytest.raises(BadInputError, match="at most 64 bits"):
        Store(path).campaign(Target("toy", "onnxruntime"), "nasbench201", PRESETS["quick"], 10**20, "random")
