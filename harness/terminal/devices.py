"""Devices in a terminal: their state, the doctor's findings, and what was set up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from latlab.harness.devices.doctor import Examination, Finding
from latlab.harness.devices.status import Overview
from latlab.harness.provisioning.setup import SetUp
from latlab.harness.store.place import ServerPlace, StorePath
from latlab.harness.terminal.console import console, error_console

__all__ = ["examining", "setting_up", "show_controller", "show_examination", "show_overview", "show_set_up"]

MARKS = {"ok": "green", "warning": "yellow", "failed": "bold red"}
STATES = {"ready": "green", "in use": "cyan", "not asked": "dim", "not set up": "yellow", "partly ready": "yellow"}
"""Colours of the states; all others are red."""
WIDE = 110
"""The least width of a terminal, in characters, that shows devices as rows of a table."""
MAX_TARGETS = 3


@contextlib.contextmanager
def examining(names: Sequence[str]) -> Iterator[Callable[[Examination], None]]:
    """Yield a function that prints an examination. On stderr a spinner names the devices that are not examined yet."""
    screen = error_console()
    if not screen.is_terminal:
        yield show_examination
        return
    left = list(names)

    def waiting() -> str:
        return escape(f"examining {', '.join(left[:4])}{f' and {len(left) - 4} more' if len(left) > 4 else ''}")

    with screen.status(waiting()) as status:

        def show(examination: Examination) -> None:
            status.stop()  # else the spinner would be drawn into the lines
            show_examination(examination)
            left.remove(examination.device)
            if left:
                status.update(waiting())
                status.start()

        yield show


def show_controller(findings: Sequence[Finding]) -> None:
    """Print the doctor's findings about this machine."""
    screen = console()
    screen.print("[bold]latlab[/bold] on this machine")
    screen.print(_lines(findings))


def show_examination(examination: Examination) -> None:
    """Print the doctor's findings about a device, and the verdict."""
    screen = console()
    where = _where(examination.config.transport, examination.config.address)
    screen.print(f"\n[bold]{escape(examination.device)}[/bold]  [dim]{where}[/dim]")
    screen.print(_lines(examination.findings))
    screen.print(f"  {_verdict(examination)} [dim]({examination.seconds:.0f} s)[/dim]")


def _verdict(examination: Examination) -> str:
    states = [finding.state for finding in examination.findings]
    counts = [f"{states.count(state)} {word}" for state, word in (("failed", "failed"), ("warning", "to look at"))
              if state in states]  # fmt: skip
    verdict = {"ok": "fit to measure on", "warning": "usable", "failed": "not fit to measure on"}[examination.state]
    return f"[{MARKS[examination.state]}]{verdict}[/]{': ' if counts else ''}{', '.join(counts)}"


