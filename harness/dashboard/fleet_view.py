"""The first page: each device, and what has happened lately."""

from __future__ import annotations

from collections import Counter
from typing import Any

from latlab.harness.dashboard.progress import session_json, session_state
from latlab.harness.dashboard.state import DeviceState, LabelRow
from latlab.harness.dashboard.watch import StoreWatch

__all__ = ["campaigns_view", "fleet_view"]

MOST_DEVICES = 1000
MOST_INCIDENTS = 12
MOST_SESSIONS = 300
LATELY_S = 24 * 3600.0
"""An incident of the last day is shown beside its device."""
_ORDER = ("lost", "given up", "silent", "measuring", "idle")


def fleet_view(watch: StoreWatch, now: float) -> dict[str, Any]:
    """Return all devices, those in trouble first, and the last incidents."""
    so_far: Counter[str] = Counter()
    for session in watch.sessions.values():
        if session.open:
            so_far[session.campaign.device] += session.so_far
    lines = [_device_json(one, so_far[one.name], now) for one in watch.devices.values()]
    lines.sort(key=lambda one: (_ORDER.index(one["state"]), one["name"]))
    states = {state: sum(one["state"] == state for one in lines) for state in _ORDER}
    rates = [one["per_minute"] for one in lines if one["per_minute"]]
    hot = [one["temperature_c"] for one in lines if one["temperature_c"] is not None and one["state"] == "measuring"]
    return {
        "devices": lines[:MOST_DEVICES],
        "left_out": max(0, len(lines) - MOST_DEVICES),
        "states": states,
        "per_minute": sum(rates) if rates else None,
        "hottest_c": max(hot, default=None),
        "ok": sum(one["ok"] for one in lines),
        "failed": sum(one.failed for one in watch.devices.values()),
        "incidents": [one._asdict() for one in reversed(watch.incidents[-MOST_INCIDENTS:])],
    }


def _device_json(device: DeviceState, so_far: int, now: float) -> dict[str, Any]:
    state, session = device.state(now), device.session
    active = session if state in ("measuring", "silent") else None
    incident = device.incident
    return {
        "name": device.name,
        "state": state,
        "simulated": device.simulated,
        "target": session.campaign.target if session else "",
        "space": session.campaign.space if session else "",
        "doing": device.doing if active and device.doing else "",
        "campaign": session.campaign.id if session else "",
        "session": session.number if session else 0,
        "progress": session_json(active, now) if active else None,
        "per_minute": device.rate.per_minute(now) if state == "measuring" else None,
        "temperature_c": device.temperature_c,
        "ok": device.ok + so_far,
        "failed": device.failed,
        "last_error": device.last_error,
        "incident": incident._asdict() if incident and incident.at > now - LATELY_S else None,
        "losses": device.incidents["lost"],
        "labels": [_label_json(one) for one in sorted(device.labels, key=lambda row: -(row.finished or row.started))],
        "last": device.last_sign,
    }


def _label_json(row: LabelRow) -> dict[str, Any]:
    return {
        "arch": row.arch, "ms": row.latency_ms, "error_ms": row.stderr_ms, "status": row.status,
        "verdict": row.verdict, "at": row.finished or row.started,
    }  # fmt: skip


def campaigns_view(watch: StoreWatch, now: float) -> dict[str, Any]:
    """Return a line for each session of a campaign, those that are being measured first, then the newest."""
    sessions = [one for one in watch.sessions.values() if one.newest_id]
    rank = {"measuring": 0, "unfinished": 1, "done": 1}
    sessions.sort(key=lambda one: (rank[session_state(one, now)], -one.last_sign))
    return {
        "sessions": [session_json(one, now) for one in sessions[:MOST_SESSIONS]],
        "left_out": max(0, len(sessions) - MOST_SESSIONS),
    }
