"""Progress of devices on stderr: a live table, a bar, or a line from time to time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
)
from rich.table import Table
from rich.text import Text

from latlab.harness.fleet.jobs import Incident, RunListener
from latlab.harness.store.vocabulary import Role
from latlab.harness.terminal.console import MAX_ROWS, error_console
from latlab.harness.text import latency_text, spoken_duration

if TYPE_CHECKING:
    from latlab.harness.fleet.jobs import DeviceState
    from latlab.harness.store.store import Measurement

__all__ = ["View", "beating", "watching", "working"]

V = TypeVar("V", bound="View")

HEARTBEAT_S = 30.0
"""Seconds between two lines of progress if there is no live display."""
BEAT_S = 1.0
"""Seconds between two looks at whether a line is due."""
ROLES: dict[str, str] = {
    Role.TRAIN: "measured",
    Role.HOLDOUT: "hold-out",
    Role.REFERENCE: "reference",
    Role.LISTED: "measured",
}
STYLES = {"lost": "yellow", "quarantined": "red", "failed": "red", "done": "green"}
GAP = 2
"""Characters between two columns of the table."""
NOTE_WIDTH = 20
"""The least characters for the last column, with a device's target or trouble."""
# Least widths, so that columns do not come and go when a device changes its state.
NEEDED = {"device": 6, "doing": 11, "networks": 8}
OPTIONAL = {"latency": 9, "a minute": 8, "temp.": 6}
"""Columns that are shown if there is room, the most important first."""


class View:
    """A view of devices at work: prints incidents at once, and the devices' progress every `HEARTBEAT_S`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.devices: Mapping[str, DeviceState] = {}
        self.failures = 0
        """The number of devices or jobs that were given up."""
        self._printed_at = time.monotonic()

    def watch(self, devices: Mapping[str, DeviceState]) -> None:
        """Show these devices. Their states change while they work."""
        self.devices = devices

    def observe(self, event: Measurement | Incident) -> None:
        """Take an event of a device: a measurement or an incident."""
        if isinstance(event, Incident):
            self._report(event)

    def _report(self, event: Incident) -> None:
        given_up = event.kind in ("quarantined", "failed")
        self.failures += given_up
        if given_up and sum(state.jobs for state in self.devices.values()) < 2:
            return  # the command itself ends with this error
        style = {"back": "green", "lost": "yellow"}.get(event.kind, "red")
        message = _first_line(event.message, event.device)
        state = self.devices.get(event.device)
        # A device that is given up is given up for all its targets; any other failure is that of one target.
        several = event.kind == "failed" and state is not None and state.jobs > 1
        where = event.target if several and event.target else event.device
        self._print(f"[{style}]{event.kind}[/{style}]  {escape(where)}: {escape(message)}")

    def beat(self) -> None:
        """Print the progress every `HEARTBEAT_S`, because without it a long run looks hung in a log."""
        if time.monotonic() - self._printed_at >= HEARTBEAT_S:
            self._printed_at = time.monotonic()
            for line in self.progress():
                self.say(line)

    def progress(self) -> Iterator[str]:
        """Yield a line for each busy device."""
        busy = [state for state in self.devices.values() if state.state in ("running", "lost")]
        for state in busy[:MAX_ROWS]:
            failed = f" ({state.failed} failed)" if state.failed else ""
            latency = state.last.latency_ms if state.last else None
            last = f"{latency_text(latency)} last, " if latency is not None else ""
            left = f", {_left(state)}" if _left(state) else ""
            yield f"{state.name}: {state.done}/{state.total}{failed}, {last}{state.waiting or state.doing}{left}"
        if len(busy) > MAX_ROWS:
            yield f"... and {len(busy) - MAX_ROWS} more devices at work"

    def listener(self, *, quiet: bool = False) -> RunListener:
        """Return what a run is to report here; `quiet` leaves out the sentences about what is done next."""
        return RunListener(self.observe, self.watch, None if quiet else self.say)

    def say(self, line: str) -> None:
        """Print a line."""
        self._print(escape(line))

    def stop(self) -> None:
        """End the display of devices, if there is one."""

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=not self._console.is_terminal, highlight=False)

    def __rich__(self) -> RenderableType:
        """Return a table with a row per device.

        It has as many columns as there is room for; only the last may be cut.
        """
        states = sorted(self.devices.values(), key=lambda state: state.state == "done")
        rows = [_cells(state) for state in states[:MAX_ROWS]]
        widths = {
            name: max([least, *(row[name].cell_len for row in rows)]) + GAP
            for name, least in (NEEDED | OPTIONAL).items()
        }
        left = self._console.width - sum(widths[name] for name in NEEDED)
        shown = list(NEEDED)
        for name in OPTIONAL:
            if widths[name] + (0 if name == "latency" else NOTE_WIDTH) > left:
                break
            left -= widths[name]
            shown.append(name)
        noted = left >= NOTE_WIDTH
        table = Table(box=None, padding=(0, GAP, 0, 0), header_style="dim", expand=noted)
        for name in shown:
            table.add_column(
                name,
                no_wrap=True,
                justify="left" if name in ("device", "doing") else "right",
                min_width=widths[name] - GAP,
            )
        if noted:
            table.add_column("", overflow="ellipsis", no_wrap=True, ratio=1)
        for row in rows:
            table.add_row(*(row[name] for name in shown), *([row["note"]] if noted else []))
        if len(states) > MAX_ROWS:
            table.add_row(f"... and {len(states) - MAX_ROWS} more", style="dim")
        return table


def _cells(state: DeviceState) -> dict[str, Text]:
    counts = Text(f"{state.done}/{state.total}")
    if state.failed:
        counts.append(f" ({state.failed} failed)", "red")
    latency = state.last.latency_ms if state.last else None
    rate, heat = state.per_minute, state.temperature_c
    target = str(state.target).partition("/")[2] if state.target else ""
    trouble = _first_line(state.trouble, state.name)
    return {
        "device": Text(state.name),
        "doing": Text(state.doing, STYLES.get(state.state, "")),
        "networks": counts,
        "latency": Text(latency_text(latency) if latency is not None else "-"),
        "a minute": Text(f"{rate:.3g}" if rate else "-"),
        "temp.": Text(f"{heat:.0f} °C" if heat is not None else "-"),
        "note": Text(trouble, "yellow") if trouble else Text(state.waiting or _left(state) or target, "dim"),
    }


def _first_line(message: str, device: str) -> str:
    return message.removeprefix(f"device {device}: ").split("\n")[0]


@contextlib.contextmanager
def watching(title: str, *, quiet: bool) -> Iterator[View]:
    """Yield a view of the devices on stderr.

    It is a live table, or a bar if there is one device. Without a terminal, or if `quiet`, it prints lines from time
    to time.
    """
    console = error_console()
    if not console.is_terminal or quiet:
        with beating(View(console)) as view:
            yield view
        return
    live = _LiveView(console, title)
    try:
        yield live
    finally:
        live.stop()


@contextlib.contextmanager
def beating(view: V) -> Iterator[V]:
    """Yield a view, and let it print its progress within the `with` block although no event may come for minutes."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_S):
            view.beat()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield view
    finally:
        ended.set()
        thread.join()


