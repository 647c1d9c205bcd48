"""Anchors, facts of sessions, kinds of passes; raw latency, interval, verdict and metrics of measurements."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from latlab.harness.store.migrations.columns import (
    add_missing_columns,
    create_missing_index,
    create_missing_table,
    json,
    nanoseconds,
    number,
    text,
    whole,
)

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add what is not there. Until now, the label was the raw latency."""
    create_missing_table(
        "anchors",
        whole("id", primary_key=True),
        text("campaign_id"),
        whole("session"),
        text("arch"),
        nanoseconds("warmup_ns"),
        nanoseconds("samples_ns"),
        json("telemetry"),
        text("at"),
        sa.Column("ok", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"]),
    )
    create_missing_table(
        "sessions",
        text("campaign_id"),
        whole("session"),
        json("facts"),
        sa.PrimaryKeyConstraint("campaign_id", "session"),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"]),
    )
    add_missing_columns("passes", text("kind", server_default="label"))
    add_missing_columns(
        "measurements",
        number("raw_ms"),
        number("low_ms"),
        number("high_ms"),
        text("verdict", server_default=""),
        json("metrics", server_default="{}"),
    )
    op.execute("UPDATE measurements SET raw_ms = latency_ms WHERE raw_ms IS NULL")
    create_missing_index("by_session", "anchors", ["campaign_id", "session"])
