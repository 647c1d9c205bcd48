"""The bench's comparison on the screen: predictors and budgets as rows, tasks as columns, published figures below."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from latlab.harness.bench.bisection import Bisection
from latlab.harness.bench.evaluate import Unit
from latlab.harness.bench.published import CEILINGS, PUBLISHED_SPEARMAN, SAMPLES
from latlab.harness.bench.results import Record
from latlab.harness.bench.tasks import Task
from latlab.harness.terminal.console import console, error_console

__all__ = ["progress", "show_comparison", "show_tasks"]

Row = tuple[str, str, int]
"""Predictor, selection and budget."""
GAP, LABEL, CELL = 2, 24, 12
"""Characters between two columns of a table, and the least widths of the first and of the other columns."""
MEAN = "mean"


def show_comparison(records: Sequence[Record], references: Sequence[Record] = ()) -> None:
    """Print Spearman per task, then the other figures of each predictor and budget, averaged over the tasks.

    Args:
        records: the bench's records.
        references: records of `reference_of` for the tasks, if they were computed.
    """
    if not records:
        return
    tasks = list(dict.fromkeys(record["task"] for record in records))
    rows = list(dict.fromkeys((record["predictor"], record["selection"], record["samples"]) for record in records))
    cells = {(*_row(record), record["task"]): record for record in records}
    first = records[0]
    screen = console()
    title = f"Spearman, protocol {first['protocol']}, {first['seeds']} seeds (mean ± standard deviation)"
    screen.print(title, style="italic", highlight=False)
    names = [*tasks, MEAN] if len(tasks) > 1 else tasks
    label = max(LABEL, *(len(f"{predictor} {selection}") for predictor, selection, _ in rows)) + 2 * GAP + 4
    per = max(1, (screen.width - label) // (max(CELL, *map(len, names)) + GAP))
    for start in range(0, len(names), per):
        screen.print(_ranks(names[start : start + per], tasks, rows, cells, references))
    screen.print(_others(records, rows))


def _ranks(
    names: Sequence[str],
    tasks: Sequence[str],
    rows: Sequence[Row],
    cells: Mapping[Any, Record],
    references: Sequence[Record],
) -> Table:
    """Return a table of the tasks (or `MEAN`) in `names`: computed rows, then published ones."""
    table = Table(box=None, padding=(0, GAP, 0, 0), header_style="dim")
    table.add_column("predictor", no_wrap=True, min_width=LABEL)
    table.add_column("n", justify="right", min_width=4)
    for name in names:
        table.add_column(escape(name), justify="right", no_wrap=True, min_width=CELL)
    for row in rows:
        own = {task: cells[*row, task] for task in tasks if (*row, task) in cells}
        rho = {task: record["spearman_mean"] for task, record in own.items()}
        texts = {task: f"{_rank(rho[task])}{_deviation(record['spearman_std'])}" for task, record in own.items()}
        texts[MEAN] = _mean([rho.get(task) for task in tasks])
        table.add_row(f"{escape(row[0])} [dim]{row[1]}[/dim]", str(row[2]), *(texts.get(name, "-") for name in names))
    below: dict[str, Mapping[str, float | None]] = {**PUBLISHED_SPEARMAN, "ceiling (published)": CEILINGS}
    below["flexible fit"] = {one["task"]: one["spearman_mean"] for one in references}
    below["noise ceiling"] = {one["task"]: one["noise_ceiling"] for one in references}
    for title, known in below.items():
        if any(known.get(task) is not None for task in tasks):
            texts = {task: _rank(value) for task, value in known.items()}
            texts[MEAN] = _mean([known.get(task) for task in tasks])
            budget = max((one["samples"] for one in references), default=0) if title == "flexible fit" else SAMPLES
            n = str(budget) if "ceiling" not in title else ""
            table.add_row(title, n, *(texts.get(name, "-") for name in names), style="dim")
    return table


def show_tasks(tasks: Sequence[Task], bisections: Sequence[Bisection]) -> None:
    """Print each task's sources and targets, and how they correlate on average."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("task", no_wrap=True)
    table.add_column("Spearman", justify="right")
    table.add_column("sources", overflow="fold")
    table.add_column("targets", overflow="fold")
    for task, one in zip(tasks, bisections, strict=True):
        table.add_row(
            escape(task.name),
            f"{one.across:.3f}",
            escape(", ".join(one.split.sources)),
            escape(", ".join(one.split.targets)),
        )
    console().print(table)


def _row(record: Record) -> Row:
    return record["predictor"], record["selection"], record["samples"]


def _others(records: Sequence[Record], rows: Sequence[Row]) -> Table:
    columns = {
        "Kendall": ("kendall_mean", ".3f"),
        "MAPE %": ("mape_percent", ".1f"),
        "within 10 %": ("within_10_percent", ".0f"),
        "90 % interval": ("coverage_90", ".0f"),
        "pre-train s": ("pretrain_s", ".3g"),
        "select s": ("select_s", ".3g"),
        "adapt s": ("adapt_s", ".3g"),
        "predict/s": ("predict_per_s", ",.0f"),
    }
    table = Table(
        box=None, padding=(0, 2, 0, 0), header_style="dim", title="Means over the tasks", title_justify="left"
    )
    table.add_column("predictor", no_wrap=True)
    table.add_column("n", justify="right")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        own = [record for record in records if _row(record) == row]
        cells = []
        for key, style in columns.values():
            values = [record[key] for record in own if record[key] is not None]
            cells.append(format(sum(values) / len(values), style) if values else "-")
        table.add_row(f"{escape(row[0])} [dim]{row[1]}[/dim]", str(row[2]), *cells)
    return table


def _rank(rho: float | None) -> str:
    return "-" if rho is None else f"{rho:.3f}"


def _deviation(std: float | None) -> str:
    return "" if std is None else f" [dim]±{std:.3f}[/dim]"


def _mean(values: Sequence[float | None]) -> str:
    """Return the mean over all tasks. With a task missing it would mislead, so the result is then "-"."""
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.3f}" if len(known) == len(values) else "-"


@contextlib.contextmanager
def progress(units: int, seeds: int, *, quiet: bool) -> Iterator[Callable[[Unit, Sequence[Record] | None], None]]:
    """Show a comparison's progress on stderr: a bar, or without a terminal a line per finished task and predictor."""
    screen = error_console()
    if not screen.is_terminal:
        count = 0

        def tell(unit: Unit, found: Sequence[Record] | None) -> None:
            nonlocal count
            if found is not None and not quiet:
                count += 1
                screen.print(f"{count}/{units} {unit.task.name} {unit.predictor.text}", highlight=False, markup=False)

        yield tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=28), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task("", total=units * seeds)

        def advance(unit: Unit, found: Sequence[Record] | None) -> None:
            what = escape(f"{unit.predictor.text} on {unit.task.name}")
            bar.update(task, description=what, advance=1 if found is None else 0)

        yield advance
