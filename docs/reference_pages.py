"""Writes the pages of the reference from the code itself: commands, the inventory, the store, and all modules.

`conf.py` calls `write` before Sphinx reads the pages; the folder `docs/reference` is not kept in git.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import typer
from rich.text import Text

__all__ = ["commands_page", "inventory_page", "modules", "store_page", "write"]

ROOT = Path(__file__).parents[1]
PACKAGES = ("harness", "agents", "predictors", "search_spaces")


def write(folder: Path) -> None:
    """Write all pages into a folder. Files that are right already are left, so that Sphinx need not read them again."""
    pages = {"commands": commands_page(), "inventory": inventory_page(), "store": store_page(), **_module_pages()}
    folder.mkdir(exist_ok=True)
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in folder.glob("*.md"):
        if path.stem not in pages:
            path.unlink()


# Commands


def commands_page() -> str:
    """Return the page of all commands, each with its arguments and options."""
    from latlab.harness.cli.main import app

    root = typer.main.get_command(app)
    parts = ["# Commands", _help(root.help), "Every command also has `--help`.", _options(root)]
    for name, command in _commands(root, "latlab"):
        words = " ".join(one for one in (name, _arguments(command), "[OPTIONS]") if one)
        parts += [f"## {name}", f"```text\n{words}\n```", _help(command.help)]
        parts.append(_options(command))
    return _page(parts)


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, with its words, in alphabetical order."""
    for name, command in sorted(group.commands.items()):
        words = f"{path} {name}"
        if hasattr(command, "commands"):
            if command.invoke_without_command:
                yield words, command
            yield from _commands(command, words)
        elif not command.hidden:
            yield words, command


def _help(text: str | None) -> str:
    """Return the help of a command; the commands that it gives as examples become a block."""
    parts: list[str] = []
    for line in Text.from_markup(text or "").plain.splitlines():
        words = line.strip()
        label, _, example = words.partition(": ")
        if example.startswith("latlab ") and len(label) < 20:
            parts += ["", f"{label}:", "", "```text", example, "```"]
        elif words.startswith("latlab ") and parts and parts[-1] == "```":
            parts[-1:] = [words, "```"]
        elif words.startswith("latlab "):
            parts += ["", "```text", words, "```"]
        elif words or parts[-1:] != ["```"]:
            parts += ["", _plain(words)] if parts[-1:] == ["```"] else [_plain(words)]
    return "\n".join(parts).strip()


def _arguments(command: Any) -> str:
    words = [(one.metavar or one.name).upper() for one in command.params if one.param_type_name == "argument"]
    return " ".join(f"[{one}]" for one in words)


def _options(command: Any) -> str:
    rows = []
    for one in command.params:
        if getattr(one, "hidden", False):
            continue
        about = _plain(getattr(one, "help", None) or "")
        if one.param_type_name == "argument":
            rows.append((f"`{(one.metavar or one.name).upper()}`", about))
            continue
        names = ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))
        shown = isinstance(one.default, (str, int, float)) and not isinstance(one.default, bool) and one.default != ""
        rows.append((names, _with_default(about, one.default) if shown else about))
    return _table(("argument or option", "meaning"), rows)


def _with_default(about: str, default: object) -> str:
    if "default" in about.lower():
        return about
    end = "" if not about or about.endswith(".") else "."
    return f"{about}{end} Default: `{default}`.".strip()


# The inventory


def inventory_page() -> str:
    """Return the page of the inventory: every kind of entry with its fields, from the models that check them."""
    from latlab.harness.inventory.inventory import schema

    found = schema()
    parts = [
        "# The inventory",
        "`inventory.yaml` has two sections, `devices` and `policies`: names, and for each the fields below. A device "
        "has those of its transport. `latlab init --schema` writes the same as JSON Schema, for editors.",
    ]
    for name, one in sorted(found["$defs"].items()):
        if "properties" in one:
            parts += [f"## {name}", _plain(str(one.get("description", ""))), _fields(one)]
    return _page(parts)


def _fields(schema: Mapping[str, Any]) -> str:
    rows = []
    for name, one in schema.get("properties", {}).items():
        about = _plain(str(one.get("description", "")))
        default = one.get("default")
        shown = "const" not in one and default not in (None, "", [], {})
        rows.append((f"`{name}`", _type(one), _with_default(about, default) if shown else about))
    return _table(("field", "type", "meaning"), rows)


def _type(one: Mapping[str, Any]) -> str:
    if "$ref" in one:
        return str(one["$ref"]).rsplit("/", 1)[-1]
    if "enum" in one:
        return ", ".join(f"`{value}`" for value in one["enum"])
    if "const" in one:
        return f"`{one['const']}`"
    for several in ("anyOf", "oneOf"):
        if several in one:
            return " or ".join(dict.fromkeys(_type(part) for part in one[several] if part.get("type") != "null"))
    if one.get("type") == "array":
        return f"list of {_type(one.get('items', {}))}"
    if one.get("type") == "object" and isinstance(one.get("additionalProperties"), dict):
        return f"map to {_type(one['additionalProperties'])}"
    return str(one.get("type", "anything"))


