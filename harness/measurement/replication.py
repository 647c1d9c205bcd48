"""Rank-directed replication: further passes, round by round, for the networks of a session whose order is in doubt."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any

from latlab.harness.exporters import Artifact
from latlab.harness.measurement.measurer import Measurer
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.statistics.ranking import Comparison, RankedNetwork, Resolve, State, compare, next_round, uniform_s
from latlab.harness.store.store import Measurement
from latlab.harness.store.vocabulary import Status
from latlab.harness.telemetry.recorded_pass import PassKind, RecordedPass

__all__ = ["Replication", "Resolved"]

SAME_S = 1e-6
"""Two sums over the same samples differ by at most so many seconds."""
FOREGONE = 0.9999
"""Probability from which a decided comparison is obvious, and left out of the JSON."""


@dataclass(frozen=True)
class Resolved:
    """The answer to a ranking question on one target, and what it cost."""

    target: str
    resolve: Resolve
    labels: list[RankedNetwork]
    """Labels of the networks that were compared, one for each graph, fastest first."""
    comparisons: list[Comparison]
    passes: int
    """Number of passes that this run has added."""
    repeated: int
    """Number of networks that got further passes."""
    timed_s: float
    """Seconds of timing that the further passes took, those included that had to be taken again."""
    most_s: float
    """Seconds that the further passes were allowed to take."""
    uniform_s: float
    """Seconds that the same number of further passes for every network would have taken to settle as much."""
    exhausted: str
    """Why some comparisons stay open: `seconds` or `passes` are used up; empty if none is open."""

    def count(self, state: State) -> int:
        """Return the number of comparisons in a state."""
        return sum(one.state == state for one in self.comparisons)

    @property
    def expected_wrong(self) -> float:
        """Expected number of decided comparisons whose order is wrong, by the errors of the labels."""
        return sum(1 - one.probability for one in self.comparisons if one.state == "decided")

    def to_json(self) -> dict[str, Any]:
        """Return the fields, with every network. Comparisons with an obvious result (`FOREGONE`) are left out, unless
        they are among the fastest networks that the question is about.
        """
        limit = self.resolve.under_ms is not None
        decided = [one for one in self.comparisons if one.state == "decided"]
        shown = [
            asdict(one)
            for place, one in enumerate(self.comparisons)
            if place < (self.resolve.top or 0) or one.state != "decided" or one.probability < FOREGONE
        ]
        return {
            "target": self.target,
            "question": self.resolve.question,
            "under_ms": self.resolve.under_ms,
            "top": self.resolve.top,
            "ties_percent": self.resolve.ties_percent,
            "decided": len(decided),
            "below": sum(one.slower is None for one in decided) if limit else None,
            "above": sum(one.faster is None for one in decided) if limit else None,
            "ties": self.count("tie"),
            "undecided": self.count("open"),
            "expected_wrong": round(self.expected_wrong, 4),
            "passes": self.passes,
            "repeated": self.repeated,
            "timed_s": round(self.timed_s, 6),
            "most_s": round(self.most_s, 6),
            "uniform_s": round(self.uniform_s, 6),
            "exhausted": self.exhausted or None,
            "networks": [
                {"arch": one.name, "latency_ms": one.latency_ms, "stderr_ms": one.stderr_ms, "passes": one.passes}
                for one in self.labels
            ],
            "comparisons": shown,
        }


class Replication:
    """The rounds of further passes for one session. Its work may run again from the start: it continues from the store.

    Args:
        session: the measurement session whose networks get further passes.
        archs: the networks that the question is about.
        resolve: the ranking question.
        announce: called with a sentence about each round before it begins.
    """

    def __init__(
        self,
        session: MeasurementSession,
        archs: Sequence[str],
        resolve: Resolve,
        announce: Callable[[str], None] | None = None,
    ) -> None:
        self._session, self._campaign = session, session.campaign
        self._archs, self._resolve, self._announce = archs, resolve, announce
        self._rng = random.Random(f"{self._campaign.seed}/{session.number}/{self._campaign.id}/resolve")
        self._labels: dict[str, RankedNetwork] = {}
        self._before: dict[str, RankedNetwork] = {}
        """The labels before the first round."""
        self._refusing: set[str] = set()
        """Networks that got no pass in a round that wanted one, e.g. because they fail now."""
        self._rounds = 0
        self._spent_s = 0.0

    @property
    def is_over(self) -> bool:
        """True if, by what the store holds, no further pass is needed."""
        self._read_store()
        return not self._next_passes() and not self._unfinished()

    def work(self, measurer: Measurer, role: str, submit: Callable[[str], Future[Artifact]] | None = None) -> None:
        """Do rounds until no comparison is open, or the seconds or passes are used up.

        Args:
            measurer: what measures on the device.
            role: the role of the networks' rows.
            submit: starts the export of an architecture; None to export it as its campaign says.

        Raises:
            DeviceLostError, DeviceFaultError, BadInputError: as `Measurer.run`.
        """
        self._read_store()
        self._run(measurer, self._unfinished(), role, submit)
        while wanted := self._next_passes():
            self._rounds += 1
            self._announce_round(wanted)
            had = {name: self._labels[name].passes for name in wanted}
            self._run(measurer, wanted, role, submit)
            self._refusing |= {
                name for name in wanted if name in self._labels and self._labels[name].passes == had[name]
            }

    def resolved(self) -> Resolved:
        """Return the answer by what the store holds now."""
        self._read_store()
        labels = list(self._labels.values())
        found = compare(labels, self._resolve)
        more = {name: label.passes - self._before[name].passes for name, label in self._labels.items()}
        exhausted = ""
        if any(one.state == "open" for one in found):
            exhausted = "seconds" if next_round(labels, self._resolve, float("inf"), self._refusing) else "passes"
        return Resolved(
            target=self._campaign.target,
            resolve=self._resolve,
            labels=sorted(labels, key=lambda label: label.latency_ms),
            comparisons=found,
            passes=sum(more.values()),
            repeated=sum(count > 0 for count in more.values()),
            timed_s=self._spent_s,
            most_s=self._most_s,
            uniform_s=uniform_s(labels, {name: label.passes for name, label in self._before.items()}, self._resolve),
            exhausted=exhausted,
        )

    def _next_passes(self) -> dict[str, int]:
        return next_round(list(self._labels.values()), self._resolve, self._most_s - self._spent_s, self._refusing)

    @property
    def _most_s(self) -> float:
        if self._resolve.most_s is not None:
            return self._resolve.most_s
        return sum(label.passes * label.pass_s for label in self._before.values())

    def _run(
        self,
        measurer: Measurer,
        wanted: Mapping[str, int],
        role: str,
        submit: Callable[[str], Future[Artifact]] | None,
    ) -> None:
        """Time networks, side by side, until each has its wanted total number of passes."""
        before_s = measurer.timed_s
        together = sorted(wanted)
        self._rng.shuffle(together)
        try:
            archs = [(name, role) for name in together]
            for row in measurer.run(self._session, archs, submit, passes=wanted):
                self._copy_result(row)
        finally:
            self._spent_s += measurer.timed_s - before_s
        self._read_store()

    def _copy_result(self, row: Measurement) -> None:
        """Copy the result of a finished row to the rows of networks with the same graph."""
        for other in self._copies.get(row.id, ()) if row.status == Status.OK else ():
            self._session.store.copy_result(other, row.id)

    def _read_store(self) -> None:
        """Read labels and passes of the networks, one for each graph: the one that was timed stands for the rest."""
        rows = self._session.rows()
        by_id = {row.id: row for row in rows.values()}
        self._copies: dict[int, list[int]] = {}
        for row in rows.values():
            if row.same_graph_as is not None:
                self._copies.setdefault(row.same_graph_as, []).append(row.id)
        self._passes: dict[int, list[RecordedPass]] = {}
        for one in self._session.passes():
            if one.kind == PassKind.LABEL:
                self._passes.setdefault(one.measurement_id, []).append(one)
        owners = dict.fromkeys(rows[arch].same_graph_as or rows[arch].id for arch in self._archs if arch in rows)
        self._rows = [by_id[one] for one in owners if by_id[one].status == Status.OK and one in self._passes]
        self._labels = {row.arch: self._label(row) for row in self._rows}
        for name, label in self._labels.items():
            self._before.setdefault(name, label)

    def _label(self, row: Measurement) -> RankedNetwork:
        samples = [one.samples_ns for one in self._passes[row.id]]
        passes = len(samples)
        assert row.latency_ms is not None
        # A single sample without an error says nothing about its error; many equal samples say that there is none.
        unknown = row.latency_ms if len(samples) == len(samples[0]) == 1 else 0.0
        return RankedNetwork(
            name=row.arch,
            latency_ms=row.latency_ms,
            stderr_ms=row.stderr_ms or unknown,
            passes=passes,
            pass_s=(row.times_s["warm_s"] + row.times_s["measure_s"]) / passes,
        )

    def _unfinished(self) -> dict[str, int]:
        """Return the number of stored passes of each network whose label lacks some, because the run was killed."""
        stored_s = {row.arch: sum(one.samples_s for one in self._passes[row.id]) for row in self._rows}
        return {
            row.arch: len(self._passes[row.id])
            for row in self._rows
            if abs(stored_s[row.arch] - row.times_s["measure_s"]) > SAME_S
        }

    def _announce_round(self, wanted: Mapping[str, int]) -> None:
        if self._announce:
            passes = sum(total - self._labels[name].passes for name, total in wanted.items())
            states = [one.state for one in compare(list(self._labels.values()), self._resolve)]
            self._announce(
                f"{self._campaign.target}: {states.count('open')} of {len(states)} comparisons are open; "
                f"round {self._rounds}: {passes} more passes over {len(wanted)} networks"
            )
