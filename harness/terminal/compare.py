"""`latlab compare` on the screen: its progress, its verdicts, and the checks of a regression gate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from latlab.harness.compare.between_targets import TargetComparison
from latlab.harness.compare.gate import GateCheck, GateOutcome
from latlab.harness.compare.result import ComparisonResult
from latlab.harness.compare.run import ComparisonRun
from latlab.harness.compare.wording import advice, headline, pairs_to_tell, sentence
from latlab.harness.fleet.jobs import DeviceState, Incident
from latlab.harness.store.place import StorePath
from latlab.harness.store.store import Measurement
from latlab.harness.terminal.console import MAX_ROWS, console, error_console
from latlab.harness.terminal.progress import View, beating
from latlab.harness.text import correlation, fine_correlation, latency_unit, printable

__all__ = ["CompareView", "following", "show_checks", "show_results", "show_targets"]

BAR = 28
STYLES = {"faster": "green", "tie": "cyan", "undecided": "yellow"}
CHECK_STYLES = {
    GateOutcome.PASSED: "green",
    GateOutcome.SLOWER: "red",
    GateOutcome.UNDECIDED: "yellow",
    GateOutcome.FAILED: "red",
}


class CompareView(View):
    """A view of comparisons: a bar for each device in a terminal, else a line from time to time."""

    def __init__(self, screen: Console) -> None:
        super().__init__(screen)
        self.runs: Sequence[ComparisonRun] = ()

    def follow(self, runs: Sequence[ComparisonRun]) -> None:
        """Show these comparisons."""
        self.runs = runs

    def progress(self) -> Iterator[str]:
        for run in self.runs:
            state = self.devices.get(run.target.device)
            waiting = f", {state.waiting}" if state is not None and state.waiting else ""
            yield f"{_state(run)}{waiting}"

    def watch(self, devices: Mapping[str, DeviceState]) -> None:
        self.devices = devices


class _LiveCompareView(CompareView):
    def observe(self, event: Measurement | Incident) -> None:
        if isinstance(event, Incident):
            self._report(event)

    def __rich__(self) -> RenderableType:
        grid = Table.grid()
        if not self.runs:
            return Text("reading the networks", "dim")
        for run in self.runs:
            done = round(BAR * min(1.0, run.spent_s / run.question.budget_s))
            grid.add_row(Text().append("━" * done, "green").append("━" * (BAR - done), "dim"))
            state = self.devices.get(run.target.device)
            grid.add_row(Text(state.waiting if state is not None and state.waiting else _state(run), "dim"))
        return grid


@contextlib.contextmanager
def following(*, quiet: bool) -> Iterator[CompareView]:
    """Yield a view of the comparisons on stderr."""
    screen = error_console()
    if quiet or not screen.is_terminal:
        with beating(CompareView(screen)) as plain:
            yield plain
        return
    view = _LiveCompareView(screen)
    with Live(view, console=screen, refresh_per_second=4, transient=True):
        yield view


def _state(run: ComparisonRun) -> str:
    """Return the state of a comparison in one line."""
    result = run.result()
    line = f"{result.device}: {result.spent_s:.0f} of at most {run.question.budget_s:g} s, {result.blocks} blocks"
    if len(result.pairs) == 1:
        line += f", so far {sentence(result, result.pairs[0])[1]}"
    return line


def show_results(results: Sequence[ComparisonResult], store: StorePath) -> None:
    """Print for each device the networks in their order, and the verdicts."""
    screen = console()
    for result in results:
        simulated = " [yellow](simulated)[/yellow]" if result.simulated else ""
        screen.print(
            f"[bold]{escape(result.device)}[/bold]{simulated}  [dim]{headline(result)}[/dim]",
            highlight=False,
            soft_wrap=True,
        )
        if result.models:
            screen.print(_networks(result))
        for pair in pairs_to_tell(result):
            word, text = sentence(result, pair)
            screen.print(f"[{STYLES[word]}]{word}[/{STYLES[word]}]  {escape(text)}", highlight=False)
        for one in result.models:
            if one.error:
                screen.print(f"[red]{escape(one.status)}[/red]  {_plain(f'{one.name}: {one.error}')}", highlight=False)
        if advice(result):
            screen.print(advice(result), style="yellow", highlight=False)
    confidence = f"{100 * results[0].question.confidence:g} %" if results else ""
    screen.print(
        f"On each device all intervals hold together with {confidence}. "
        f"Every pass is in {escape(str(store))}; it makes no label.",
        style="dim",
        highlight=False,
    )


def _plain(text: str) -> str:
    """Return foreign text without markup and control characters: a file may have any name."""
    return escape(printable(text))


def _networks(result: ComparisonResult) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("network", overflow="fold")
    table.add_column("latency", justify="right", no_wrap=True)
    table.add_column("target", overflow="fold")
    order = result.order
    unit = latency_unit(one.latency_ms for one in result.models if one.latency_ms is not None)
    for place in [*order, *(place for place in range(len(result.models)) if place not in order)]:
        one = result.models[place]
        rank = str(order.index(place) + 1) if place in order else ""
        latency = unit.text(one.latency_ms) if one.latency_ms is not None else "-"
        table.add_row(rank, _plain(one.name), latency, _plain(one.target))
    return table


def show_checks(checks: Sequence[GateCheck]) -> None:
    """Print the checks of a regression gate."""
    screen = console()
    notes = dict.fromkeys(one.note for one in checks if one.note and one.percent is not None)
    for one in checks:
        style = CHECK_STYLES[one.outcome]
        screen.print(f"[{style}]{one.outcome}[/{style}]  {_plain(one.sentence)}", highlight=False)
    for note in notes:
        screen.print(_plain(note), style="dim", highlight=False)


def show_targets(found: TargetComparison) -> None:
    """Print how two targets agree, and the networks that change their rank."""
    screen = console()
    simulated = " [yellow](simulated)[/yellow]" if found.simulated else ""
    screen.print(
        f"[bold]{escape(found.second)}[/bold] against [bold]{escape(found.first)}[/bold]{simulated}", highlight=False
    )
    failed = f", {found.failed} without both labels" if found.failed else ""
    agreement, ratio = found.agreement, found.ratio
    ends = f"{correlation(agreement.low)} to {correlation(agreement.high)}"
    screen.print(f"[dim]networks[/dim]      {len(found.networks)} of {escape(found.space)}{failed}", highlight=False)
    screen.print(f"[dim]Spearman[/dim]      {fine_correlation(agreement.spearman)} ({ends})", highlight=False)
    screen.print(
        f"[dim]median ratio[/dim]  {ratio.ratio:.3g} ({ratio.low:.3g} to {ratio.high:.3g}), second over first",
        highlight=False,
    )
    changed = found.changed
    if changed.empty:
        screen.print("No network changes its rank beyond its error bars.")
        return
    screen.print(f"{len(changed)} change their rank beyond their error bars:", highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("network", overflow="fold")
    for name in ("rank", "latency", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    unit = latency_unit([*changed["first_ms"], *changed["second_ms"]])
    for _, row in changed.head(MAX_ROWS).iterrows():
        table.add_row(
            escape(str(row["arch"])),
            f"{row['first_rank']} → {row['second_rank']}",
            f"{unit.text(row['first_ms'])} → {unit.text(row['second_ms'])}",
            f"{row['ratio']:.3g}",
        )
    screen.print(table)
    if len(changed) > MAX_ROWS:
        screen.print(f"... and {len(changed) - MAX_ROWS} more; --json prints all", style="dim")
