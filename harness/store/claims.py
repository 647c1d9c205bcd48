"""Claims: controllers that share a store in a server share the networks of a session, and none is measured twice.

A controller claims a network before it exports and measures it, and gives the claim up as it finishes the row. Claims
of a controller that was killed, or cut off, go to the next one that asks: it has not been seen for `GRACE_S`. If it
comes back all the same, what it still writes of such a network is refused.
"""

from __future__ import annotations

from sqlalchemy import Connection

from latlab.harness.errors import LatlabError
from latlab.harness.store.dialects import run
from latlab.harness.store.vocabulary import Status

__all__ = ["GRACE_S", "NOT_TAKEN", "TakenError", "claim", "claim_unfinished", "holder", "release"]

GRACE_S = 30
"""Seconds without a sign of life after which a controller's claims are free. They do not count while the server was
away, nor the first ones after that.
"""
_RECENT = f"now() - interval '{GRACE_S} s'"
NOT_TAKEN = (
    "NOT EXISTS (SELECT 1 FROM claims k JOIN measurements m ON m.campaign_id = k.campaign_id "
    "AND m.session = k.session AND m.arch = k.arch WHERE m.id = ? AND k.controller_id != ?)"
)
"""Whether no other controller has claimed the network of a measurement. Values: its id, this controller."""

_Key = tuple[str, int, str]


class TakenError(LatlabError):
    """Raised if another controller measures the network."""

    def __init__(self, arch: str, who: str) -> None:
        super().__init__(
            f"the network {arch} is being measured by another controller ({who})",
            "Its label will be in the store; the same command continues.",
        )


def claim(connection: Connection, controller: str, key: _Key) -> bool:
    """Claim a network for a controller, and return whether it has it then.

    Args:
        connection: in a transaction.
        controller: its id.
        key: campaign, session and architecture.
    """
    claimed = run(
        connection,
        "INSERT INTO claims (campaign_id, session, arch, controller_id) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (campaign_id, session, arch) DO UPDATE SET controller_id = excluded.controller_id "
        "WHERE claims.controller_id = excluded.controller_id OR NOT EXISTS (SELECT 1 FROM controllers c "
        f"WHERE c.id = claims.controller_id AND (c.seen_at > {_RECENT} OR pg_postmaster_start_time() > {_RECENT}))",
        (*key, controller),
    )
    return bool(claimed.rowcount)


def claim_unfinished(connection: Connection, controller: str, key: _Key) -> bool:
    """Claim a network that has no finished row yet, and return whether the controller has it then."""
    if not claim(connection, controller, key):
        return False
    # Its last controller may have finished it, and given it up, between this one's question and its claim.
    found = run(
        connection, "SELECT status FROM measurements WHERE campaign_id = ? AND session = ? AND arch = ?", key
    ).scalar()
    if found in (None, Status.RUNNING, Status.DEVICE_LOST):
        return True
    run(connection, "DELETE FROM claims WHERE campaign_id = ? AND session = ? AND arch = ?", key)
    return False


def release(connection: Connection, controller: str, measurement_id: int) -> None:
    """Give up a controller's claim to the network of a measurement."""
    run(
        connection,
        "DELETE FROM claims k USING measurements m WHERE m.id = ? AND k.campaign_id = m.campaign_id "
        "AND k.session = m.session AND k.arch = m.arch AND k.controller_id = ?",
        (measurement_id, controller),
    )


def holder(connection: Connection, key: _Key) -> str:
    """Return the controller that has claimed a network, in words."""
    found = run(
        connection,
        "SELECT c.who FROM claims k JOIN controllers c ON c.id = k.controller_id "
        "WHERE k.campaign_id = ? AND k.session = ? AND k.arch = ?",
        key,
    ).scalar()
    return str(found or "unknown")
