"""The tables of a store."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

__all__ = [
    "SCHEMA_VERSION",
    "AnchorRow",
    "Base",
    "Campaign",
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

SCHEMA_VERSION = 4
"""1: campaigns, fingerprints, measurements, passes. 2: leases, incidents. 3: sources, their archs and labels.
4: anchors, facts of sessions, kinds of passes; raw latency, interval, verdict and metrics of measurements."""


class Base(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSON, list[int]: JSON}  # noqa: RUF012  (SQLAlchemy's own form)


class Campaign(Base):
    """What was asked for: a target, a space, a policy, a seed and a selection. Its id is their hash."""

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
    """The device as it was: its facts under their hash."""

    __tablename__ = "fingerprints"
    id: Mapped[str] = mapped_column(primary_key=True)
    facts: Mapped[dict[str, Any]]


class Measurement(Base):
    """One architecture measured once: `running` while passes are missing, then `ok` or the kind of failure."""

    __tablename__ = "measurements"
    __table_args__ = (
        UniqueConstraint("campaign_id", "session", "arch"),
        Index("by_graph", "campaign_id", "session", "artifact_sha256"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[str] = mapped_column(ForeignKey("campaigns.id"))
    session: Mapped[int]
    arch: Mapped[str]
    role: Mapped[str]
    status: Mapped[str]
    order: Mapped[int]
    fingerprint_id: Mapped[str | None] = mapped_column(ForeignKey("fingerprints.id"))
    artifact_sha256: Mapped[str | None]
    artifact: Mapped[dict[str, Any]] = mapped_column(default=dict)
    same_graph_as: Mapped[int | None] = mapped_column(ForeignKey("measurements.id"))
    latency_ms: Mapped[float | None]
    """The label: `raw_ms` without the session's drift."""
    stderr_ms: Mapped[float | None]
    raw_ms: Mapped[float | None]
    """Trimmed mean of the samples as they were."""
    low_ms: Mapped[float | None]
    high_ms: Mapped[float | None]
    """The 95 % confidence interval of `latency_ms`, within the session."""
    verdict: Mapped[str] = mapped_column(server_default="")
    """Kind of doubt about the label (`quality.verdicts`); empty where there is none."""
    metrics: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    """What else is known of the network on the device: memory, energy, first inference."""
    times_s: Mapped[dict[str, Any]] = mapped_column(default=dict)
    error: Mapped[str | None]
    started_at: Mapped[str]
    finished_at: Mapped[str | None]
    campaign: Mapped[Campaign] = relationship()
    passes: Mapped[list[PassRow]] = relationship(order_by="PassRow.number")
    is_new = False
    """Whether `Store.begin` has just made it, so that it has no passes yet."""


class PassRow(Base):
    """One short run of a network: raw samples in their order, in nanoseconds."""

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
    """`label`, or what is kept and makes no label: `rejected` (the anchor after it failed), `probe` (of noise)."""


class AnchorRow(Base):
    """One short run of a small network that every session times now and then: how fast the device is by itself."""

    __tablename__ = "anchors"
    __table_args__ = (Index("by_session", "campaign_id", "session"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[str] = mapped_column(ForeignKey("campaigns.id"))
    session: Mapped[int]
    arch: Mapped[str]
    """Of NAS-Bench-201, whatever the campaign's space is."""
    warmup_ns: Mapped[list[int]]
    samples_ns: Mapped[list[int]]
    telemetry: Mapped[dict[str, Any]]
    at: Mapped[str]
    ok: Mapped[bool]
    """Whether it was in line with the anchors around it."""


class SessionFacts(Base):
    """What is known of one session of a campaign as a whole: the seed of its order, its drift."""

    __tablename__ = "sessions"
    campaign_id: Mapped[str] = mapped_column(ForeignKey("campaigns.id"), primary_key=True)
    session: Mapped[int] = mapped_column(primary_key=True)
    facts: Mapped[dict[str, Any]]


class Lease(Base):
    """The newest lease under which a device was used with this store; writers with an older one are stale."""

    __tablename__ = "leases"
    device: Mapped[str] = mapped_column(primary_key=True)
    folder: Mapped[str]
    """Identity of the work folder that counts the tokens: a wiped one begins anew."""
    token: Mapped[int]


class Incident(Base):
    """Something that happened to a device, and is no measurement: it was lost, came back, was given up."""

    __tablename__ = "incidents"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[str]
    device: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str]
    message: Mapped[str]


class Source(Base):
    """A device that others measured in one space: where its labels come from."""

    __tablename__ = "sources"
    __table_args__ = (UniqueConstraint("name", "space"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    space: Mapped[str]
    format: Mapped[str]
    origin: Mapped[str]
    """The files, as they were named."""
    sha256: Mapped[str]
    """Of these files' contents."""
    unit: Mapped[str]
    """In which the files have latencies; labels are milliseconds."""
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
    """In `source_archs`; no foreign key, whose check would search all labels for each architecture that goes."""
    latency_ms: Mapped[float]
    stderr_ms: Mapped[float | None]
