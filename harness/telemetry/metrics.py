"""Metrics of a network on a device other than its latency: memory, energy, time to load it and of its first run.

Everything is computed from what devices report, of which any part may be missing or nonsense: what is not known is
left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from latlab.harness.telemetry.energy import energy_of
from latlab.harness.telemetry.readings import number
from latlab.harness.telemetry.recorded_pass import RecordedPass

__all__ = ["METRICS", "metrics"]

METRICS = {
    "first_ms": "the first inference, which allocates and compiles what later ones find ready",
    "open_ms": "opening the file in the runtime, before the first inference",
    "file_bytes": "size of the model file",
    "peak_memory_mb": "10^6 bytes by which the process grew at its peak, opening the network and running it once",
    "energy_mj": "energy per inference of all that the meter covers, what it spends at rest included",
}
"""Names of the metrics, with their meaning; the unit is at the end of the name. The row of a label also has those of
`statistics.distribution`."""


def metrics(facts: Mapping[str, Any], passes: Iterable[RecordedPass], file_bytes: int) -> dict[str, float]:
    """Return those of `METRICS` that are known for one network.

    Energy per inference is mean power times mean duration, both over all passes: sum(J) / sum(s between readings)
    * sum(s of inference) / inferences. So the energy that a device spends between a reading of its counters and the
    network's runs does not count as the network's.

    Args:
        facts: what the worker reported when it loaded the network (`LoadedModel.facts`).
        passes: all passes of the network.
        file_bytes: size of its file; 0 if not known.
    """
    found: dict[str, float] = {"file_bytes": float(file_bytes)} if file_bytes > 0 else {}
    for name, key in (("first_ms", "first_ns"), ("open_ms", "load_ns")):
        value = number(facts, key)
        if value is not None and value > 0:
            found[name] = value / 1e6
    peak = number(facts, "memory", "peak_mb")
    if peak is not None and peak > 0:
        found["peak_memory_mb"] = peak
    gpu = number(facts, "gpu")
    joules = measured_s = busy_s = 0.0
    inferences = 0
    for one in passes:
        energy = energy_of(one.telemetry, one.inference_s, None if gpu is None else int(gpu))
        if energy is not None:
            joules, measured_s = joules + energy.joules, measured_s + energy.seconds
            busy_s, inferences = busy_s + one.inference_s, inferences + one.inferences
    if joules > 0 and inferences:
        found["energy_mj"] = 1000 * joules / measured_s * busy_s / inferences
    return found
