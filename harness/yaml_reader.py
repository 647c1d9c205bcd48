"""A strict reader of YAML that people write: its values, each one's line, and every mistake with its place.

PyYAML's own loading takes the last of two equal keys, reads `on` as a truth value and `12:30` as a number, expands
aliases without limit and fails on deep nesting. So only its parser's events are used, and the values are made here:
text, whole numbers, decimals, true, false and null as in YAML 1.2 (and in every editor), lists and mappings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml

from latlab.harness.errors import BadInputError

__all__ = ["Document", "read_document"]

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_VALUES = 200_000
"""The most values, with aliases expanded: a few lines of aliases could stand for more values than memory can hold."""
MERGE = "<<"
_LOADERS = (getattr(yaml, "CSafeLoader", yaml.SafeLoader), yaml.SafeLoader)
"""The quick one first. It looks ahead, and refuses brackets in brackets by itself, in words that PyYAML's release and
its libyaml choose; the other one has no such limit, so that the reader's own comes first."""
_INT = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    word: value for text, value in (("true", True), ("false", False)) for word in (text, text.title(), text.upper())
}

Location = tuple[str | int, ...]
"""The keys and list indices on the way to a value."""


@dataclass
class Document:
    """The content of a file, and the problems found in it."""

    path: Path
    value: Any = None
    lines: dict[Location, int] = field(default_factory=dict)
    """The line, counted from 1, of every key and list item."""
    _problems: list[tuple[int, str]] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """The problems in the file's order. Each names file, line and field."""
        return [f"{self.path}, line {line}: {what}" for line, what in sorted(self._problems, key=lambda one: one[0])]

    def line(self, location: Location) -> int:
        """Return the line of `location`, or of its deepest ancestor in the file."""
        for length in range(len(location), 0, -1):
            if location[:length] in self.lines:
                return self.lines[location[:length]]
        return 1

    def forget(self) -> None:
        """Empty the list of problems."""
        self._problems.clear()

    def complain(self, location: Location, problem: str, line: int | None = None) -> None:
        """Add a problem with the value at `location`."""
        named = ".".join(str(part) for part in location) or "the file"
        self._problems.append((line or self.line(location), f"{named}: {problem}"))


