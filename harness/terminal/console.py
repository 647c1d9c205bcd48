"""The console for all output, and tables on it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pandas as pd
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from latlab.harness.text import plain

__all__ = ["console", "error_console", "show_table", "warn"]

MAX_ROWS = 30
"""The most rows of a table that are shown; the others are counted."""
WIDTH_OF_FILES = 10_000
"""Characters per line in a file or a pipe: no line is wrapped there."""


class Screen(Console):
    """A console that shows no text but as `plain` returns it, whatever draws it."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(plain(text), **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, but never break a word: a path, an architecture.

        A line with a word that is wider than the screen is left to the terminal, which joins it again when it is
        copied. A table whose words do not fit side by side becomes a block of lines for each row.
        """
        if len(objects) == 1 and isinstance(objects[0], Table):
            wide = self.options.update(width=WIDTH_OF_FILES)
            if Measurement.get(self, wide, objects[0]).minimum > self.width:
                self._print_rows(objects[0])
                return
        texts = [one for one in objects if isinstance(one, str)]
        if len(texts) == len(objects) and any(len(word) > self.width for one in texts for word in one.split()):
            options.setdefault("soft_wrap", True)
        super().print(*objects, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):  # also what was made a `Text` elsewhere
            yield segment if segment.control else Segment(plain(segment.text), segment.style)

    def _print_rows(self, table: Table) -> None:
        """Print the rows of a table below each other, the cells with their columns' names."""
        if table.title:
            self.print(table.title, style="italic")
        for cells in zip(*(column.cells for column in table.columns), strict=True):
            for column, cell in zip(table.columns, cells, strict=True):
                text = self.render_str(cell) if isinstance(cell, str) else cell
                if isinstance(text, Text) and not text.plain:
                    continue
                if table.show_header and column.header:
                    super().print(f"{column.header}:", style="dim", end=" ", soft_wrap=True, highlight=False)
                super().print(text, soft_wrap=True, highlight=False)


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
