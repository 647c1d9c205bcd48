"""The console for all output, and tables on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from latlab.harness.text import plain

__all__ = ["console", "error_console", "show_table", "warn", "wrapped"]

MAX_ROWS = 30
"""The most rows of a table that are shown; the others are counted."""
WIDTH_OF_FILES = 10_000
"""Characters per line in a file or a pipe: no line is wrapped there."""


class Screen(Console):
    """A console that shows no text but as `plain` returns it, whatever draws it, and never breaks a word."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(plain(text), **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, but never break a word: a path, an architecture.

        On a terminal, lines end between words. A word that is wider than the screen has a line of its own, which the
        terminal joins again when it is copied. A table whose words do not fit side by side has a few lines for each
        row.
        """
        if len(objects) == 1 and isinstance(objects[0], Table):
            self._print_table(objects[0])
        elif len(objects) == 1 and isinstance(objects[0], str | Text) and self.is_terminal:
            self._print_text(objects[0], **options)
        else:
            super().print(*objects, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):  # also what was made a `Text` elsewhere
            yield segment if segment.control else Segment(plain(segment.text), segment.style)

    def _print_text(
        self,
        text: str | Text,
        *,
        end: str = "\n",
        style: str | None = None,
        soft_wrap: bool | None = None,
        **options: Any,
    ) -> None:
        """Print text in lines that end between words."""
        drawn = self.render_str(text, **options) if isinstance(text, str) else text
        lines = [line for one in drawn.split("\n", allow_blank=True) for line in wrapped(one, self.width)]
        for number, line in enumerate(lines, 1):
            last = number == len(lines)
            super().print(line, style=style, end=end if last else "\n", soft_wrap=True, highlight=False)

    def _print_table(self, table: Table) -> None:
        """Print a table whose columns are as wide as their longest words at least."""
        if table.title:
            self.print(table.title, style="italic", highlight=False)
            table.title = None
        ranges = [self._range(column, table.show_header) for column in table.columns]
        _, right, _, left = Padding.unpack(table.padding)
        room = self.width - (left + right) * len(ranges)
        if sum(least for least, _ in ranges) > room:
            self._print_rows(table)
            return
        if sum(most for _, most in ranges) > room:
            for column, width in zip(table.columns, _shared(ranges, room), strict=True):
                column.width = width
        super().print(table)

    def _range(self, column: Column, has_header: bool) -> tuple[int, int]:
        """Return the least width of a column, which is that of its longest word, and the width of its longest line."""
        cells = [*column.cells, *([column.header] if has_header else [])]
        texts = [self.render_str(cell).plain if isinstance(cell, str) else str(cell) for cell in cells]
        most = max((cell_len(line) for text in texts for line in text.splitlines()), default=0)
        least = most if column.no_wrap else max((cell_len(word) for text in texts for word in text.split()), default=0)
        return max(least, column.min_width or 0), max(most, column.min_width or 0)

    def _print_rows(self, table: Table) -> None:
        """Print each row of a table as a few lines: what the row is about, then the other cells with their names."""
        names_end = self._range(table.columns[0], has_header=False)[1]
        head = next((number for number, column in enumerate(table.columns) if column.justify == "left"), 0)
        for cells in zip(*(column.cells for column in table.columns), strict=True):
            texts = [self.render_str(cell) if isinstance(cell, str) else Text(str(cell)) for cell in cells]
            if not table.show_header:
                if table.columns[0].no_wrap:  # names, below which further lines do not begin
                    texts[0].pad_right(max(0, names_end - cell_len(texts[0].plain)))
                self.print(Text("  ").join(text for text in texts if text.plain.strip()))
                continue
            self.print(texts.pop(head))
            names = [column.header for number, column in enumerate(table.columns) if number != head]
            told = [
                Text(f"{name}: " if name else "", "dim") + text
                for name, text in zip(names, texts, strict=True)
                if text.plain.strip() not in ("", "-")
            ]
            if told:
                self.print(Text("  ") + Text(", ").join(told))


def wrapped(text: Text, width: int) -> list[Text]:
    """Return a line of text as lines that end between words. A word that is wider than `width` has a line of its own.

    Further lines begin below the first word, or below what follows a label: two blanks or more end one.
    """
    label = re.match(r"\s*(\S+( \S+)*\s{2,})?", text.plain)
    indent = cell_len(label[0]) if label is not None else 0
    if indent > width // 3:
        indent = cell_len(text.plain) - cell_len(text.plain.lstrip())
    cuts, column = [], 0
    for word in re.finditer(r"(\s*)(\S+)", text.plain):
        blanks, length = cell_len(word[1]), cell_len(word[2])
        if column + blanks + length > width and column and text.plain[: word.start(2)].strip():
            cuts.append(word.start(2))
            column = (indent if indent + length <= width else 0) + length
        else:
            column += blanks + length
    lines = text.divide(cuts)
    for number, line in enumerate(lines):
        line.rstrip()
        if number and indent + cell_len(line.plain) <= width:
            line.pad_left(indent)
    return list(lines)


def _shared(ranges: Sequence[tuple[int, int]], room: int) -> list[int]:
    """Return widths of columns that fill the room: each as much as it needs least, and its share of what is left."""
    widths = [least for least, _ in ranges]
    left = room - sum(widths)
    while left > 0:
        wanting = [number for number, (_, most) in enumerate(ranges) if widths[number] < most]
        for number in wanting[:left]:
            widths[number] += 1
            left -= 1
    return widths


def console() -> Console:
    """Return a console on stdout. In a file or a pipe, lines are not cut to a terminal's width."""
    screen = Screen()
    return screen if screen.is_terminal else _FileConsole(width=WIDTH_OF_FILES, soft_wrap=True)


def error_console() -> Console:
    """Return a console on stderr."""
    return Screen(stderr=True)


class _FileConsole(Screen):
    """A console that strips blanks at the ends of lines: they pad tables, which shows only in a file."""

    def print(self, *objects: Any, **options: Any) -> None:
        with self.capture() as captured:
            super().print(*objects, **options)
        self.file.write(re.sub(r"[ \t]+$", "", captured.get(), flags=re.MULTILINE))
        self.file.flush()


def warn(message: str) -> None:
    """Print a warning on stderr, also if the results are JSON."""
    error_console().print(f"[yellow]latlab: {escape(message)}[/yellow]", soft_wrap=True)


def show_table(frame: pd.DataFrame, title: str) -> None:
    """Print a table of results, with four significant digits."""
    screen = console()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title=escape(title), title_justify="left")
    for name in frame.columns:
        numeric = pd.api.types.is_float_dtype(frame[name])
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    for row in frame.head(MAX_ROWS).itertuples(index=False):
        table.add_row(*(_cell(value) for value in row))
    screen.print(table)
    if len(frame) > MAX_ROWS:
        screen.print(f"... and {len(frame) - MAX_ROWS} more; --json prints all", style="dim")


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return "-" if pd.isna(value) else f"{value:.4g}"
    return escape(str(value))
