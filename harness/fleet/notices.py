"""Notices: a command of the user's that runs when a device is lost or a campaign ends. It never harms the measuring.

What happened is in environment variables (`LATLAB_EVENT` and so on), so that no text of a device is ever read by a
shell. The commands run one after another in a thread of their own; one that fails, or hangs, is named at the end.
"""

from __future__ import annotations

import os
import queue
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from latlab.harness.errors import BadInputError
from latlab.harness.fleet.jobs import Incident, RunListener
from latlab.harness.store.store import Measurement
from latlab.harness.store.vocabulary import Status
from latlab.harness.text import printable

__all__ = ["Notifier"]

MOST_S = 30.0
"""Seconds that a notice may take; then it is killed."""
MOST_WAITING = 100
"""Notices that wait for their turn; further ones are left out and counted."""
MOST_CHARACTERS = 1000
"""Characters of a variable."""


class Notifier:
    """Runs a command for events of a run.

    Args:
        command: split into words as a shell would, but run without one.
        facts: what is the same for all events, such as the store's path, by the names of variables.

    Raises:
        BadInputError: if there is no such command.
    """

    def __init__(self, command: str, facts: Mapping[str, str]) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise BadInputError(f"--notify {command!r:.200}: {error}", _EXAMPLE) from error
        if not self._words or "\0" in command or shutil.which(self._words[0]) is None:
            raise BadInputError(f"--notify: there is no command {(self._words or [''])[0]!r:.200}", _EXAMPLE)
        self._facts = dict(facts)
        self._waiting: queue.Queue[dict[str, str] | None] = queue.Queue(MOST_WAITING)
        self._running: subprocess.Popen[bytes] | None = None
        self._left_out = 0
        self.failures: list[str] = []
        """What went wrong with notices, in sentences."""
        self.measured = self.failed = 0
        """Rows of this run with a latency, and without."""
        self._thread = threading.Thread(target=self._work, name="notices", daemon=True)
        self._thread.start()

    def listener(self, inner: RunListener) -> RunListener:
        """Return a listener that also notices what happens to devices."""

        def observe(event: Measurement | Incident) -> None:
            if isinstance(event, Incident):
                self.notice(
                    f"device_{event.kind}", DEVICE=event.device, TARGET=event.target, MESSAGE=event.message, AT=event.at
                )
            elif event.status in (Status.OK, Status.RUNNING):
                self.measured += 1
            else:
                self.failed += 1
            if inner.observe:
                inner.observe(event)

        return replace(inner, observe=observe)

    def notice(self, event: str, **facts: str) -> None:
        """Have the command run for an event, as soon as its turn comes.

        Args:
            facts: more about it, by the names of variables without `LATLAB_`.
        """
        counts = {"MEASURED": str(self.measured), "FAILED": str(self.failed)}
        known = {"EVENT": event, **self._facts, **counts, **facts}
        try:
            self._waiting.put_nowait({f"LATLAB_{name}": _safe(text) for name, text in known.items()})
        except queue.Full:
            self._left_out += 1

    def close(self, patience_s: float = 2 * MOST_S) -> list[str]:
        """Wait for the last notices, and return what went wrong, in sentences."""
        until = time.monotonic() + patience_s
        with suppress(queue.Full):
            self._waiting.put(None, timeout=patience_s)
        self._thread.join(max(0.0, until - time.monotonic()))
        running = self._running
        if self._thread.is_alive() and running is not None:
            running.kill()
            self.failures.append(f"--notify: {self._words[0]} was still running at the end")
        if self._left_out:
            self.failures.append(
                f"--notify: {self._left_out} notices were left out, because earlier ones took too long"
            )
        return self.failures

    def _work(self) -> None:
        while (variables := self._waiting.get()) is not None:
            try:
                self._run(variables)
            except (OSError, ValueError) as error:
                self._fail(variables, f"cannot be run: {error}")

    def _run(self, variables: dict[str, str]) -> None:
        nothing = subprocess.DEVNULL
        with subprocess.Popen(
            self._words,
            env={**os.environ, **variables},
            stdin=nothing,
            stdout=nothing,
            stderr=nothing,
            start_new_session=True,  # Ctrl+C is for latlab
        ) as running:
            self._running = running
            try:
                code = running.wait(MOST_S)
            except subprocess.TimeoutExpired:
                running.kill()
                self._fail(variables, f"has not ended within {MOST_S:g} s")
            else:
                if code:
                    self._fail(variables, f"has failed with exit code {code}")
            finally:
                self._running = None

    def _fail(self, variables: dict[str, str], how: str) -> None:
        if len(self.failures) < 5:
            self.failures.append(f"--notify: {self._words[0]} {how} ({variables['LATLAB_EVENT']})")


_EXAMPLE = "Name a program that is there, such as --notify ./tell-me.sh; what happened is in LATLAB_EVENT and so on."


def _safe(text: str) -> str:
    """Return a text as a variable may hold it: in one line, without control characters."""
    return printable(text[:MOST_CHARACTERS].replace("\0", "")).encode("utf-8", "replace").decode()
