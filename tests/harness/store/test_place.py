"""The address of a store: what is one, and that its password is never shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from latlab.harness.errors import BadInputError
from latlab.harness.store.place import ServerPlace, store_path, without_passwords


@pytest.mark.parametrize("named", ["latlab.db", "a folder/latlab.db", "postgresql.db", "c:latlab.db"])
def test_files_are_files(named: str) -> None:
    assert store_path(named) == Path(named)
    assert store_path(Path(named)) == Path(named)


@pytest.mark.parametrize(
    ("named", "shown"),
    [
        ("postgresql+psycopg://lab@db/x", "lab@db/x"),
        ("postgres:///x?host=/tmp", "/x?host=/tmp"),
        ("POSTGRESQL://lab:hush@db:5432/x", "lab@db:5432/x"),
        ("postgresql://lab:hu@sh/?hush@db/x?sslmode=require", "lab@db/x?sslmode=require"),
        ("postgresql://lab@db/x?password=hush", "lab@db/x"),
        ("postgresql://lab@db/x?sslmode=require&sslpassword=hush", "lab@db/x?sslmode=require"),
    ],
)
def test_addresses_are_shown_without_their_password(named: str, shown: str) -> None:
    place = store_path(named)
    assert isinstance(place, ServerPlace)
    assert str(place) == f"postgresql+psycopg://{shown}"
    assert "hush" not in f"{place} {place!r}"
    assert place.has_password == ("hush" in named)
    assert store_path(place) is place
    assert "hush" not in without_passwords(f"unexpected argument ({named})")


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("mysql://lab:hush@db/x", "neither"),
        ("sqlite:///latlab.db", "by its file"),
        (Path("postgresql+psycopg://lab:hush@db/x"), "lost its slashes"),
        ("postgresql://lab:hush@db/x\n", "control characters"),
    ],
)
def test_other_addresses_are_refused(named: str | Path, said: str) -> None:
    with pytest.raises(BadInputError, match=said) as caught:
        store_path(named)
    assert "hush" not in str(caught.value)
    assert caught.value.hint


def test_without_its_driver_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from latlab.harness.cli.main import main\n"
        "sys.argv = ['latlab', 'show', 'postgresql://lab:hush@127.0.0.1/x']; main()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 2
    assert "pip install 'latlab[postgresql]'" in ran.stderr
    assert "hush" not in ran.stdout + ran.stderr
