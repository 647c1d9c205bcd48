"""Tests of what is installed: every package is listed, every data file shipped, versions are as promised."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = ("agents", "harness", "predictors", "search_spaces")
TOP = ROOT / "harness" / "latlab"
"""The package `latlab` itself."""
TESTED = {
    canonicalize_name(name): Version(number)
    for name, number in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}
EXTRAS = [extra for extra in PROJECT["project"]["optional-dependencies"] if extra != "litert"]
"""Without the converters that only benchmarks compare with."""
REQUIREMENTS = [
    Requirement(line)
    for lines in (
        PROJECT["project"]["dependencies"],
        *(PROJECT["project"]["optional-dependencies"][extra] for extra in EXTRAS),
    )
    for line in lines
]


def test_every_package_is_listed() -> None:
    folders = [file.parent for folder in FOLDERS for file in (ROOT / folder).rglob("__init__.py")]
    here = {"latlab." + ".".join(folder.relative_to(ROOT).parts) for folder in folders if folder != TOP}
    assert here | {"latlab", "latlab.docs"} == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_data_file_is_shipped() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    for folder in FOLDERS:
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and file.suffix != ".py" and "__pycache__" not in file.parts:
                assert any(file.match(pattern) for pattern in patterns), f"{file} would not be installed"


def test_every_package_says_that_it_is_typed() -> None:
    assert all((folder / "py.typed").exists() for folder in (TOP, *(ROOT / name for name in FOLDERS)))


def test_entry_points_load() -> None:
    for group, points in PROJECT["project"]["entry-points"].items():
        for name in points:
            (found,) = entry_points(group=group, name=name)
            assert isinstance(found.load(), type)


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda one: one.name)
def test_what_pyproject_asks_for_is_tested_in_one_version(requirement: Requirement) -> None:
    """A range admits the tested version, and pip would otherwise choose one that nobody tried."""
    assert requirement.specifier.contains(TESTED[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("line", PROJECT["project"]["dependencies"], ids=lambda one: re.split(r"\W", one)[0])
def test_what_users_install_is_never_pinned(line: str) -> None:
    """A pinned dependency cannot be installed next to a package that needs another version."""
    operators = {one.operator for one in Requirement(line).specifier}
    assert ">=" in operators
    assert operators <= {">=", "<"}


def test_torch_is_tested_in_any_build() -> None:
    """With a local version, such as +cpu, no other build would do; without any, pip takes several GB here."""
    assert "\ntorch==2.13.0\n" in (ROOT / "constraints.txt").read_text()


def test_the_tested_versions_are_installed() -> None:
    names = [Requirement(line).name for line in PROJECT["project"]["dependencies"]]
    installed = {name: Version(Version(version(name)).public) for name in names}
    assert installed == {name: TESTED[canonicalize_name(name)] for name in names}


def test_no_two_test_modules_have_one_name() -> None:
    """pytest imports them by their names alone, and stops at the second one: `python -m pytest` would run nothing."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_ci_runs_the_commands_of_the_readme() -> None:
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    assert "pip install -c constraints.txt -e . && " in readme
    assert "pip install -c constraints.txt -e '.[test]' && .venv/bin/python -m pytest\n" in readme
    assert "pip install --quiet -c constraints.txt -e '.[test," in ci
    assert "\npython -m pytest " in ci


def test_latlab_is_a_command_of_python() -> None:
    done = subprocess.run([sys.executable, "-m", "latlab", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "latlab onboard" in done.stdout


def test_the_package_imports_nothing_until_it_is_asked() -> None:
    code = (
        "import sys, latlab, latlab.harness\n"
        "assert not {'torch', 'pandas', 'numpy', 'importlib.metadata'} & set(sys.modules), 'not light'\n"
        "assert latlab.Lab is latlab.harness.Lab\n"
        "print(latlab.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == version("latlab")
