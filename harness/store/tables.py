"""Tables of a store's measurements and campaigns: they read the rows and columns that a question needs, no others."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd
from sqlalchemy import Connection

from latlab.harness.importers.units import LATENCY_MS
from latlab.harness.statistics.distribution import throughput_per_s
from latlab.harness.store.comparable import comparable_campaigns
from latlab.harness.store.damage import DamagedRow, damaged, without
from latlab.harness.store.dialect import StoreDialect
from latlab.harness.store.dialects import dialect_of
from latlab.harness.store.drawing import drawn
from latlab.harness.store.provisional import CORRECTED_AT
from latlab.harness.store.vocabulary import FAILURES, Selection, Status
from latlab.harness.telemetry.recorded_pass import PassKind

__all__ = ["LABELS", "Part", "Question", "Tables", "column", "in_order", "kind_of"]

LABELS = (
    "target", "space", "arch", "latency_ms", "stderr_ms", "status", "role", "session", "policy_hash", "selection",
    "as_written", "campaign", "simulated",
)  # fmt: skip
"""The columns that a predictor needs of its labels."""
_OF_CAMPAIGN = {
    "target": "target", "space": "space", "policy": "policy_name", "policy_hash": "policy_hash", "seed": "seed",
    "selection": "selection",
}  # fmt: skip
_OF_ROW = {
    name: name
    for name in (
        "arch", "latency_ms", "stderr_ms", "low_ms", "high_ms", "raw_ms", "verdict", "status", "role", "session",
        "order", "artifact_sha256", "fingerprint_id", "same_graph_as", "error", "started_at", "finished_at", "artifact",
        "id",
    )
} | {"campaign": "campaign_id"}  # fmt: skip
_ORDER = (
    "target", "space", "arch", "latency_ms", "stderr_ms", "low_ms", "high_ms", "raw_ms", "verdict", "status", "role",
    "session", "order", "policy", "policy_hash", "seed", "selection", "as_written", "artifact_sha256", "fingerprint_id",
    "same_graph_as", "error", "started_at", "finished_at", "artifact", "id", "campaign", "simulated",
)  # fmt: skip
_JSON = ("times_s", "metrics")
_NUMBERS = ("latency_ms", "stderr_ms", "low_ms", "high_ms", "raw_ms")
_FEW = ("campaign_id", "role", "status", "verdict", "fingerprint_id")
"""Columns of few different values, of which each is kept once."""
_CHUNK = 5_000
_OK = "count(CASE WHEN status = 'ok' THEN 1 END)"
_NO_LABELS = (Selection.SUSTAIN, Selection.COMPARE)
_FAILED = ", ".join(f"'{one}'" for one in sorted({*FAILURES, Status.DEVICE_LOST}))
_IS_LABEL = f"coalesce(latency_ms BETWEEN {LATENCY_MS[0]!r} AND {LATENCY_MS[1]!r}, FALSE)"
_IS_DAMAGED = f"(status = 'ok' AND NOT {_IS_LABEL} OR status NOT IN ('ok', 'running', {_FAILED}))"
"""Whether a row is damaged, as far as a count of many rows can tell."""


def _number_where(condition: str) -> str:
    """Return the SQL that counts the rows for which a condition holds."""
    return f"count(CASE WHEN {condition} THEN 1 END)"


@dataclass(frozen=True)
class Question:
    """The measurements that are asked for, and what of them. Fields: `Store.table`."""

    target: str | Collection[str] | None = None
    space: str | None = None
    campaign: str | None = None
    raw: bool = False
    sustained: bool = False
    provisional: bool = False
    only: Collection[str] | None = None
    networks: int | None = None
    failures: bool = False
    """Only those that failed."""

    def metrics(self) -> list[str]:
        """Return the metrics that are asked for by name: what `only` names beside the columns of all stores."""
        return [name for name in self.only or () if name not in _ORDER]

    @property
    def of_everything(self) -> bool:
        """Return whether no measurement is left out for what it is of."""
        return self.target is None and self.space is None and self.campaign is None

    def names(self) -> list[str]:
        """Return the names of the columns that are the same for all stores."""
        return [name for name in _ORDER if self.only is None or name in self.only]


@dataclass
class Part:
    """Some of the measurements that were asked for, as columns."""

    columns: dict[str, list[Any]]
    """Those that are the same for all stores."""
    tables: tuple[dict[str, list[Any]], ...]
    """A column for each key of a JSON column, which other parts may lack: times, then metrics."""
    last: dict[str, list[Any]]
    """Those that come after these."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def without_rows(self) -> Part:
        """Return a part with the same columns and no rows."""
        tables: tuple[dict[str, list[Any]], ...] = tuple({name: [] for name in table} for table in self.tables)
        return Part({name: [] for name in self.columns}, tables, {name: [] for name in self.last})