def _lines(findings: Sequence[Finding]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(max_width=26, overflow="fold")
    table.add_column(overflow="fold")
    for finding in findings:
        told = Text(finding.found)
        if finding.advice:
            told.append(f"\n-> {finding.advice}" if finding.found else f"-> {finding.advice}", style="italic")
        table.add_row(f"  [{MARKS[finding.state]}]{finding.state}[/]", escape(finding.check), told)
    return table


@contextlib.contextmanager
def setting_up(device: str, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows the name of the current step next to a spinner on stderr."""
    screen = error_console()
    if quiet or not screen.is_terminal:
        yield lambda _: None
        return
    with screen.status(escape(device)) as status:
        yield lambda step: status.update(escape(f"{device}: {step}"))


def show_set_up(done: SetUp) -> None:
    """Print which packages were installed, and whether each runtime works."""
    screen = console()
    screen.print(f"[bold]{escape(done.device)}[/bold]  [dim]{escape(str(done.platform))}[/dim]")
    packages = ", ".join(f"{wheel.name} {wheel.version}" for wheel in done.wheels)
    brought = f"{done.brought_bytes / 1e6:.0f} MB sent" if done.brought_bytes else "all of them were on the device"
    lines = [Finding("packages", "ok", f"{packages} ({brought})")]
    lines += [Finding(f"runtime {name}", "warning", why) for name, why in done.unavailable.items()]
    screen.print(_lines([*lines, *done.findings]))
    verdict = "set up" if done.ok else "not usable yet"
    screen.print(
        f"  [{MARKS['ok' if done.ok else 'failed']}]{verdict}[/] [dim]({sum(done.seconds.values()):.0f} s)[/dim]"
    )


def show_overview(devices: Sequence[Overview], inventory: Path, store: StorePath) -> None:
    """Print each device's state and measurements: a table on a wide screen, else a block per device."""
    screen = console()
    if screen.width >= WIDE:
        screen.print(_table(devices))
    else:
        for one in devices:
            _card(screen, one)
    for one in devices:
        if one.last_incident and screen.width >= WIDE:
            screen.print(f"[bold]{escape(one.device)}[/bold]: {escape(_incident(one))}", style="dim")
    facts = [f"devices of {inventory}" if inventory.exists() else f"there is no {inventory}: `latlab init` writes one"]
    facts.append(
        f"measurements of {store}"
        if isinstance(store, ServerPlace) or store.exists()
        else f"nothing was measured yet ({store})"
    )
    if all(one.state == "not asked" for one in devices):
        facts.append("no device was contacted")
    screen.print(escape("; ".join(facts)), style="dim")


def _table(devices: Sequence[Overview]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("device", overflow="fold")
    table.add_column("where", overflow="fold", ratio=2)
    table.add_column("state", overflow="fold", ratio=3)
    table.add_column("targets", overflow="fold", ratio=2)
    table.add_column("measured", justify="right")
    table.add_column("last", no_wrap=True)
    for one in devices:
        table.add_row(
            f"[bold]{escape(one.device)}[/bold]",
            _where(one.transport, one.address),
            _state(one),
            escape(_targets(one)),
            escape(_measured(one)),
            _ago(one.last_measured),
        )
    return table


def _card(screen: Console, one: Overview) -> None:
    screen.print(f"[bold]{escape(one.device)}[/bold]  [dim]{_where(one.transport, one.address)}[/dim]")
    rows = [
        ("state", _state(one)),
        ("targets", escape(_targets(one))),
        ("measured", escape(f"{_measured(one)}{f', last {_ago(one.last_measured)}' if one.last_measured else ''}")),
        ("incident", escape(_incident(one))),
    ]
    table = Table(box=None, padding=(0, 2, 0, 2), show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value:
            table.add_row(f"  {name}", value)
    screen.print(table)


def _where(transport: str, address: str) -> str:
    return escape(address if transport == "local" else f"{transport} {address}".strip())


def _state(one: Overview) -> str:
    detail = f": {escape(one.detail)}" if one.detail else ""
    return f"[{STATES.get(one.state, 'bold red')}]{one.state}[/]{detail}"


def _targets(one: Overview) -> str:
    """Return short names of the targets; fp32, one thread, the CPU and batch size 1 are left out."""
    shown = []
    for target in one.targets[:MAX_TARGETS]:
        runtime, *settings = target.split("/")
        usual = ("cpu", "fp32", "t1", "b1")
        shown.append(" ".join([runtime, *(word for word in settings if word not in usual)]))
    more = len(one.targets) - MAX_TARGETS
    return ", ".join([*shown, *([f"{more} more"] if more > 0 else [])])


def _measured(one: Overview) -> str:
    return f"{one.measured}{f' ({one.failed} failed)' if one.failed else ''}"


def _incident(one: Overview) -> str:
    if one.last_incident is None:
        return ""
    message = one.last_incident["message"].partition("\n")[0].removeprefix(f"device {one.device}: ")
    return f"{one.last_incident['kind']} {_ago(one.last_incident['at'])}: {message}"


def _ago(moment: str | None) -> str:
    """Return roughly how long ago it was."""
    if moment is None:
        return ""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now"
