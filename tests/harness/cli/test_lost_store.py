"""A store that is deleted, replaced or removed with its folder while a command measures: it says so, and saves all."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from forked_commands import CommandServer
from harmed_outputs import FIRST, SECOND, SPACE
from waiting import wait_until

PASSES = "SELECT count(*) FROM passes"
WORDS = {
    "measure": f"measure slow --space {SPACE} --count 100",
    "onboard": f"onboard slow --space {SPACE} --budget 30",
    "sustain": f"sustain slow --space {SPACE} --arch {FIRST} --minutes 2",
    "compare": f"compare slow --space {SPACE} --arch {FIRST} --arch {SECOND} --budget 60",
}


@pytest.fixture(scope="module")
def server() -> Iterator[CommandServer]:
    with CommandServer() as server:
        yield server


@pytest.mark.parametrize(
    ("command", "happens"),
    [("measure", "deleted"), ("onboard", "replaced"), ("sustain", "folder removed"), ("compare", "deleted")],
)  # fmt: skip
def test_a_lost_store(server: CommandServer, tmp_path: Path, command: str, happens: str) -> None:
    device = {"transport": "simulated", "kind": "phone", "pace": 1}
    (tmp_path / "inventory.yaml").write_text(json.dumps({"devices": {"slow": device}}))
    store = tmp_path / "stores" / "s.db"
    store.parent.mkdir()
    process = server.start([*WORDS[command].split(), "--store", "stores/s.db"], tmp_path)
    try:
        wait_until(lambda: _passes(store) > 1 or process.poll() is not None, "nothing is measured", 280)
        assert process.poll() is None, process.stderr
        known = _passes(store)
        if happens == "folder removed":
            shutil.rmtree(store.parent)
        else:
            store.unlink()
        if happens == "replaced":
            store.write_bytes(b"")
        assert process.wait(120) not in (0, 3)
    finally:
        process.kill()
    said = " ".join(process.stderr.split())
    assert "Traceback" not in said
    assert f"{'replaced' if happens == 'replaced' else 'deleted'} while latlab was writing it" in said
    saved = tmp_path / ("s-saved.db" if happens == "folder removed" else "stores/s-saved.db")
    assert f"is saved in {saved.relative_to(tmp_path) if happens == 'folder removed' else saved}" in said
    assert _passes(saved) >= known


def _passes(path: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
            return int(store.execute(PASSES).fetchone()[0])
    except sqlite3.Error:
        return 0
