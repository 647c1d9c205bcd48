"""Measures what campaigns lack, on all their devices at once, and reads the rows back."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latlab.harness.exporters import Artifact
from latlab.harness.fleet.jobs import Job, RunJobs, RunListener
from latlab.harness.measurement.measurer import Measurer
from latlab.harness.measurement.replication import Replication, Resolved
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.statistics.ranking import Resolve
from latlab.harness.store.store import Campaign, Measurement, Store
from latlab.harness.store.vocabulary import Role, Status

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Measurements", "measure_campaigns"]


@dataclass(frozen=True)
class Measurements:
    """What `measure` found: a table of rows, and what became of devices and questions."""

    rows: pd.DataFrame
    """One row per target and architecture, in the order asked for; columns as in `Store.table`."""
    errors: tuple[str, ...] = ()
    """Why devices failed on the way."""
    resolved: tuple[Resolved, ...] = ()
    """With `resolve`: how the question stands, one for each target."""


def measure_campaigns(
    store: Store,
    campaigns: Sequence[Campaign],
    archs: Sequence[str],
    role: Role,
    run_jobs: RunJobs,
    *,
    new_session: bool = False,
    raw: bool = False,
    resolve: Resolve | None = None,
    submit: Callable[[str], Future[Artifact]] | None = None,
    listener: RunListener = RunListener(),
) -> Measurements:
    """Measure what the latest sessions of these campaigns lack of `archs`.

    Args:
        campaigns: one for each target; they are measured side by side.
        archs: architectures, as the store writes them.
        run_jobs: does jobs on their devices.
        new_session: measure everything again, in a session of its own.
        raw: with a column `passes`: raw samples in ns, a list for each pass.
        resolve: then add passes where intervals overlap and the order matters.
        submit: gives the artifact of an architecture; None to export it as its campaign says.

    Raises:
        LatlabError: why a device failed, where no campaign has any row.
    """
    archs = list(dict.fromkeys(archs))
    sessions = [
        MeasurementSession(store, one, store.latest_session(one) + (1 if new_session else 0) or 1) for one in campaigns
    ]
    jobs, replications = [], []
    for session in sessions:
        missing = len(_missing(session.rows(), archs))
        replication = Replication(session, archs, resolve, listener.announce) if resolve else None
        replications += [replication] if replication else []
        if missing or (replication and not replication.is_over):
            work = _MissingRows(session, archs, role, submit, replication)
            jobs.append(Job(session.target, work, total=missing))
    errors = run_jobs(jobs, listener)
    rows = _rows(store, sessions, archs, raw)
    if errors and rows.empty:
        raise errors[0]
    return Measurements(rows, tuple(map(str, errors)), tuple(one.resolved() for one in replications))


def _rows(store: Store, sessions: Sequence[MeasurementSession], archs: Sequence[str], raw: bool) -> pd.DataFrame:
    import pandas as pd

    frames = []
    for session in sessions:
        table = store.table(target=session.campaign.target, space=session.campaign.space, raw=raw)
        table = table[(table["campaign"] == session.campaign.id) & (table["session"] == session.number)]
        there = set(table["arch"])
        frames.append(table.set_index("arch").loc[[arch for arch in archs if arch in there]].reset_index())
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


@dataclass(frozen=True)
class _MissingRows:
    """The work of a job: measure what a session lacks; done again after a lost link, it goes on where it was."""

    session: MeasurementSession
    archs: Sequence[str]
    role: Role
    submit: Callable[[str], Future[Artifact]] | None
    replication: Replication | None

    def __call__(self, measurer: Measurer, publish: Callable[[Measurement], None]) -> None:
        session = self.session
        todo = [(arch, str(self.role)) for arch in _missing(session.resume(), self.archs)]
        # So that neither size nor an earlier session's order is confounded with how the device warms up.
        order = f"{session.campaign.seed}/{session.number}"
        random.Random(order).shuffle(todo)
        session.add_facts(order_seed=order)
        for row in measurer.run(session, todo, self.submit):
            publish(row)
        if self.replication:
            self.replication.work(measurer, self.role, self.submit)


def _missing(rows: dict[str, Measurement], archs: Sequence[str]) -> list[str]:
    """Return the architectures that have no finished row yet."""
    running = (Status.RUNNING, Status.DEVICE_LOST)
    return [arch for arch in archs if arch not in rows or rows[arch].status in running]
