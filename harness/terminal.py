"""What people see in a terminal: progress on stderr, results on stdout."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from latlab.harness.doctor import Finding
    from latlab.harness.onboarding import Onboarding
    from latlab.harness.store import Measurement
    from latlab.search_spaces import SearchSpace

__all__ = [
    "progress",
    "show_findings",
    "show_measurements",
    "show_onboarding",
    "show_spaces",
    "show_store",
    "show_table",
    "working",
]

MAX_ROWS = 30
"""Rows of a table that are shown; the rest is counted."""
WIDTH_OF_FILES = 200
ROLES = {"train": "measured", "holdout": "hold-out", "reference": "reference", "listed": "measured"}


def _console() -> Console:
    """Standard output; into a file or a pipe, lines are not cut to a terminal's width."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH_OF_FILES, soft_wrap=True)


@contextlib.contextmanager
def progress(total: int, title: str, *, quiet: bool) -> Iterator[Callable[[Measurement], None]]:
    """A progress bar on stderr that takes each finished row. Nothing where `quiet` or stderr is no terminal."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda row: None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[last]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(escape(title), total=total, last="exporting the first networks")

        def observe(row: Measurement) -> None:
            what = _ms(row.latency_ms) if row.latency_ms is not None else row.status
            bar.update(task, advance=1, last=f"[dim]{ROLES.get(row.role, row.role)}[/dim] {what}")

        yield observe


@contextlib.contextmanager
def working(title: str, *, quiet: bool) -> Iterator[None]:
    """A spinner on stderr."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield
        return
    with console.status(title):
        yield


def _ms(value: float) -> str:
    """Three significant digits, without exponents."""
    digits = 3 if not value else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f} ms"


def show_onboarding(result: Onboarding) -> None:
    console = _console()
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f} %"

    table.add_row("target", result.target)
    failed = f", {result.failed} failed" if result.failed else ""
    table.add_row("measured", f"{result.measured} networks of {result.space}{failed}")
    worry = "[yellow], noisy: does something else use the device? See latlab doctor[/yellow]" if result.noisy else ""
    table.add_row("labels", f"median standard error {result.label_noise_percent:.1f} %{worry}")
    table.add_row(
        "expected error",
        f"{result.expected_error_percent:.1f} % over the space (the predictor's own estimate)",
    )
    if result.loo_spearman is not None and result.loo_mape_percent is not None:
        table.add_row(
            "leave-one-out", f"Spearman {result.loo_spearman:.3f}, mean error {result.loo_mape_percent:.1f} %"
        )
    if result.holdout_spearman is not None:
        table.add_row(
            "hold-out",
            f"Spearman [bold]{result.holdout_spearman:.3f}[/bold] (two measurements of it agree to "
            f"{result.holdout_retest_spearman:.3f}), mean error {percent(result.holdout_mape_percent)}, "
            f"within 10 %: {percent(result.holdout_within_10_percent)}, "
            f"inside the 90 % interval: {percent(result.holdout_coverage_90_percent)}",
        )
    table.add_row("this run", f"{result.wall_s:.0f} s, {100 * result.timing_share:.0f} % of it timing networks")
    if result.failed:
        table.add_row("failures", "their reasons are in the report, and in latlab show")
    table.add_row("latency table", escape(str(result.latency_table)))
    table.add_row("report", f"[bold]{escape(str(result.report))}[/bold]")
    console.print(table)


def show_measurements(rows: pd.DataFrame, store: Path, *, raw: bool) -> None:
    console = _console()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("architecture", overflow="fold")
    for name in ("latency", "std. error", "status"):
        table.add_column(name, justify="left" if name == "status" else "right", no_wrap=name != "status")
    for row in rows.head(MAX_ROWS).to_dict("records"):
        ok = row["status"] == "ok"
        table.add_row(
            escape(str(row["arch"])),
            _ms(row["latency_ms"]) if ok else "-",
            _ms(row["stderr_ms"]) if ok and pd.notna(row["stderr_ms"]) else "-",
            "ok" if ok else f"[red]{row['status']}[/red]: {escape(str(row['error']))}",
        )
        if raw:
            for number, samples in enumerate(row["passes"], 1):
                table.add_row(f"[dim]  pass {number}: {' '.join(f'{s / 1e6:.3f}' for s in samples)} ms[/dim]")
    console.print(table)
    if len(rows) > MAX_ROWS:
        console.print(f"... and {len(rows) - MAX_ROWS} more; all are in {escape(str(store))}", style="dim")
    failed = int((rows["status"] != "ok").sum())
    kept = " (kept; --new-session tries again)" if failed else ""
    console.print(f"{len(rows) - failed} measured, {failed} failed{kept}. All is in {escape(str(store))}.", style="dim")
    console.print(f"`latlab export --store {escape(str(store))} --out measured.csv` writes it to a file.", style="dim")


def show_table(frame: pd.DataFrame, title: str) -> None:
    """Any table of results; numbers with four significant digits."""
    console = _console()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title=escape(title), title_justify="left")
    for name in frame.columns:
        numeric = pd.api.types.is_float_dtype(frame[name])
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    for row in frame.head(MAX_ROWS).itertuples(index=False):
        table.add_row(*(_cell(value) for value in row))
    console.print(table)
    if len(frame) > MAX_ROWS:
        console.print(f"... and {len(frame) - MAX_ROWS} more; --json prints all", style="dim")


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return "-" if pd.isna(value) else f"{value:.4g}"
    return escape(str(value))


def show_spaces(spaces: Sequence[SearchSpace]) -> None:
    console = _console()
    for space in spaces:
        size = f"{space.size:,}" if space.size < 1e6 else f"{space.size:.2g}"
        console.print(f"[bold]{escape(space.name)}[/bold]  {escape(space.title)}")
        console.print(f"  {size} architectures; encodings: {', '.join(space.encodings)}", style="dim")
        console.print(f"  e.g. {space.references()[0].text}", style="dim", markup=False, highlight=False)


def show_store(store: Path, campaigns: pd.DataFrame, failures: pd.DataFrame) -> None:
    if campaigns.empty:
        _console().print(f"{escape(str(store))} is empty: nothing has been measured yet")
        return
    console = _console()
    for target, group in campaigns.groupby("target", sort=False):
        table = Table(
            box=None, padding=(0, 2, 0, 0), header_style="dim", title=escape(str(target)), title_justify="left"
        )
        for name in ("space", "selection", "policy", "seed", "session", "ok", "failed", "running", "last"):
            table.add_column(name, justify="right" if name in ("ok", "failed", "running", "session") else "left")
        for row in group.itertuples():
            last = str(row.last or "")[:16].replace("T", " ")
            cells = (row.space, row.selection, row.policy, row.seed, row.session, row.ok, row.failed, row.running, last)
            table.add_row(*(escape(str(cell)) for cell in cells))
        console.print(table)
    if len(failures):
        show_table(failures[["target", "arch", "status", "error"]], "Failures")


def show_findings(device: str, findings: Sequence[Finding]) -> None:
    console = _console()
    marks = {"ok": "[green]ok[/green]", "warning": "[yellow]warning[/yellow]", "failed": "[red]failed[/red]"}
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for finding in findings:
        table.add_row(marks[finding.state], finding.check, escape(finding.found))
        if finding.advice:
            table.add_row("", "", f"[dim]{escape(finding.advice)}[/dim]")
    console.print(f"[bold]{escape(device)}[/bold]")
    console.print(table)
