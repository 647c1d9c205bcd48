"""Tests of what is installed: every package is listed, every data file shipped, versions are pinned as promised."""

from __future__ import annotations

import tomllib
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = ("agents", "harness", "predictors", "search_spaces")


def test_every_package_is_listed() -> None:
    here = {
        "latlab." + ".".join(file.parent.relative_to(ROOT).parts)
        for folder in FOLDERS
        for file in (ROOT / folder).rglob("__init__.py")
    }
    assert here == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_data_file_is_shipped() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    for folder in FOLDERS:
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and file.suffix != ".py" and "__pycache__" not in file.parts:
                assert any(file.match(pattern) for pattern in patterns), f"{file} would not be installed"


def test_every_package_says_that_it_is_typed() -> None:
    assert all((ROOT / folder / "py.typed").exists() for folder in FOLDERS)


def test_entry_points_load() -> None:
    for group, points in PROJECT["project"]["entry-points"].items():
        for name in points:
            (found,) = entry_points(group=group, name=name)
            assert isinstance(found.load(), type)


def test_torch_is_pinned() -> None:
    assert "torch==2.13.0" in PROJECT["project"]["dependencies"]
