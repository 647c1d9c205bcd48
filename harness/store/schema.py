"""The tables of a store, as SQLAlchemy classes."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

__all__ = [
    "ALSO_IN_INDEX",
    "SCHEMA_VERSION",
    "TRANSIENT",
    "AnchorRow",
    "Base",
    "Campaign",
    "Claim",
    "Controller",
    "Fingerprint",
    "Incident",
    "Lease",
    "Measurement",
    "PassRow",
    "SessionFacts",
    "Source",
    "SourceArch",
    "SourceLabel",
]

SCHEMA_VERSION = 5
"""The number of the newest revision in `migrations/versions`, which say what each has added."""

ALSO_IN_INDEX = {"by_state": ("id", "latency_ms")}
"""Columns that an index of PostgreSQL has besides its own, so that a summary need not read the rows. (Said in the table
itself, SQLAlchemy would load all of PostgreSQL's drivers for each store in SQLite.)
"""
TRANSIENT = ("controllers", "claims")
"""Tables of what goes on at the moment, which copies of a store lack."""


class Table(TypeDecorator[dict[str, Any]]):
    """A table of values by name, as JSON. Connections to PostgreSQL give JSON as text, as SQLite does."""

    impl = JSON
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return the table that the text holds."""
        return json.loads(value) if isinstance(value, str) else value


_INTEGER = BigInteger().with_variant(Integer(), "sqlite")  # where each integer has 64 bits
_TEXT = String().with_variant(String(collation="C"), "postgresql")  # ordered by bytes, as in SQLite
_NANOSECONDS = JSON().with_variant(ARRAY(BigInteger), "postgresql")


class Base(DeclarativeBase):
    """The base class of all tables."""

    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy's own form)
        dict[str, Any]: Table,
        list[int]: _NANOSECONDS,
        int: _INTEGER,
        str: _TEXT,
        float: Double,
        datetime: DateTime(timezone=True),
    }


class Campaign(Base):
    """A campaign: networks of one space measured on one target under one policy, with a seed and a selection.

    Its id is the hash of all that, so that the same command finds its campaign again.
    """

    __tablename__ = "campaigns"
    id: Mapped[str] = mapped_column(primary_key=True)
    target: Mapped[str] = mapped_column(index=True)
    space: Mapped[str]
    policy_name: Mapped[str]
    policy_hash: Mapped[str]
    policy: Mapped[dict[str, Any]]
    seed: Mapped[int]
    selection: Mapped[str]
    options: Mapped[dict[str, Any]]
    created_at: Mapped[str]


class Fingerprint(Base):
    """The facts of a device at the time of a measurement, under their hash."""

    __tablename__ = "fingerprints"
    id: Mapped[str] = mapped_column(primary_key=True)
    facts: Mapped[dict[str, Any]]


