"""Controllers and their claims; a lease for each work folder of a device; the index that summaries need."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from latlab.harness.store.migrations.columns import (
    create_missing_index,
    create_missing_table,
    text,
    whole,
)

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the new tables, and `leases` with another key. Stores of version 4 may lack any index."""
    create_missing_table(
        "controllers",
        text("id", primary_key=True),
        text("who"),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
    )
    create_missing_table(
        "claims",
        text("campaign_id"),
        whole("session"),
        text("arch"),
        text("controller_id"),
        sa.PrimaryKeyConstraint("campaign_id", "session", "arch"),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], ondelete="CASCADE"),
    )
    op.rename_table("leases", "older_leases")
    op.create_table(
        "leases",
        text("device"),
        text("folder"),
        whole("token"),
        sa.PrimaryKeyConstraint("device", "folder", name="leases_by_folder"),
    )
    op.execute("INSERT INTO leases (device, folder, token) SELECT device, folder, token FROM older_leases")
    op.drop_table("older_leases")
    create_missing_index(
        "by_state",
        "measurements",
        ["campaign_id", "session", "status", "started_at", "finished_at", "fingerprint_id"],
        postgresql_include=["id", "latency_ms"],
    )
    create_missing_index("by_graph", "measurements", ["campaign_id", "session", "artifact_sha256"])
    create_missing_index("by_session", "anchors", ["campaign_id", "session"])
    create_missing_index("ix_campaigns_target", "campaigns", ["target"])
    create_missing_index("ix_incidents_device", "incidents", ["device"])
