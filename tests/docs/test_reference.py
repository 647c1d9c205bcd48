"""The reference has everything that there is, and the pages name only what there is."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer

from latlab.harness.cli.main import app
from latlab.harness.inventory.inventory import schema
from latlab.harness.store.schema import Base

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_pages", ROOT / "docs" / "reference_pages.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules["reference_pages"] = found
    spec.loader.exec_module(found)
    return found


def _commands(group, words=("latlab",)):  # type: ignore[no-untyped-def]
    found = {words: group}
    for name, command in getattr(group, "commands", {}).items():
        found |= _commands(command, (*words, name))
    return found


COMMANDS = _commands(typer.main.get_command(app))


def test_every_command_and_option_is_in_the_reference(pages: ModuleType) -> None:
    page = pages.commands_page()
    for words, command in COMMANDS.items():
        if not hasattr(command, "commands") and not command.hidden:
            _, _, own = page.partition(f"\n## {' '.join(words)}\n")
            own = own.partition("\n## ")[0]
            options = [name for one in command.params if not getattr(one, "hidden", False) for name in one.opts]
            assert own, f"{words} is missing"
            for name in options:
                assert f"`{name}`" in own or not name.startswith("-"), f"{words} {name}"


def test_every_field_and_column_is_in_the_reference(pages: ModuleType) -> None:
    page = pages.inventory_page()
    for name, entry in schema()["$defs"].items():
        _, _, own = page.partition(f"\n## {name}\n")
        for field in entry.get("properties", {}):
            assert f"| `{field}` |" in own.partition("\n## ")[0], f"{name} {field}"
    page = pages.store_page()
    for table in Base.metadata.tables.values():
        _, _, own = page.partition(f"\n## {table.name}\n")
        for column in table.columns:
            assert f"| `{column.name}` |" in own.partition("\n## ")[0], f"{table.name} {column.name}"


def test_every_module_that_gives_something_is_in_the_reference(pages: ModuleType) -> None:
    """Sphinx takes a module's public names from its `__all__`, and a class's fields from the class."""
    written = "\n".join(pages._module_pages().values())
    for top in pages.PACKAGES:
        for path in (ROOT / top).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if path.name.startswith("__") or name.startswith("harness/latlab"):
                continue
            if any(_is_all(one) for one in ast.parse(path.read_text()).body):
                module = "latlab." + name.removesuffix(".py").replace("/", ".")
                assert f".. automodule:: {module}\n   :members:\n" in written, module


def _is_all(node: ast.stmt) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else []
    return any(isinstance(one, ast.Name) and one.id == "__all__" for one in targets)


def _written() -> list[tuple[str, str]]:
    """Return every command line of the pages, with the page's name."""
    found = []
    for path in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", path.read_text(), re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            found += [(path.name, line.strip()) for line in lines if line.strip().startswith("latlab ")]
        found += [(path.name, line) for line in re.findall(r"`(latlab [^`]+)`", path.read_text())]
    return found


@pytest.mark.parametrize(("page", "line"), _written())
def test_the_pages_name_commands_and_options_that_exist(page: str, line: str) -> None:
    words = shlex.split(line.replace("'...'", "ARCH").replace("...", "x"), comments=True)
    if any(words[1:2] == [one] for one in ("X", "x")) or words[1] in ("help", "COMMAND"):
        return
    known = ("latlab",)
    while len(words) > len(known) and (*known, words[len(known)]) in COMMANDS:
        known = (*known, words[len(known)])
    assert len(known) > 1 or words[1].startswith("-") or words[1] == "/", f"{page}: there is no command {words[1]}"
    options = {name for one in COMMANDS[known].params for name in (*one.opts, *one.secondary_opts)}
    options |= {"--help", "--store"}
    for word in words[len(known) :]:
        if word.startswith("--"):
            assert word.partition("=")[0] in options, f"{page}: {line}"


def test_links_between_pages_lead_somewhere() -> None:
    for path in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            there = path.parent / target
            assert there.exists() or target.startswith("reference/"), f"{path.name} -> {target}"
