"""What all tests share: the tiers, and caches of their own, so that they neither see nor disturb the user's.

    python -m pytest                 everything that this machine can run
    python -m pytest -m quick        at most two minutes on two cores; it touches every package
    python -m pytest -m "not slow"   without tests of more than ten seconds

A test is quick by a rule, not by a mark of its own: it is not marked `slow`, `peers`, `gpu` or `data`, it does not take
long by what was measured, and it is one of the first cases of its function (`quick_tier.py` has the numbers). So a new
test is quick until it is found to take long.
"""

from __future__ import annotations

import os

# Before anything imports a runtime: tests share a small machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import atexit
import gc
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latlab.harness.cli.main import COLLECT_AFTER
from latlab.harness.errors import LatlabError

gc.set_threshold(*COLLECT_AFTER)  # as in a command; thousands of collected tests make each collection slow
atexit.register(gc.freeze)

pytest_plugins = ["peers.fixtures", "quick_tier"]

# Whoever runs the tests in the background (nohup, a shell's `&`) ignores these, and everything that is started here
# would inherit that: Ctrl-C would do nothing, and what a phone's daemon starts would outlive its connection.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


BAD_ENDS = re.compile(r"[?!:,;]\.$|(?<!\.)\.\.$|: \.(?=\s|$)|: $|[\s,;:]$|\bNone\.?$")
"""Ends of sentences that were put together from parts, one of which was empty or had an end of its own."""
_badly_put: list[str] = []
_usual_init = LatlabError.__init__


def _checked_init(self: LatlabError, *arguments: Any, **more: Any) -> None:
    _usual_init(self, *arguments, **more)
    _badly_put.extend(text for text in (self.message, self.hint or "") if BAD_ENDS.search(text))
    if self.hint == "" and self.message:  # hostile text may leave nothing of both
        _badly_put.append(f"{self.message}: its hint is empty")


LatlabError.__init__ = _checked_init  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def errors_are_well_put() -> Iterator[None]:
    """Fail a test in which an error was made, shown or not, whose sentences do not end as they should."""
    _badly_put.clear()
    yield
    assert not _badly_put


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """latlab's cache folder for this test session; its tests share exported networks."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["LATLAB_CACHE"] = str(folder)
    os.environ.pop("LATLAB_INVENTORY", None)
    return folder


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of the published tables."""
    named = os.environ.get("LATLAB_DATA")
    if not named:
        pytest.skip("LATLAB_DATA does not name the folder of the published tables")
    return Path(named)
