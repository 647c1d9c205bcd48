"""Tests of the quick tier: it touches every package, and what is known of durations is of tests that there are."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from quick_tier import name_of, read_durations

ROOT = Path(__file__).parents[1]
LIST = """
import pytest
class List:
    def pytest_collection_finish(self, session):
        for item in session.items:
            print("\\n>", item.get_closest_marker("quick") is not None, item.nodeid)
pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "tests"], plugins=[List()])
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tests() -> dict[str, bool]:
    """Every test of the suite, by its id: whether it is quick."""
    done = subprocess.run([sys.executable, "-c", LIST], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines() if line.startswith("> ")]
    return {node: quick == "True" for _, quick, node in lines}


def test_every_package_has_quick_tests(tests: dict[str, bool]) -> None:
    quick = [node for node, is_quick in tests.items() if is_quick]
    assert len(quick) > 1000
    without = set()
    for package in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]:
        folder = Path("tests", *package.split(".")[1:])
        while not (ROOT / folder).is_dir():  # a package whose tests stand with those of the one above
            folder = folder.parent
        assert folder != Path("tests") or package == "latlab", f"no tests mirror {package}"
        if not any(node.startswith(f"{folder}/") for node in quick):
            without.add(str(folder))
    assert not without, "folders without a quick test: see quick_tier.QUICK_ANYWAY"


def test_durations_are_of_tests_that_there_are(tests: dict[str, bool]) -> None:
    """After a test got another name, put it into durations.txt, or record durations again (see quick_tier.py)."""
    assert set(read_durations()) <= {name_of(node) for node in tests}