def read_document(path: Path, what: str = "the inventory") -> Document:
    """Return the content of a file.

    Mistakes that leave it readable, such as a key given twice, are among the document's `problems`.

    Args:
        path: the file.
        what: the file's name in errors.

    Raises:
        BadInputError: naming file and line, if it cannot be read at all.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise BadInputError(f"cannot read {what} {path}: {reason}") from error
    if len(content) > MAX_BYTES:
        raise BadInputError(f"cannot read {what} {path}: it has more than {MAX_BYTES:,} bytes")
    document = Document(path)
    try:
        document.value = _read(document, text)
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1 if isinstance(error.position, int) else 1
        raise BadInputError(f"{path}, line {line}: there is a character that no text file should have") from error
    except yaml.MarkedYAMLError as error:
        raise BadInputError(_explain(path, text, error)) from error
    except yaml.YAMLError as error:
        raise BadInputError(f"{path}: not valid YAML: {error}") from error
    return document


def _read(document: Document, text: str) -> Any:
    quick, unlimited = _LOADERS
    try:
        return _Reader(document, text, quick).read()
    except yaml.MarkedYAMLError:
        if text.count("[") + text.count("{") > MAX_DEPTH:
            with suppress(yaml.YAMLError):  # what the quick one found comes first
                _Reader(Document(document.path), text, unlimited).read()
        raise


def _explain(path: Path, text: str, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    lines = text.split("\n")
    around = lines[line - 1] if line <= len(lines) else ""
    if "\t" in around[: len(around) - len(around.lstrip())]:
        return f"{path}, line {line}: there is a tab; YAML is indented with spaces"
    problem = error.problem or "not valid YAML"
    began = error.context_mark
    context = f" ({error.context}, which began in line {began.line + 1})" if error.context and began else ""
    return f"{path}, line {line}: {problem}{context}"


class _Value(NamedTuple):
    value: Any
    size: int
    """The number of values in it, itself included."""
    depth: int


class _Reader:
    def __init__(self, document: Document, text: str, loader: Any) -> None:
        self._document = document
        self._events: Iterator[yaml.Event] = iter(yaml.parse(text, Loader=loader))
        self._anchors: dict[str, _Value] = {}
        self._size = 0

    def read(self) -> Any:
        value, documents = None, 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._stop(event, "a second document begins; there must be one")
                value = self._node(next(self._events), ()).value
        return value

    def _node(self, event: yaml.Event, location: Location) -> _Value:
        if len(location) > MAX_DEPTH:
            self._stop(event, f"nested more than {MAX_DEPTH} deep")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                self._stop(event, f"*{event.anchor} stands for nothing before it")
            found = self._anchors[event.anchor]
            if len(location) + found.depth > MAX_DEPTH:
                self._stop(event, f"nested more than {MAX_DEPTH} deep")
            self._count(event, found.size)
            return found
        tag = getattr(event, "tag", None)
        if tag is not None and not (isinstance(event, yaml.ScalarEvent) and tag == "!" and event.style):
            self._stop(
                event, f"the tag {tag.replace('tag:yaml.org,2002:', '!!')} is not allowed: only plain values are"
            )
        self._count(event, 1)
        if isinstance(event, yaml.MappingStartEvent):
            made = self._mapping(location)
        elif isinstance(event, yaml.SequenceStartEvent):
            made = self._sequence(location)
        else:
            assert isinstance(event, yaml.ScalarEvent)
            made = _Value(event.value if event.style else _plain(event.value), 1, 0)
        if event.anchor is not None:  # registered only now, so that a value cannot contain itself
            self._anchors[event.anchor] = made
        return made

    def _sequence(self, location: Location) -> _Value:
        values: list[Any] = []
        size, depth = 1, 0
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            here = (*location, len(values))
            self._document.lines[here] = _line(event)
            one = self._node(event, here)
            values.append(one.value)
            size, depth = size + one.size, max(depth, one.depth + 1)
        return _Value(values, size, depth)

    def _mapping(self, location: Location) -> _Value:
        values: dict[str, Any] = {}
        merged: list[Any] = []
        size, depth = 1, 0
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, location)
            here, line = (*location, key), _line(event)
            is_merge = key == MERGE and not getattr(event, "style", None)
            if key in values:
                # The first one's line stays, and the second one's values are read and dropped.
                first = self._document.line(here)
                self._document.complain(here, f"it is given twice, in lines {first} and {line}: remove one")
                here = (*location, key, -1)
            self._document.lines[here] = line
            one = self._node(next(self._events), here)
            size, depth = size + one.size + 1, max(depth, one.depth + 1)
            if is_merge:
                merged += one.value if isinstance(one.value, list) else [one.value]
            else:
                values.setdefault(key, one.value)
        for other in merged:
            if isinstance(other, dict):
                values = {**other, **values}
            else:
                self._document.complain((*location, MERGE), "it takes the alias of a mapping, for example `<<: *usual`")
        return _Value(values, size, depth)

    def _key(self, event: yaml.Event, location: Location) -> str:
        if not isinstance(event, yaml.ScalarEvent) or event.tag not in (None, "!"):
            self._stop(event, "a list, a mapping, an alias or a tag cannot be a name")
        self._count(event, 1)
        if not event.style and not isinstance(_plain(event.value), str):
            what = f"{event.value} is none: put it in quotes" if event.value else "there is none"
            self._document.complain((*location, event.value), f"a name is text, and {what}", _line(event))
        if event.anchor is not None:
            self._anchors[event.anchor] = _Value(event.value, 1, 0)
        return str(event.value)

    def _count(self, event: yaml.Event, size: int) -> None:
        self._size += size
        if self._size > MAX_VALUES:
            self._stop(event, f"more than {MAX_VALUES:,} values, counting what aliases stand for")

    def _stop(self, event: yaml.Event, problem: str) -> NoReturn:
        raise BadInputError(f"{self._document.path}, line {_line(event)}: {problem}")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _plain(text: str) -> Any:
    """Return the value that unquoted text stands for."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else text
    return text
