"""What versions 1 to 3 had: measurements and passes (1), leases and incidents (2), imported sources (3)."""

from __future__ import annotations

import sqlalchemy as sa

from latlab.harness.store.migrations.columns import (
    create_missing_index,
    create_missing_table,
    json,
    nanoseconds,
    number,
    text,
    whole,
)

revision = "0003"
down_revision = None


def upgrade() -> None:
    """Make the tables that are not there."""
    create_missing_table(
        "campaigns",
        text("id", primary_key=True),
        *map(text, ("target", "space", "policy_name", "policy_hash")),
        json("policy"),
        whole("seed"),
        text("selection"),
        json("options"),
        text("created_at"),
    )
    create_missing_table("fingerprints", text("id", primary_key=True), json("facts"))
    create_missing_table(
        "measurements",
        whole("id", primary_key=True),
        text("campaign_id"),
        whole("session"),
        *map(text, ("arch", "role", "status")),
        whole("order"),
        text("fingerprint_id", nullable=True),
        text("artifact_sha256", nullable=True),
        json("artifact"),
        whole("same_graph_as", nullable=True),
        number("latency_ms"),
        number("stderr_ms"),
        json("times_s"),
        text("error", nullable=True),
        text("started_at"),
        text("finished_at", nullable=True),
        sa.UniqueConstraint("campaign_id", "session", "arch"),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"]),
        sa.ForeignKeyConstraint(["fingerprint_id"], ["fingerprints.id"]),
        sa.ForeignKeyConstraint(["same_graph_as"], ["measurements.id"]),
    )
    create_missing_table(
        "passes",
        whole("id", primary_key=True),
        whole("measurement_id"),
        whole("number"),
        nanoseconds("warmup_ns"),
        nanoseconds("samples_ns"),
        json("telemetry"),
        text("at"),
        sa.UniqueConstraint("measurement_id", "number"),
        sa.ForeignKeyConstraint(["measurement_id"], ["measurements.id"]),
    )
    create_missing_table("leases", text("device", primary_key=True), text("folder"), whole("token"))
    create_missing_table("incidents", whole("id", primary_key=True), *map(text, ("at", "device", "kind", "message")))
    create_missing_table(
        "sources",
        whole("id", primary_key=True),
        *map(
            text,
            ("name", "space", "format", "origin", "sha256", "unit", "citation", "notes", "imported_at"),
        ),
        sa.UniqueConstraint("name", "space"),
    )
    create_missing_table(
        "source_archs",
        whole("id", primary_key=True),
        text("space"),
        text("arch"),
        sa.UniqueConstraint("space", "arch"),
    )
    create_missing_table(
        "source_labels",
        whole("source_id"),
        whole("arch_id"),
        number("latency_ms", nullable=False),
        number("stderr_ms"),
        sa.PrimaryKeyConstraint("source_id", "arch_id"),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], ondelete="CASCADE"),
        sqlite_with_rowid=False,
    )
    create_missing_index("ix_campaigns_target", "campaigns", ["target"])
    create_missing_index("ix_incidents_device", "incidents", ["device"])
    create_missing_index("by_graph", "measurements", ["campaign_id", "session", "artifact_sha256"])