def in_order(parts: Iterable[Part]) -> list[str]:
    """Return the names of all columns of a table that is made of these parts, in its order."""
    names: dict[str, None] = {}
    tables: tuple[set[str], ...] = (set(), set())
    last: dict[str, None] = {}
    for part in parts:
        names.update(dict.fromkeys(part.columns))
        last.update(dict.fromkeys(part.last))
        for known, table in zip(tables, part.tables, strict=False):
            known.update(table)
    return list(dict.fromkeys([*names, *sorted(tables[0]), *sorted(tables[1]), *last]))


def column(part: Part, name: str) -> list[Any]:
    """Return a column of a part; None in each row if the part lacks it."""
    tables: tuple[dict[str, list[Any]], ...] = (part.last, *reversed(part.tables), part.columns)
    for columns in tables:
        if name in columns:
            return columns[name]
    return [None] * len(part)


def kind_of(name: str) -> type | None:
    """Return the type of a column that does not depend on its values; None for others."""
    return float if name in _NUMBERS else bool if name in ("simulated", "provisional") else None


@dataclass
class Tables:
    """Reads tables of one connection, and collects the damaged rows that it leaves out."""

    connection: Connection
    damaged: list[DamagedRow] = field(default_factory=list)

    @cached_property
    def dialect(self) -> StoreDialect:
        """The dialect of the connection's database."""
        return dialect_of(self.connection)

    def measurements(self, asked: Question) -> pd.DataFrame:
        """Return finished measurements. Columns: `Store.table`."""
        parts = list(self.parts(asked))
        index = range(sum(map(len, parts)))
        names = in_order(parts) if parts else self._names_of_nothing(asked)
        return pd.DataFrame(
            {
                name: pd.Series([one for part in parts for one in column(part, name)], index, kind_of(name))
                for name in names
            },
            index,
        )

    def parts(self, asked: Question) -> Iterator[Part]:
        """Yield finished measurements, some thousands at a time, so that many of them take little memory."""
        campaigns = self._campaigns(asked)
        wanted = asked.names()
        need = {"id", "status", "latency_ms", "campaign_id", *([] if asked.only is not None else _JSON)}
        need |= {_OF_ROW[name] for name in wanted if name in _OF_ROW}
        need |= {"metrics"} if asked.metrics() else set()
        need |= {"fingerprint_id"} if "simulated" in wanted else set()
        need |= {"same_graph_as"} if asked.raw else set()
        need |= {"session", "started_at", "finished_at"} if asked.provisional else set()
        simulated = self._simulated() if "simulated" in wanted else {}
        uncorrected = self._uncorrected() if asked.provisional else {}
        for rows in self._rows(sorted(need), campaigns, asked):
            marks = _provisional(rows, uncorrected) if asked.provisional else []
            columns: dict[str, list[Any]] = {}
            for name in wanted:
                if name in _OF_ROW:
                    columns[name] = rows[_OF_ROW[name]]
                elif name == "simulated":
                    columns[name] = [simulated.get(one, False) for one in rows["fingerprint_id"]]
                else:
                    columns[name] = [campaigns[one][name] for one in rows["campaign_id"]]
            if asked.provisional:
                columns["provisional"] = marks
            tables: tuple[dict[str, list[Any]], ...] = ()
            last: dict[str, list[Any]] = {}
            if asked.metrics():
                found = [json.loads(text) for text in rows["metrics"]]
                columns |= {name: [one.get(name) for one in found] for name in asked.metrics()}
            if asked.only is None:
                tables = tuple(_spread(rows[name]) for name in _JSON)
                last["throughput_per_s"] = [
                    throughput_per_s(where, ms) if status == Status.OK else None
                    for where, ms, status in zip(columns["target"], rows["latency_ms"], rows["status"], strict=True)
                ]
            if asked.raw:
                owners = [
                    own if same is None else same for own, same in zip(rows["id"], rows["same_graph_as"], strict=True)
                ]
                samples = self._samples(owners)
                last["passes"] = [samples.get(owner, []) for owner in owners]
            yield Part(columns, tables, last)

    @staticmethod
    def _names_of_nothing(asked: Question) -> list[str]:
        names = [*asked.names(), *asked.metrics(), *(["provisional"] if asked.provisional else [])]
        return [*names, *(["throughput_per_s"] if asked.only is None else []), *(["passes"] if asked.raw else [])]

    def finished(self, space: str | None = None) -> dict[str, int]:
        """Return the number of finished networks of each target, in a space or in all."""
        campaigns = self._campaigns(Question(space=space))
        found: dict[str, int] = {}
        for campaign, (_, finished) in self._counts(campaigns).items():
            target = campaigns[campaign]["target"]
            found[target] = found.get(target, 0) + finished
        return {target: count for target, count in found.items() if count}

    def labelled(self) -> list[dict[str, Any]]:
        """Return a row per target and space with labels: target, space, architectures, labels, imported, simulated.

        `labels` are all that were measured or imported, and `imported` those that were imported.
        """
        campaigns = self._campaigns(Question())
        simulated = self._simulated()
        of_simulated = {
            campaign
            for campaign, mark in self.query("SELECT DISTINCT campaign_id, fingerprint_id FROM measurements")
            if simulated.get(mark)
        }
        counts = self._counts(campaigns)
        groups: dict[tuple[str, str], list[str]] = {}
        for campaign, (_, finished) in counts.items():
            if finished:
                where = campaigns[campaign]["target"], campaigns[campaign]["space"]
                groups.setdefault(where, []).append(campaign)
        # Two indices hold all that is needed, so that the rows themselves need not be read.
        by_state = self.dialect.state_index(self.connection)
        rows = []
        for (target, space), own in sorted(groups.items()):
            marks = ", ".join("?" * len(own))
            sql = (
                f"SELECT count(DISTINCT arch) FROM measurements WHERE campaign_id IN ({marks}) AND id NOT IN "
                f"(SELECT id FROM measurements{by_state} WHERE campaign_id IN ({marks}) AND status != 'ok')"
            )
            labels = {one: counts[one][1] for one in own}
            imported = sum(n for one, n in labels.items() if campaigns[one]["selection"] == Selection.IMPORTED)
            rows.append(
                {"target": target, "space": space, "architectures": int(self.query(sql, (*own, *own))[0][0]),
                 "labels": sum(labels.values()), "imported": imported, "simulated": not of_simulated.isdisjoint(own)}
            )  # fmt: skip
        return rows

    def _counts(self, campaigns: Collection[str]) -> dict[str, tuple[int, int]]:
        """Return the numbers of all and of the finished rows of some campaigns that have any."""
        found = self.query(
            f"SELECT campaign_id, count(*), {_OK} FROM measurements GROUP BY campaign_id ORDER BY min(id)"
        )
        return {campaign: (rows, int(ok or 0)) for campaign, rows, ok in found if campaign in campaigns}

    def sessions(self) -> pd.DataFrame:
        """Return a row per campaign and session. Columns: `Store.campaigns`."""
        campaigns = self._campaigns(Question(sustained=True))
        counted = (f"status = 'ok' AND {_IS_LABEL}", f"status IN ({_FAILED})", "status = 'running'",
                   f"status = 'running' AND {_IS_LABEL}", _IS_DAMAGED)  # fmt: skip
        found = self.query(
            f"SELECT campaign_id, session, {', '.join(map(_number_where, counted))}, "
            "min(started_at), max(finished_at), max(fingerprint_id), min(id) "
            "FROM measurements GROUP BY campaign_id, session"
        )
        uncorrected = self._uncorrected()
        first: dict[str, int] = {}
        for one in found:
            first[one[0]] = min(one[-1], first.get(one[0], one[-1]))
        simulated = self._simulated()
        bad = damaged("measurements", [one[0] for one in found], {"session": [one[1] for one in found]})
        self.damaged += bad.values()
        if any(one[6] for one in without(bad, found)):
            names = ["id", "status", "latency_ms"]
            columns = self._columns(f"SELECT {', '.join(names)} FROM measurements WHERE {_IS_DAMAGED}", (), names)
            self.damaged += damaged("measurements", columns["id"], columns).values()
        rows = [
            {
                **{name: campaigns[campaign][name] for name in ("target", "space", "policy", "selection", "seed")},
                "session": session, "ok": int(ok or 0), "failed": int(failed or 0), "running": int(running or 0),
                "first": begin if isinstance(begin, str) else None, "last": end if isinstance(end, str) else None,
                "campaign": campaign, "simulated": int(simulated.get(mark, False)),
                "provisional": int(so_far or 0) + self._uncorrected_labels(campaign, session, uncorrected),
                "networks": self._networks(campaign, session, campaigns[campaign]["selection"]),
            }
            for campaign, session, ok, failed, running, so_far, _, begin, end, mark, _ in sorted(
                without(bad, found), key=lambda one: (first.get(one[0], 0), one[1])
            )
            if campaign in campaigns
        ]  # fmt: skip
        names = ["target", "space", "policy", "selection", "seed", "session", "ok", "failed", "running", "first"]
        return pd.DataFrame(rows, columns=[*names, "last", "campaign", "simulated", "provisional", "networks"])

    def _networks(self, campaign: str, session: int, selection: str) -> list[str] | None:
        """Return what was run in a session that makes no labels; None for others, whose labels are listed elsewhere."""
        if selection not in _NO_LABELS:
            return None
        sql = "SELECT arch FROM measurements WHERE campaign_id = ? AND session = ? GROUP BY arch ORDER BY min(id)"
        return [str(one[0]) for one in self.query(sql, (campaign, session))]

    def _uncorrected(self) -> dict[tuple[str, int], str]:
        """Return the sessions whose labels may have drift in them, with the time until which it was removed, or ""."""
        found = dict.fromkeys(self.query("SELECT DISTINCT campaign_id, session FROM anchors"), "")
        known = self.query("SELECT campaign_id, session, facts FROM sessions")
        bad = damaged("sessions", [one[:2] for one in known], {"facts": [one[2] for one in known]})
        self.damaged += bad.values()
        for campaign, session, text in without(bad, known):
            facts = json.loads(text)
            if facts.get("drift") is None or (campaign, session) not in found:
                continue
            if facts.get(CORRECTED_AT) is None:  # an older latlab has removed it, and did not say when
                del found[campaign, session]
            else:
                found[campaign, session] = str(facts[CORRECTED_AT])
        return found

    def _uncorrected_labels(self, campaign: str, session: int, uncorrected: Mapping[tuple[str, int], str]) -> int:
        until = uncorrected.get((campaign, session))
        if until is None:
            return 0
        sql = (
            "SELECT count(*) FROM measurements WHERE campaign_id = ? AND session = ? AND status = 'ok' "
            "AND latency_ms IS NOT NULL AND coalesce(finished_at, '') > ?"
        )
        return int(self.query(sql, (campaign, session, until))[0][0])

    def incidents(self) -> pd.DataFrame:
        """Return the incidents of all devices. Columns: `Store.incidents`."""
        names = ["id", "at", "device", "kind", "message"]
        found = self._columns(f"SELECT {', '.join(names)} FROM incidents ORDER BY id", (), names)
        bad = damaged("incidents", found["id"], found)
        self.damaged += bad.values()
        return pd.DataFrame({name: without(bad, found[name]) for name in names[1:]})

    def source_archs(self, space: str) -> list[tuple[int, str]]:
        """Return ids and texts of the architectures of a space that imported sources have labels of.

        If none is an architecture of the installed space, they are all returned: that space is another one.
        """
        found = self.query("SELECT id, arch, space FROM source_archs WHERE space = ?", (space,))
        names = ("id", "arch", "space")
        bad = damaged("source_archs", [one[0] for one in found], _turned(found, names))
        if len(bad) < len(found):
            self.damaged += bad.values()
            found = without(bad, found)
        return [(key, arch) for key, arch, _ in found]

    def source_labels(self, source: int) -> list[tuple[int, float, float | None]]:
        """Return the labels of an imported source: ids of architectures, latencies and standard errors."""
        names = ("arch_id", "latency_ms", "stderr_ms")
        found = self.query(f"SELECT {', '.join(names)} FROM source_labels WHERE source_id = ?", (source,))
        bad = damaged("source_labels", [f"{source} {one[0]}" for one in found], _turned(found, names))
        self.damaged += bad.values()
        return without(bad, found)

    def pairs(self) -> list[tuple[str, str]]:
        """Return the targets and spaces that have labels, in the order of their campaigns."""
        campaigns = self._campaigns(Question())
        there = self.query(
            "SELECT id FROM campaigns c WHERE EXISTS "
            "(SELECT 1 FROM measurements m WHERE m.campaign_id = c.id AND m.latency_ms IS NOT NULL) "
            f"ORDER BY {self.dialect.campaign_order}"
        )
        found = [(campaigns[one]["target"], campaigns[one]["space"]) for (one,) in there if one in campaigns]
        return list(dict.fromkeys(found))

    def anchored_sessions(self, device: str, most: int) -> list[tuple[str, str, int]]:
        """Return the sessions of a device with anchors (`Store.anchored_sessions`)."""
        campaigns = self._campaigns(Question())
        there = self.query(
            "SELECT campaign_id, session FROM anchors GROUP BY campaign_id, session ORDER BY max(id) DESC"
        )
        found: list[tuple[str, str, int]] = []
        count: Counter[str] = Counter()
        for campaign, session in there:
            target = campaigns[campaign]["target"] if campaign in campaigns else ""
            if target.split("/")[0] == device and count[target] < most:
                count[target] += 1
                found.append((target, campaign, session))
        return found

    def _campaigns(self, asked: Question) -> dict[str, dict[str, Any]]:
        """Return the facts of the campaigns that are asked for, by id."""
        names = ["id", *_OF_CAMPAIGN.values(), "options"]
        found = self._columns(
            f"SELECT {', '.join(names)} FROM campaigns WHERE space = coalesce(?, space) AND id = coalesce(?, id) "
            f"ORDER BY {self.dialect.campaign_order}",
            (asked.space, asked.campaign),
            names,
        )
        targets = {asked.target} if isinstance(asked.target, str) else asked.target
        bad = damaged("campaigns", found["id"], found)
        self.damaged += [one for place, one in bad.items() if targets is None or found["target"][place] in targets]
        campaigns = {}
        for place, key in enumerate(found["id"]):
            facts = {name: found[column][place] for name, column in _OF_CAMPAIGN.items()}
            if place in bad or (targets is not None and facts["target"] not in targets):
                continue
            if asked.sustained or facts["selection"] not in _NO_LABELS:
                options = json.loads(found["options"][place])
                campaigns[key] = {**facts, "as_written": int(bool(options.get("as_written") or 0))}
        return campaigns

    def _rows(self, names: list[str], campaigns: Mapping[str, Any], asked: Question) -> Iterator[dict[str, list[Any]]]:
        """Yield the undamaged finished measurements of some campaigns, as columns."""
        quoted = ", ".join(f'"{name}"' for name in names)
        known: dict[Any, Any] = {}
        for where, values in self._conditions(campaigns, asked):
            sql = f"SELECT {quoted} FROM measurements WHERE {where}"
            for rows in self.dialect.chunks_by_id(self.connection, sql, values, names.index("id"), _CHUNK):
                found: dict[str, Sequence[Any]] = dict(zip(names, zip(*rows, strict=True), strict=True))
                spaces = [campaigns[one]["space"] if one in campaigns else None for one in found["campaign_id"]]
                bad = damaged("measurements", found["id"], found, spaces)
                self.damaged += bad.values()
                skip = set(bad) | {at for at, one in enumerate(found["campaign_id"]) if one not in campaigns}
                columns = {name: without(skip, values) if skip else list(values) for name, values in found.items()}
                for name in _FEW:
                    if name in columns:
                        columns[name] = [known.setdefault(one, one) for one in columns[name]]
                yield columns

    def _conditions(self, campaigns: Mapping[str, Any], asked: Question) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Yield conditions which together select the rows of some campaigns, with the values for their marks."""
        if asked.failures:  # a scan of the index by_state finds the few
            where = "status NOT IN ('ok', 'running')"
            by_state = self.dialect.state_index(self.connection)
            yield f"id IN (SELECT id FROM measurements{by_state} WHERE {where})" if by_state else where, ()
            return
        where = "(status != 'running' OR latency_ms IS NOT NULL)" if asked.provisional else "status != 'running'"
        if asked.networks is None and asked.of_everything:
            yield where, ()
            return
        whole, ids = self._drawn(campaigns, asked.networks) if asked.networks is not None else (list(campaigns), [])
        if whole:
            yield f"{where} AND campaign_id IN ({', '.join('?' * len(whole))})", tuple(whole)
        for start in range(0, len(ids), _CHUNK):
            some = tuple(ids[start : start + _CHUNK])
            yield f"{where} AND id IN ({', '.join('?' * len(some))})", some

    def _drawn(self, campaigns: Mapping[str, Any], networks: int) -> tuple[list[str], list[int]]:
        """Return the campaigns to read whole, and of the others the rows whose networks are drawn."""
        counts = self._counts(campaigns)
        groups: dict[tuple[str, str], list[str]] = {}
        for campaign in counts:
            groups.setdefault((campaigns[campaign]["target"], campaigns[campaign]["space"]), []).append(campaign)
        whole: list[str] = []
        ids: list[int] = []
        for own in groups.values():
            finished = {one: counts[one][1] for one in own if counts[one][1]}
            if sum(finished.values()) <= networks:
                whole += own
                continue
            alike = comparable_campaigns(campaigns, finished)
            share = sum(counts[one][0] for one in alike) / sum(finished[one] for one in alike)
            # An index holds all that is needed for this.
            found = self.dialect.plain_rows(
                self.connection,
                f"SELECT id, {self.dialect.arch_bytes} FROM measurements "
                f"WHERE campaign_id IN ({', '.join('?' * len(alike))})",
                alike,
            )
            chosen = drawn((text for _, text in found), math.ceil(networks * share))
            ids += [row for (row, _), is_drawn in zip(found, chosen.tolist(), strict=True) if is_drawn]
        return whole, sorted(ids)

    def _columns(self, sql: str, values: tuple[Any, ...], names: list[str]) -> dict[str, list[Any]]:
        """Return the result of a query as columns."""
        return _turned(self.query(sql, values), names)

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return the rows of a query as tuples; text that is not UTF-8 has marks for what cannot be read."""
        return self.dialect.rows(self.connection, sql, values)

    def chunks(self, sql: str, size: int) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows of a query, at most `size` at once; text that is not UTF-8 as `query`."""
        return self.dialect.chunks(self.connection, sql, (), size)

    def _simulated(self) -> dict[str, bool]:
        """Return which devices' facts say that they are simulated, by fingerprint."""
        found = self.query("SELECT id, facts FROM fingerprints")
        bad = damaged("fingerprints", [one[0] for one in found], {"facts": [one[1] for one in found]})
        self.damaged += bad.values()
        return {key: json.loads(facts).get("simulated") in (True, 1) for key, facts in without(bad, found)}

    def _samples(self, owners: Collection[int]) -> dict[int, list[list[int]]]:
        """Return the samples of the labels' passes, a list per pass, by measurement."""
        samples: dict[int, list[list[int]]] = {}
        distinct = sorted(set(owners))
        for start in range(0, len(distinct), _CHUNK):
            some = distinct[start : start + _CHUNK]
            found = self.query(
                "SELECT id, measurement_id, samples_ns FROM passes WHERE kind = ? AND measurement_id IN "
                f"({', '.join('?' * len(some))}) ORDER BY measurement_id, number",
                (str(PassKind.LABEL), *some),
            )
            bad = damaged("passes", [one[0] for one in found], {"samples_ns": [one[2] for one in found]})
            self.damaged += bad.values()
            for _, owner, values in without(bad, found):
                samples.setdefault(owner, []).append(json.loads(values))
        return samples


def _turned(rows: Sequence[Sequence[Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    """Return rows as columns."""
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)) if rows else {name: [] for name in names}


def _provisional(rows: dict[str, list[Any]], uncorrected: Mapping[tuple[str, int], str]) -> list[bool]:
    """Return which rows are provisional labels, and make those that still run look like finished ones."""
    marks = []
    names = ("status", "latency_ms", "campaign_id", "session", "finished_at")
    for place, (status, ms, campaign, session, finished) in enumerate(
        zip(*(rows[name] for name in names), strict=True)
    ):
        until = uncorrected.get((campaign, session))
        running = status == Status.RUNNING
        marks.append(
            ms is not None and (running or (status == Status.OK and until is not None and until < (finished or "")))
        )
        if running:
            rows["status"][place] = str(Status.OK)
            rows["finished_at"][place] = rows["started_at"][place]
    return marks


def _spread(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Return a column for every key of the tables that a JSON column holds."""
    columns: dict[str, list[Any]] = {}
    for place, text in enumerate(texts):
        for key, value in json.loads(text).items():
            if key not in columns:
                columns[key] = [None] * len(texts)
            columns[key][place] = value
    return columns
