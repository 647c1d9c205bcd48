"""What there is of a simulated device when no worker runs on it: its speed, its clock, its disk, its bad days."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from functools import cached_property
from typing import Any

from latlab.agents.protocol.errors import AgentError
from latlab.harness.targets import RUNTIMES
from latlab.harness.transports.simulated.config import FaultKind, ScheduledFault, SimulatedDevice, Verb
from latlab.harness.transports.simulated.faults import FaultPlan
from latlab.harness.transports.simulated.latency_process import LatencyProcess
from latlab.harness.transports.simulated.latency_table import read_table
from latlab.harness.transports.simulated.presets import KINDS
from latlab.harness.transports.simulated.roofline import Roofline, by_size, network_cost, spellings
from latlab.harness.transports.simulated.storage import Folder, Memory, Storage

__all__ = ["SIMULATED", "SIMULATED_RUNTIMES", "Device"]

SIMULATED_RUNTIMES = tuple(name for name, runtime in RUNTIMES.items() if runtime.in_worker)
SIMULATED = "simulated"
"""What stands wherever a real device names its software, so that no row can pass for a measurement."""


class Device:
    """One simulated device.

    Args:
        name: part of the seed, so that the devices of an inventory differ although none of them names a seed.

    Raises:
        BadInputError: where its table cannot be read.
    """

    def __init__(self, name: str, config: SimulatedDevice) -> None:
        self.name, self.config = name, config
        seed = (config.seed, zlib.crc32(name.encode()))
        self.process = LatencyProcess(config.noise, config.heating, (*seed, 1))
        self.faults = FaultPlan(config.faults, (*seed, 3))
        self.refuses = False
        """Whether it lets nobody in any more."""
        self.unreachable = 0
        """Attempts to connect that will fail."""
        self._roofline = Roofline(config.cost, (*seed, 2))
        self._table = read_table(config.table, config.column) if config.table else None
        self._kind = KINDS[config.kind]

    @cached_property
    def storage(self) -> Storage:
        """Raises `OSError` where its folder cannot be made."""
        return Folder(self.config.work.absolute()) if self.config.work else Memory()

    @property
    def cpus(self) -> range:
        """Numbers of its CPUs."""
        return range(self._kind.cpus)

    def true_latency_ms(self, network: str, *, batch_size: int = 1, threads: int = 1, size_bytes: int = 0) -> float:
        """What a run takes on average but for drift, clocks, neighbours, heat and outliers.

        Args:
            network: "SPACE/ARCH"; any other text is a model of the user's own, known by the size of its file.

        Raises:
            AgentError: for a network that the device's table lacks.
        """
        if self._table is not None:
            return self._looked_up_ms(network, self._table)
        cost = network_cost(network) or by_size(size_bytes)
        return self._roofline.latency_ms(cost, batch_size, threads)

    def inject(self, kind: FaultKind, *, after_requests: int = 0, verb: Verb | None = None, connects: int = 0) -> None:
        """A fault to come, counting from now; the fields are those of `ScheduledFault`."""
        self.faults.add(ScheduledFault(kind=kind, after_requests=after_requests, verb=verb, connects=connects))

    def heal(self) -> None:
        """Nothing that was scheduled or injected comes any more, and the device can be reached."""
        self.faults.clear()
        self.refuses, self.unreachable = False, 0

    def facts(self) -> dict[str, Any]:
        """What a worker's `hello` tells of the device."""
        kind = self._kind
        return {
            SIMULATED: True,
            "python": None,
            "executable": SIMULATED,
            "platform": SIMULATED,
            "machine": SIMULATED,
            "libc": None,
            "cpus": {
                "count": kind.cpus,
                "model": kind.title,
                "governor": [SIMULATED],
                "max_mhz": [float(kind.clock_mhz)],
                "affinity": list(self.cpus),
            },
            "gpus": [],
            "memory_bytes": kind.memory_gb << 30,
            "runtimes": {
                name: {"version": SIMULATED, "package": SIMULATED, "why": None} for name in SIMULATED_RUNTIMES
            },
            "clock_resolution_ns": 1,
            "fingerprint": {**self._identity, "id": self._identity_hash},
        }

    def telemetry(self) -> dict[str, Any]:
        """What the device tells of its state, under the names that real ones use."""
        process, kind = self.process, self._kind
        neighbour = process.neighbour is not None and process.neighbour.on
        return {
            SIMULATED: True,
            "temperature_c": {"soc": round(process.heat.temperature_c, 3)} if process.heat else None,
            "frequency_mhz": [round(kind.clock_mhz / process.clock_factor, 3)],  # all cores share it
            "clock_limit_mhz": [round(kind.clock_mhz / (process.heat.factor if process.heat else 1.0), 3)],
            "governor": [SIMULATED],
            "throttled": int(process.heat.throttled) if process.heat else None,
            "load": [2.0 if neighbour else 1.0],
            "memory_mb": {"peak": 100.0, "available": kind.memory_gb * 1000.0},
            "device_clock_s": round(process.now_s, 6),
            "energy": self._energy(),
        }

    def _energy(self) -> dict[str, Any] | None:
        """What becomes heat; at rest it spends nothing beyond what keeps it at its ambient temperature."""
        if self.process.heat is None:
            return None
        return {"at_s": self.process.now_s, "uj": {SIMULATED: round(1e6 * self.process.heat.joules)}, "mw": {}}

    @cached_property
    def _identity(self) -> dict[str, Any]:
        what = {"kind", "seed", "cost", "table", "column", "noise", "heating"}
        values = self.config.model_dump(mode="json", include=what, exclude_none=True)
        return {SIMULATED: True, "name": self.name, **values}

    @cached_property
    def _identity_hash(self) -> str:
        return hashlib.sha256(json.dumps(self._identity, sort_keys=True).encode()).hexdigest()[:16]

    def _looked_up_ms(self, network: str, table: dict[str, float]) -> float:
        for text in spellings(network):
            if text in table:
                if not math.isfinite(table[text]):
                    raise AgentError("unsupported_op", f"{self.config.table} has no latency of {text}")
                return table[text]
        raise AgentError(
            "bad_request",
            f"{network[:200] or 'a network without a name'} is not in {self.config.table}: choose networks that are, "
            "or leave out `table`",
        )
