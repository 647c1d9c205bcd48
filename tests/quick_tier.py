"""Which tests are quick: those that a developer runs after each change (`python -m pytest -m quick`). A pytest plugin.

`durations.txt` has the tests that take long, as they were measured. After tests have been added or have become slower,
on a machine that does nothing else:

    python -m pytest --record-durations    (or with the folder or module in question)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

__all__ = ["CASES", "DURATIONS", "LIMIT_S", "choose", "name_of", "read_durations"]

LIMIT_S = 0.4
"""Seconds, of its longest case, from which a test is not quick. Some 3,000 tests that take less fit in two minutes."""
CASES = 3
"""Cases of a parametrized test that are quick, the first ones; the full run has the others."""
QUICK_ANYWAY = ("test_cost_features.py::test_columns_are_standardised_totals",)
"""Tests that take longer, but stand for a package that has no others."""
DURATIONS = Path(__file__).with_name("durations.txt")
_RECORDED_S = 0.3
"""Shorter ones are not recorded: they would be most of the file, and change with every run."""
_OTHER_TIERS = ("slow", "peers", "gpu", "data")


def name_of(node: str) -> str:
    """Return the name under which the durations of a test are kept: its module, which is unique, and its function."""
    return node.partition("[")[0].rpartition("/")[2]


def read_durations(path: Path = DURATIONS) -> dict[str, float]:
    """Return the seconds that the longest case of a test takes, of tests that take long."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {name: float(seconds) for seconds, name in lines}


def choose(items: Iterable[pytest.Item], durations: Mapping[str, float]) -> list[pytest.Item]:
    """Return the tests of a collection that are quick."""
    cases: Counter[str] = Counter()
    chosen = []
    for item in items:
        name = name_of(item.nodeid)
        takes_long = durations.get(name, 0.0) >= LIMIT_S and name not in QUICK_ANYWAY
        if takes_long or any(item.get_closest_marker(tier) for tier in _OTHER_TIERS):
            continue
        cases[name] += 1
        if cases[name] <= CASES:
            chosen.append(item)
    return chosen


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-durations", action="store_true", help=f"write what takes long to {DURATIONS.name}")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--record-durations"):
        config.pluginmanager.register(_Recorder())


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in choose(items, read_durations()):
        item.add_marker(pytest.mark.quick)


class _Recorder:
    """Puts the durations of the tests that ran in place of what was known of them."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration

    def pytest_sessionfinish(self) -> None:
        longest: defaultdict[str, float] = defaultdict(float)
        for node, seconds in self._seconds.items():
            longest[name_of(node)] = max(longest[name_of(node)], seconds)
        found = {**read_durations(), **longest}
        kept = {name: seconds for name, seconds in found.items() if seconds >= _RECORDED_S}
        DURATIONS.write_text("".join(f"{kept[name]:.1f} {name}\n" for name in sorted(kept)))