class Measurement(Base):
    """One architecture measured once: `running` while passes are missing, then `ok` or the kind of failure."""

    __tablename__ = "measurements"
    __table_args__ = (
        UniqueConstraint("campaign_id", "session", "arch"),
        Index("by_graph", "campaign_id", "session", "artifact_sha256"),
        # All that a summary of sessions needs, so that it reads a twentieth of the table.
        Index("by_state", "campaign_id", "session", "status", "started_at", "finished_at", "fingerprint_id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[str] = mapped_column(ForeignKey("campaigns.id"))
    session: Mapped[int]
    arch: Mapped[str]
    role: Mapped[str]
    status: Mapped[str]
    order: Mapped[int]
    """Place among the measurements of its session, from 0."""
    fingerprint_id: Mapped[str | None] = mapped_column(ForeignKey("fingerprints.id"))
    artifact_sha256: Mapped[str | None]
    artifact: Mapped[dict[str, Any]] = mapped_column(default=dict)
    same_graph_as: Mapped[int | None] = mapped_column(ForeignKey("measurements.id"))
    """The measurement whose label this one copies, because their exported files are the same."""
    latency_ms: Mapped[float | None]
    """The label: `raw_ms` without the session's drift."""
    stderr_ms: Mapped[float | None]
    """Standard error of `latency_ms`."""
    raw_ms: Mapped[float | None]
    """Trimmed mean of the samples as the device gave them."""
    low_ms: Mapped[float | None]
    """Lower end of the 95 % confidence interval of `latency_ms`, within the session."""
    high_ms: Mapped[float | None]
    """Upper end of that interval."""
    verdict: Mapped[str] = mapped_column(server_default="")
    """Kind of doubt about the label (`statistics.verdicts.KINDS`); empty if there is none."""
    metrics: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    """Other figures of the network on the device, by name (`telemetry.metrics.METRICS`)."""
    times_s: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Seconds of each stage of the measurement, by name."""
    error: Mapped[str | None]
    started_at: Mapped[str]
    finished_at: Mapped[str | None]
    campaign: Mapped[Campaign] = relationship()
    passes: Mapped[list[PassRow]] = relationship(order_by="PassRow.number")
    is_new = False
    """True if `Store.begin` has just made the row, so that it has no passes yet; not a column."""


class PassRow(Base):
    """One pass of a network: raw samples in nanoseconds, in the order in which they were taken."""

    __tablename__ = "passes"
    __table_args__ = (UniqueConstraint("measurement_id", "number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    measurement_id: Mapped[int] = mapped_column(ForeignKey("measurements.id"))
    number: Mapped[int]
    warmup_ns: Mapped[list[int]]
    samples_ns: Mapped[list[int]]
    telemetry: Mapped[dict[str, Any]]
    at: Mapped[str]
    kind: Mapped[str] = mapped_column(server_default="label")
    """Use of the pass (`telemetry.recorded_pass.PassKind`)."""


class AnchorRow(Base):
    """One pass of an anchor, a small network that every session times now and then: it shows the device's speed."""

    __tablename__ = "anchors"
    __table_args__ = (Index("by_session", "campaign_id", "session"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[str] = mapped_column(ForeignKey("campaigns.id"))
    session: Mapped[int]
    arch: Mapped[str]
    """The anchor's architecture in NAS-Bench-201, whatever the campaign's space is."""
    warmup_ns: Mapped[list[int]]
    samples_ns: Mapped[list[int]]
    telemetry: Mapped[dict[str, Any]]
    at: Mapped[str]
    ok: Mapped[bool]
    """True if its latency agreed with the anchors before it."""


class SessionFacts(Base):
    """Facts of one session of a campaign as a whole: the seed of its order, its drift."""

    __tablename__ = "sessions"
    campaign_id: Mapped[str] = mapped_column(ForeignKey("campaigns.id"), primary_key=True)
    session: Mapped[int] = mapped_column(primary_key=True)
    facts: Mapped[dict[str, Any]]


class Lease(Base):
    """The newest lease under which a device was used with this store; writers with an older one are stale."""

    __tablename__ = "leases"
    device: Mapped[str] = mapped_column(primary_key=True)
    folder: Mapped[str] = mapped_column(primary_key=True)
    """Identity of the device's work folder, which counts the tokens: a new folder counts from the start again."""
    token: Mapped[int]
    """Number of the lease; a later lease has a larger one."""


class Incident(Base):
    """An event of a device that is no measurement: it was lost, came back, or was given up."""

    __tablename__ = "incidents"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[str]
    device: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str]
    message: Mapped[str]


class Controller(Base):
    """A controller that writes to the store beside others, as long as it does. Stores in SQLite have none."""

    __tablename__ = "controllers"
    id: Mapped[str] = mapped_column(primary_key=True)
    who: Mapped[str]
    """Process and machine, in words."""
    seen_at: Mapped[datetime]
    """When it last said, by the server's clock, that it is still there."""


class Claim(Base):
    """A network of a session that a controller measures, so that no other one does. Stores in SQLite have none."""

    __tablename__ = "claims"
    campaign_id: Mapped[str] = mapped_column(ForeignKey("campaigns.id", ondelete="CASCADE"), primary_key=True)
    session: Mapped[int] = mapped_column(primary_key=True)
    arch: Mapped[str] = mapped_column(primary_key=True)
    controller_id: Mapped[str]
    """Its controller, which need not be there any more: then another one may claim the network."""


class Source(Base):
    """A device that others measured in one space, and the origin of its labels."""

    __tablename__ = "sources"
    __table_args__ = (UniqueConstraint("name", "space"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    space: Mapped[str]
    format: Mapped[str]
    origin: Mapped[str]
    """The imported files, as the user named them."""
    sha256: Mapped[str]
    """SHA-256 of these files' contents."""
    unit: Mapped[str]
    """Unit of the latencies in the files; labels are in milliseconds."""
    citation: Mapped[str]
    notes: Mapped[str]
    imported_at: Mapped[str]


class SourceArch(Base):
    """An architecture that sources have labels of; kept once, because tables of one space share theirs."""

    __tablename__ = "source_archs"
    __table_args__ = (UniqueConstraint("space", "arch"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    space: Mapped[str]
    arch: Mapped[str]


class SourceLabel(Base):
    """The latency of an architecture on a source."""

    __tablename__ = "source_labels"
    __table_args__ = ({"sqlite_with_rowid": False},)
    source_id: Mapped[int] = mapped_column(ForeignKey("sources.id", ondelete="CASCADE"), primary_key=True)
    arch_id: Mapped[int] = mapped_column(primary_key=True)
    """Id in `source_archs`. It is no foreign key, because deleting an architecture would then search all labels."""
    latency_ms: Mapped[float]
    stderr_ms: Mapped[float | None]
