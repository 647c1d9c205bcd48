"""Tests of export contention: whether exports wait for passes is decided by a comparison, and never without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest

from latlab.harness.exporters.service import Exports
from latlab.harness.measurement.contention import PAIRS, ExportContention


class Busy:
    """Exports that are always running and slow down what runs at the same time."""

    def __init__(self, slower: float) -> None:
        self.slower, self.pauses, self.alone, self.busy = slower, 0, False, True

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.pauses, self.alone = self.pauses + 1, True
        try:
            yield
        finally:
            self.alone = False

    def latency(self) -> float:
        return 1.0 if self.alone else self.slower


@pytest.mark.parametrize(("slower", "shows"), [(1.0, False), (1.003, False), (1.03, True), (1.2, True)])
def test_exports_wait_where_they_show(slower: float, shows: bool) -> None:
    exports = Busy(slower)
    contention = ExportContention(cast(Exports, exports))
    assert contention.changes_latency is None
    contention.compare(exports.latency, PAIRS)
    assert contention.changes_latency is shows
    before = exports.pauses
    with contention.without_exports():
        assert exports.alone is shows
    contention.compare(exports.latency, PAIRS)  # it is known: nothing is timed any more
    assert exports.pauses == before + shows


def test_until_it_is_known_exports_wait() -> None:
    exports = Busy(1.0)
    contention = ExportContention(cast(Exports, exports))
    contention.compare(exports.latency, PAIRS - 1)
    exports.busy = False
    contention.compare(exports.latency, PAIRS)  # nothing to compare with
    assert contention.changes_latency is None
    with contention.without_exports():
        assert exports.alone
