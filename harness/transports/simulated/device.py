"""The state of a simulated device, which outlives its workers: speed, clock, temperature, disk and faults."""

from __future__ import annotations

import hashlib
import json
import math
import weakref
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
from latlab.harness.transports.simulated.roofline import LAYER_KINDS, Roofline, by_size, network_cost, spellings
from latlab.harness.transports.simulated.storage import Folder, Memory, Storage

__all__ = ["SIMULATED", "SIMULATED_RUNTIMES", "Device", "simulated_device"]

SIMULATED_RUNTIMES = tuple(name for name, runtime in RUNTIMES.items() if runtime.in_worker)
SIMULATED = "simulated"
"""The text in place of a real device's software and hardware, so that no row can pass for a measurement."""
_DEVICES: dict[int, dict[str, Device]] = {}
"""The devices of each living configuration, by its `id`: two equal configurations describe two devices."""


def simulated_device(name: str, config: SimulatedDevice) -> Device:
    """Return the device of this name and configuration; it keeps its state for as long as the configuration lives.

    Raises:
        BadInputError: its table of latencies cannot be read.
    """
    devices = _DEVICES.get(id(config))
    if devices is None:
        devices = _DEVICES.setdefault(id(config), {})
        weakref.finalize(config, _DEVICES.pop, id(config), None).atexit = False
    device = devices.get(name)
    if device is None:  # a copy, because a device that holds the configuration would keep it alive for ever
        device = devices.setdefault(name, Device(name, config.model_copy()))
    return device


class Device:
    """A simulated device.

    Args:
        name: its name in the inventory; part of the seed, so that devices differ although none of them names a seed.
        config: its entry in the inventory.

    Raises:
        BadInputError: its table of latencies cannot be read.
    """

    def __init__(self, name: str, config: SimulatedDevice) -> None:
        self.name, self.config = name, config
        seed = (config.seed, zlib.crc32(name.encode()))
        self.process = LatencyProcess(config.noise, config.heating, (*seed, 1))
        self.faults = FaultPlan(config.faults, (*seed, 3))
        self.refuses = False
        """True if every login is refused."""
        self.unreachable = 0
        """The number of attempts to connect that will fail."""
        self._roofline = Roofline(config.cost, (*seed, 2))
        self._table = read_table(config.table, config.column) if config.table else None
        self._kind = KINDS[config.kind]

    @cached_property
    def storage(self) -> Storage:
        """The device's disk.

        Raises:
            OSError: its folder cannot be made.
        """
        return Folder(self.config.work.absolute()) if self.config.work else Memory()

    @property
    def cpus(self) -> range:
        """The numbers of its CPUs."""
        return range(self._kind.cpus)

    def true_latency_ms(self, network: str, *, batch_size: int = 1, threads: int = 1, size_bytes: int = 0) -> float:
        """Return the mean latency without drift, slow clocks, other programs, heat and outliers.

        Args:
            network: "SPACE/ARCH"; any other text is a model of the user's own, whose cost follows from its size.
            batch_size: inputs per run.
            threads: threads of the runtime.
            size_bytes: the size of the model file.

        Raises:
            AgentError: the device's table lacks the network.
        """
        if self._table is not None:
            return self._table_latency_ms(network, self._table)
        cost = network_cost(network) or by_size(size_bytes)
        return self._roofline.latency_ms(cost, batch_size, threads)

    def layers_ms(
        self, network: str, *, batch_size: int = 1, threads: int = 1, size_bytes: int = 0
    ) -> list[tuple[str, float]] | None:
        """Return the kind and the milliseconds of each layer; None if latencies come from a table, which has no layers.

        The arguments are those of `true_latency_ms`, of which this is the detail.
        """
        if self._table is not None:
            return None
        cost = network_cost(network) or by_size(size_bytes)
        times = self._roofline.layers_ms(cost, batch_size, threads)
        return [(LAYER_KINDS[kind], float(ms)) for kind, ms in zip(cost.kinds, times, strict=True)]

    def inject(self, kind: FaultKind, *, after_requests: int = 0, verb: Verb | None = None, connects: int = 0) -> None:
        """Schedule a fault, counted from now; the arguments are the fields of `ScheduledFault`."""
        self.faults.add(ScheduledFault(kind=kind, after_requests=after_requests, verb=verb, connects=connects))

    def heal(self) -> None:
        """Cancel all scheduled and injected faults, and make the device reachable again."""
        self.faults.clear()
        self.refuses, self.unreachable = False, 0

    def facts(self) -> dict[str, Any]:
        """Return the device's part of a worker's `hello`."""
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
        """Return the device's state, under the names that real devices use."""
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
        """Return the energy turned into heat; at rest it is none above what holds the ambient temperature."""
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

    def _table_latency_ms(self, network: str, table: dict[str, float]) -> float:
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
