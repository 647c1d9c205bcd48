"""The option --notify: the command that runs when a device is lost and when the campaign ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latlab.harness.text import plain

if TYPE_CHECKING:
    from latlab.harness.fleet.jobs import RunListener

__all__ = ["NotifyOption", "notifying"]

NotifyOption = Annotated[
    str | None,
    typer.Option(
        "--notify",
        metavar="COMMAND",
        help="Run this when a device is lost and when the campaign ends; LATLAB_EVENT and others say what happened.",
    ),
]


@contextmanager
def notifying(command: str | None, store: Path, name: str, inner: RunListener) -> Iterator[RunListener]:
    """Yield a listener that also notices events, if there is a command; at the end of the block the campaign ends.

    Args:
        command: of `--notify`.
        store: that is written.
        name: what is measured.
        inner: the listener that the run has otherwise.

    Raises:
        BadInputError: if there is no such command.
    """
    if command is None:
        yield inner
        return
    from latlab.harness.fleet.notices import Notifier

    notifier = Notifier(command, {"STORE": str(store.absolute()), "CAMPAIGN": name})
    outcome, message = "interrupted", ""
    try:
        yield notifier.listener(inner)
        outcome = "done"
    except Exception as error:
        outcome, message = "failed", str(error)
        raise
    finally:
        notifier.notice("campaign_ended", OUTCOME=outcome, MESSAGE=message)
        for sentence in notifier.close(patience_s=35.0 if outcome != "interrupted" else 5.0):
            print(plain(f"latlab: {sentence}"), file=sys.stderr)
