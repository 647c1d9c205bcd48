"""The state of a store as Prometheus reads it (text exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from latlab.harness.dashboard.progress import planned, session_state
from latlab.harness.dashboard.watch import StoreWatch

__all__ = ["Metric", "metrics_of", "metrics_text"]


@dataclass(frozen=True)
class Metric:
    """A counter or a gauge: values by labels."""

    name: str
    kind: str
    help: str
    samples: tuple[tuple[dict[str, str], float], ...]

    def lines(self) -> Iterable[str]:
        """Yield the metric in Prometheus's text format."""
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.kind}"
        for labels, value in self.samples:
            inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
            yield f"{self.name}{{{inside}}} {value:.15g}" if inside else f"{self.name} {value:.15g}"


def metrics_text(watch: StoreWatch, now: float) -> str:
    """Return the metrics in Prometheus's text format."""
    return "".join(f"{line}\n" for one in metrics_of(watch, now) for line in one.lines())


def metrics_of(watch: StoreWatch, now: float) -> list[Metric]:
    """Return counters and gauges of all devices, and of the sessions that are not done.

    Args:
        now: seconds since 1970.
    """
    found: list[Metric] = []

    def add(name: str, kind: str, help_text: str, samples: Iterable[tuple[dict[str, str], float | None]]) -> None:
        known = tuple((labels, float(value)) for labels, value in samples if value is not None)
        found.append(Metric(f"latlab_{name}", kind, help_text, known))

    devices = sorted(watch.devices.values(), key=lambda one: one.name)
    states = {one.name: one.state(now) for one in devices}
    counts: dict[tuple[str, str, str], int] = {}
    for session in watch.sessions.values():
        for status, count in session.finished.items():
            key = session.campaign.target, session.campaign.space, status
            counts[key] = counts.get(key, 0) + count
    add(
        "measurements_total",
        "counter",
        "Finished measurements by their status: ok, or the kind of failure.",
        ((dict(zip(("target", "space", "status"), key, strict=True)), n) for key, n in sorted(counts.items())),
    )
    add(
        "incidents_total",
        "counter",
        "Incidents of devices: lost, back, quarantined, failed.",
        (({"device": one.name, "kind": kind}, n) for one in devices for kind, n in sorted(one.incidents.items())),
    )
    gauges = (
        ("device_measuring", "1 if the device is measuring.", lambda one: states[one.name] == "measuring"),
        (
            "device_lost",
            "1 if the device is lost or given up, and not back.",
            lambda one: states[one.name] in ("lost", "given up"),
        ),
        (
            "device_labels_per_minute",
            "Labels a minute over the last five minutes.",
            lambda one: one.rate.per_minute(now) or 0,
        ),
        (
            "device_temperature_celsius",
            "The hottest sensor at the device's last pass.",
            lambda one: one.temperature_c,
        ),
        (
            "device_last_sign_timestamp_seconds",
            "When the device last stored anything.",
            lambda one: one.last_sign or None,
        ),
    )
    for name, text, value in gauges:
        add(name, "gauge", text, (({"device": one.name}, value(one)) for one in devices))
    active = [one for one in watch.sessions.values() if session_state(one, now) != "done"]
    marks = [
        {"target": one.campaign.target, "space": one.campaign.space, "campaign": one.campaign.id,
         "session": str(one.number)}
        for one in active
    ]  # fmt: skip
    add(
        "session_planned",
        "gauge",
        "Networks that an unfinished session is to measure.",
        zip(marks, map(planned, active), strict=True),
    )
    add(
        "session_finished",
        "gauge",
        "Networks of an unfinished session that are finished.",
        zip(marks, (one.ok for one in active), strict=True),
    )
    add("store_read_timestamp_seconds", "gauge", "When the store was last read.", [({}, watch.looked_at)])
    return found


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
