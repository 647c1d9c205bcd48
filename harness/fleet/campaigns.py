"""Measuring campaigns: what their sessions lack is measured on all devices at once, and read back as a table."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latlab.harness.exporters import Artifact
from latlab.harness.fleet.failures import TargetFailure, all_failed, failures_of
from latlab.harness.fleet.jobs import Job, RunJobs, RunListener
from latlab.harness.measurement.disturbance import Disturbance, disturbances
from latlab.harness.measurement.measurer import Measurer
from latlab.harness.measurement.replication import Replication, Resolved
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.statistics.ranking import Resolve
from latlab.harness.store.store import Campaign, Measurement, Store
from latlab.harness.store.vocabulary import Role, Status

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Measurements", "measure_campaigns"]

OTHERS_S = 2.0
"""Seconds between two looks at what other controllers have still to finish."""


@dataclass(frozen=True)
class Measurements:
    """The result of `measure`: a table of rows, the errors of devices, and the answers to ranking questions."""

    rows: pd.DataFrame
    """One row per target and architecture, in the order of the request; columns as in `Store.table`."""
    failures: tuple[TargetFailure, ...] = ()
    """The targets that failed during the run, and why."""
    resolved: tuple[Resolved, ...] = ()
    """The answer to the ranking question `resolve`, one for each target; empty without one."""
    ran: bool = True
    """False if everything that was asked for was in the store already, so that nothing ran."""

    @property
    def disturbances(self) -> tuple[Disturbance, ...]:
        """The targets most of whose labels something else on the device has disturbed."""
        return disturbances(self.rows)

    @property
    def errors(self) -> tuple[str, ...]:
        """The failures as messages."""
        return tuple(map(str, self.failures))


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
    files: Mapping[str, Callable[[str], Future[Artifact]]] = {},
    listener: RunListener = RunListener(),
) -> Measurements:
    """Measure those of `archs` that the latest sessions of the campaigns lack, and return all of their rows.

    Args:
        campaigns: one for each target; they are measured side by side.
        archs: canonical strings of the architectures.
        role: the role of new rows.
        run_jobs: runs jobs on their devices.
        new_session: measure everything again, in a session of its own.
        raw: add a column `passes`: raw samples in ns, a list for each pass.
        resolve: a ranking question; passes are added where intervals overlap and the order matters to it.
        files: what returns the file of a network, by the campaign's id; networks of a campaign that is not among them
            are exported as the campaign says.
        listener: what is called during the run.

    Raises:
        LatlabError: why devices failed, if no campaign has any row.
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
            work = _MissingRows(session, archs, role, files.get(session.campaign.id), replication)
            policy = session.policy
            jobs.append(Job(session.target, work, missing, (policy.passes, policy.most_passes)))
    run_jobs(jobs, listener)
    rows = _rows(store, sessions, archs, raw)
    failures = failures_of(jobs)
    if failures and rows.empty:
        raise all_failed(jobs)
    return Measurements(rows, failures, tuple(one.resolved() for one in replications), bool(jobs))


def _rows(store: Store, sessions: Sequence[MeasurementSession], archs: Sequence[str], raw: bool) -> pd.DataFrame:
    import pandas as pd

    frames = []
    for session in sessions:
        table = store.table(campaign=session.campaign.id, raw=raw)
        table = table[table["session"] == session.number]
        there = set(table["arch"])
        frames.append(table.set_index("arch").loc[[arch for arch in archs if arch in there]].reset_index())
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


@dataclass(frozen=True)
class _MissingRows:
    """The work of a job: measure what a session lacks. After a lost link it runs again, and continues where it was."""

    session: MeasurementSession
    archs: Sequence[str]
    role: Role
    submit: Callable[[str], Future[Artifact]] | None
    replication: Replication | None

    def __call__(self, measurer: Measurer, publish: Callable[[Measurement], None]) -> None:
        session = self.session
        there = session.resume()
        todo = _missing(there, self.archs)
        # In random order, so that neither size nor an earlier session's order is confounded with the warming device.
        order = f"{session.campaign.seed}/{session.number}"
        random.Random(order).shuffle(todo)
        session.add_facts(order_seed=order, planned=len({*there, *self.archs}))
        while todo:
            for row in measurer.run(session, self._claimed(todo), self.submit):
                publish(row)
            todo = _missing(session.rows(), self.archs) if session.store.is_shared else []
            if todo:  # other controllers measure these: one of them may be killed
                measurer.wait(OTHERS_S)
        if self.replication:
            self.replication.work(measurer, self.role, self.submit)

    def _claimed(self, archs: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield the architectures that no other controller measures, each once an export of it can start."""
        for arch in archs:
            if self.session.claim(arch):
                yield arch, str(self.role)


def _missing(rows: dict[str, Measurement], archs: Sequence[str]) -> list[str]:
    """Return the architectures that have no finished row yet."""
    running = (Status.RUNNING, Status.DEVICE_LOST)
    return [arch for arch in archs if arch not in rows or rows[arch].status in running]