def _left(state: DeviceState) -> str:
    """Return how long a device will still take, in words; "" as long as nothing is known."""
    found = state.remaining
    if found is None:
        return ""
    least, most = (spoken_duration(seconds) for seconds in found)
    return (
        f"{most} left at most" if found.least_s < 1 else f"{least} left" if least == most else f"{least} to {most} left"
    )


class _Left(ProgressColumn):
    """How long one device will still take."""

    def __init__(self, state: DeviceState) -> None:
        super().__init__()
        self._state = state

    def render(self, _: Task) -> Text:
        return Text(_left(self._state), "cyan")


class _Last(ProgressColumn):
    """The last row of one device; while something takes long, what that is."""

    def __init__(self, state: DeviceState) -> None:
        super().__init__()
        self._state = state

    def render(self, task: Task) -> Text:
        state, last = self._state, task.fields["last"]
        if state.waiting or not last:  # before the first row, what the device does says more than nothing
            return Text(state.waiting or state.doing, "dim")
        return Text.from_markup(last)


class _LiveView(View):
    def __init__(self, console: Console, title: str) -> None:
        super().__init__(console)
        self._title = title
        self._live: Live | Progress | None = None

    def watch(self, devices: Mapping[str, DeviceState]) -> None:
        super().watch(devices)
        self.stop()  # the display of an earlier run
        if len(devices) > 1:
            self._live = Live(self, console=self._console, refresh_per_second=4, transient=True)
        else:
            (state,) = devices.values()
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                _Left(state),
                _Last(state),
            )
            self._live = Progress(*columns, console=self._console, transient=True)
            title = f"{self._title} on {state.name}"
            self._task = self._live.add_task(escape(title), total=state.total, last="")
        self._live.start()

    def observe(self, event: Measurement | Incident) -> None:
        if isinstance(event, Incident):
            self._report(event)
        elif isinstance(self._live, Progress):
            what = latency_text(event.latency_ms) if event.latency_ms is not None else event.status
            self._live.update(self._task, advance=1, last=f"[dim]{ROLES.get(event.role, event.role)}[/dim] {what}")

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()


@contextlib.contextmanager
def working(title: str, *, quiet: bool) -> Iterator[None]:
    """Show a spinner on stderr within the `with` block."""
    console = error_console()
    if quiet or not console.is_terminal:
        yield
        return
    with console.status(title):
        yield