# The store


def store_page() -> str:
    """Return the page of the tables of a store, from the classes that they are made of."""
    from latlab.harness.store import schema

    parts = ["# The store", _plain(inspect.getdoc(schema) or "")]
    for table in sorted(schema.Base.metadata.tables.values(), key=lambda one: one.name):
        mapper = next(one for one in schema.Base.registry.mappers if one.local_table is table)
        about = _attribute_docs(schema, mapper.class_.__name__)
        rows = [(f"`{column.name}`", str(column.type), _plain(about.get(column.name, ""))) for column in table.columns]
        parts += [
            f"## {table.name}",
            _plain(inspect.getdoc(mapper.class_) or ""),
            _table(("column", "type", "meaning"), rows),
        ]
    return _page(parts)


def _attribute_docs(module: ModuleType, name: str) -> dict[str, str]:
    """Return the texts that stand below the attributes of a class."""
    tree = ast.parse(inspect.getsource(module))
    body = next(one.body for one in tree.body if isinstance(one, ast.ClassDef) and one.name == name)
    found = {}
    for attribute, text in pairwise(body):
        is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if isinstance(attribute, ast.AnnAssign) and isinstance(attribute.target, ast.Name) and is_text:
            found[attribute.target.id] = inspect.cleandoc(str(text.value.value))  # type: ignore[attr-defined]
    return found


# Modules


def modules() -> dict[str, list[str]]:
    """Return all modules of latlab that give something to others, by package."""
    found = defaultdict(list)
    for top in PACKAGES:
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            # harness/latlab is latlab itself: it leads back to all others.
            if parts[:2] == ("harness", "latlab") or path.name == "__init__.py" or "__all__" not in path.read_text():
                continue
            found[".".join(("latlab", *parts[:-1]))].append(".".join(("latlab", *parts)))
    return dict(found)


def _module_pages() -> dict[str, str]:
    pages = {}
    found = modules()
    for package, names in found.items():
        parts = [f"# {package}"]
        for name in names:
            parts += [f"## {name.rsplit('.', 1)[-1]}", f"```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n```"]
        pages[package] = _page(parts)
    listed = "\n".join(sorted(pages))
    pages["modules"] = _page(
        ["# Modules", "Everything that a module gives to others, package by package.", f"```{{toctree}}\n{listed}\n```"]
    )
    return pages


# Text


def as_restructured_text(lines: Sequence[str]) -> list[str]:
    """Return a docstring as Sphinx reads it: single quotes are code, indented formulas and lists of sources stay so.

    Our docstrings are plain text, in which `*`, `|` and a `_` at the end of a word mean nothing.
    """
    code = re.split(r"(`+[^`]+`+)", "\n".join(lines))
    # A plural "s" after a name in code has to be kept apart from it.
    ends = ["\\ " if after[:1].isalnum() else "" for after in (*code[1:], "")]
    quoted = (f"``{one.strip('`')}``{ends[place]}" if place % 2 else _escaped(one) for place, one in enumerate(code))
    plain = list(lines)
    found: list[str] = []
    formula: int | None = None
    sources: int | None = None
    previous = ""
    for place, line in enumerate("".join(quoted).split("\n")):
        indent, text = _indent(line), line.strip()
        if text and formula is not None and indent < formula:
            formula = None
        if text and sources is not None and indent <= sources:
            sources = None
        after_blank = place > 0 and not plain[place - 1].strip()
        if text and formula is None and sources is None and after_blank and indent > _indent(previous):
            formula = indent
            found += [" " * (indent - 4) + "::", ""]
        if formula is not None or text.startswith(">>>"):
            found.append(plain[place])
        elif text in ("Sources:", "Source:"):
            sources = indent
            found += [line, ""]
        elif sources is not None and text:
            found.append(" " * sources + ("- " if indent == sources + 4 else "  ") + text)
        else:
            found.append(re.sub(r"^(\s*)\\\*\s", r"\1- ", line))
        previous = line if text else previous
    return found


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _escaped(text: str) -> str:
    return re.sub(r"(_)(?=\W|$)", r"\\\1", re.sub(r"([*|])", r"\\\1", text))


def _plain(text: str) -> str:
    """Return help text without rich's markup, as Markdown: what looks like a tag or a table is quoted."""
    plain = Text.from_markup(text).plain if "[/" in text else text.replace("\\[", "[")
    plain = re.sub(r"\s*\n(?!\n)\s*", "\n", plain).strip()
    return re.sub(r"([<|*_$\[])", r"\\\1", re.sub(r"`([^`]*)`", lambda one: f"`{one[1]}`", plain))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(re.sub(r"\s*\n\s*", " ", cell) for cell in line) + " |" for line in lines)


def _page(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
