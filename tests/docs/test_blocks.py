"""Every page with commands or programs is run by a test, or it says here why not."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = {
    "extending.md": "tests/docs/test_extending.py",
    "network-search.md": "tests/docs/test_tutorials.py",
    "own-labels.md": "tests/harness/store/test_own_labels.py",
    "start.md": "tests/docs/test_tutorials.py",
    "tutorials.md": "tests/docs/test_tutorials.py",
}
"""Pages that a test follows, and that test."""
PUBLISHED, DEVICES, LONG = (
    "published tables",
    "devices of the reader's own",
    "minutes on a device, of which tests have short forms",
)
NOT_RUN = {
    "README.md": "its two commands are CI's, the others are those of the pages that it leads to",
    "any-model.md": LONG,
    "bench.md": PUBLISHED,
    "clusters.md": "a cluster, and days of exports; test_export_models.py starts a small one",
    "comparing.md": LONG,
    "dashboard.md": DEVICES,
    "encodings.md": LONG,
    "gpu.md": "a GPU",
    "index.md": "CI's own installation",
    "json.md": DEVICES,
    "onboarding.md": f"{LONG}, and {PUBLISHED}",
    "own-models.md": "a model of the reader's own",
    "postgresql.md": "a database server; tests/harness/store/test_postgresql.py copies stores there and back",
    "predictors-in-use.md": "labels that the reader has",
    "pretraining.md": f"{PUBLISHED}, and minutes of training",
    "profiling.md": LONG,
    "quality.md": LONG,
    "ranking.md": f"{DEVICES}, and {LONG}",
    "search-spaces.md": "test_hat_networks.py measures such networks",
    "several-devices.md": DEVICES,
    "stores.md": "stores of several computers; tutorials.md does the same with some that it makes",
    "sustained.md": DEVICES,
    "tables.md": PUBLISHED,
}
"""Pages whose blocks no test runs, and what they need. `test_reference.py` looks whether their commands exist."""


def test_every_page_with_blocks_is_run_or_says_why_not() -> None:
    assert not RUN.keys() & NOT_RUN.keys()
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    with_blocks = {one.name for one in pages if re.search(r"^```(bash|python|text)", one.read_text(), re.MULTILINE)}
    assert with_blocks == RUN.keys() | NOT_RUN.keys()


def test_the_tests_of_pages_read_them() -> None:
    for page, test in RUN.items():
        assert page in (ROOT / test).read_text()
