"""The networks that a simulated worker has loaded, and the verbs that use them: load, time, profile, unload."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from latlab.agents.execution.operator_report import report
from latlab.agents.execution.stopping import Rule, Sampling, Warmup, block_size, usual_call_ns
from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.load_request import LoadRequest
from latlab.agents.protocol.messages import Fields
from latlab.agents.protocol.pass_request import MAX_RUNS, PassRequest
from latlab.agents.protocol.profile_request import ProfileRequest
from latlab.agents.runtimes.profiler import Operator
from latlab.harness.targets import ACCELERATORS, RUNTIMES
from latlab.harness.transports.simulated.device import SIMULATED, SIMULATED_RUNTIMES, Device
from latlab.harness.transports.simulated.roofline import by_size, network_cost
from latlab.harness.transports.simulated.storage import ModelFile

__all__ = ["SimulatedModels"]

_TIMER_NS = 100.0
"""Nanoseconds to read the clock."""
_IMPORT_S = 0.25
_LOAD_S = 0.002
_READ_BYTES_PER_S = 200e6
_FIRST_FACTOR = 1.5
"""A first inference takes this many times as long as the next ones."""
_FORMATS = {
    "onnx": ("an ONNX file", 0, b"\x08"),
    "tflite": ("a Flatbuffer of TFLite", 4, b"TFL3"),
    "torchscript": ("a TorchScript archive", 0, b"PK"),
}
"""The name of each file format, and the offset and value of its magic bytes."""


class _LoadedModel(NamedTuple):
    """A loaded network."""

    latency_ms: float
    sha256: str
    suffix: str
    label: str
    layers_ms: list[tuple[str, float]] | None
    """The kind and the milliseconds of each layer; None if they are not known."""


class SimulatedModels:
    """The loaded networks of one worker, by handle.

    Args:
        device: the device that the worker runs on.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._imported: set[str] = set()
        self._loaded: dict[int, _LoadedModel] = {}
        self._handles = 0
        self.took_s = 0.0
        """Seconds that the last request took on the device's own clock."""

    def load(self, fields: Fields) -> dict[str, Any]:
        """Load a network and run it once.

        Raises:
            AgentError: as a real worker does.
        """
        asked = LoadRequest.read(fields)
        runtime, accelerator, affinity = asked.runtime, asked.accelerator, asked.affinity
        shape, label = list(asked.inputs[0].shape or ()) if asked.inputs else None, asked.network
        if runtime not in SIMULATED_RUNTIMES:
            raise AgentError(
                "bad_request", f"unknown runtime {runtime!r}; here there are: {', '.join(SIMULATED_RUNTIMES)}"
            )
        if accelerator not in ACCELERATORS:
            raise AgentError("bad_request", f"unknown accelerator {accelerator!r}; known: {', '.join(ACCELERATORS)}")
        cpus = self._device.cpus
        if (affinity is not None and not set(affinity) <= set(cpus)) or affinity == []:
            raise AgentError("bad_request", f"affinity {affinity} is not possible here; usable CPUs: {list(cpus)}")
        with _naming(label):
            file = self._device.storage.find(asked.sha256, asked.suffix)
            self._check_runnable(runtime, file, label, shape)
            batch_size = shape[0] if shape and network_cost(label) else 1
            how = {"batch_size": batch_size, "threads": asked.threads, "size_bytes": file.size}
            latency_ms = self._device.true_latency_ms(label, **how)
            layers_ms = self._device.layers_ms(label, **how)
        import_s = 0.0 if runtime in self._imported else _IMPORT_S
        self._imported.add(runtime)
        load_s = _LOAD_S + file.size / _READ_BYTES_PER_S
        self._device.process.rest(import_s + load_s)
        first_ms = _FIRST_FACTOR * float(self._device.process.samples(latency_ms, 1)[0])
        self.took_s = import_s + load_s + first_ms / 1e3
        self._handles += 1
        self._loaded[self._handles] = _LoadedModel(latency_ms, asked.sha256, asked.suffix, label, layers_ms)
        return {
            "handle": self._handles,
            "import_ns": round(import_s * 1e9),
            "load_ns": round(load_s * 1e9),
            "first_ns": round(first_ms * 1e6),
            "memory": {"peak_mb": _peak_bytes(label, file.size, batch_size) / 1e6, "how": SIMULATED},
            "inputs": [{"name": "input", "shape": shape or [1], "dtype": "float32"}],
            "runtime_version": SIMULATED,
            "provider": SIMULATED,
            "delegated": None,
        }

    def _check_runnable(self, runtime: str, file: ModelFile, label: str, shape: list[int] | None) -> None:
        """Raise `AgentError` if a real runtime would refuse the network."""
        name, offset, magic = _FORMATS.get(RUNTIMES[runtime].format, ("", 0, b""))  # other formats are not looked into
        if not file.head[offset:].startswith(magic):
            raise AgentError("corrupt_artifact", f"the file is not {name}")
        cost, faults = network_cost(label), self._device.config.faults
        if shape is not None and cost is not None and not cost.takes(shape):
            raise AgentError("bad_request", f"the network cannot run as {'x'.join(map(str, shape))}")
        lacking = sorted(cost.layer_kinds & set(faults.unsupported_kinds)) if cost else []
        if lacking or self._device.faults.lacks_operator(file.sha256):
            raise AgentError("unsupported_op", f"operator {lacking[0] if lacking else 'Simulated'} is not implemented")
        params = (cost or by_size(file.size)).params
        if faults.max_params is not None and params > faults.max_params:
            raise AgentError("out_of_memory", f"{params} parameters do not fit; {faults.max_params} would")

    def time(self, fields: Fields) -> dict[str, Any]:
        """Time a pass over a loaded network.

        Raises:
            AgentError: as a real worker does.
        """
        device, process = self._device, self._device.process
        handle = fields.integer("handle", 0, 1 << 53)
        loaded = self._find_loaded(handle)
        asked = PassRequest.read(fields)
        deadline_s = fields.number("deadline_s", 0, 86400)
        with _naming(loaded.label):
            self._check_file(handle, loaded)
        began_s = process.now_s
        process.rest(device.config.rest_ms / 1e3)
        before = device.telemetry()
        warmup = Warmup(asked)
        try:
            with _naming(loaded.label):
                stop_s = process.now_s + deadline_s
                warmup_ns = self._time_runs(loaded.latency_ms, warmup, stop_s)
                usual_ns = usual_call_ns(warmup_ns) if warmup_ns else loaded.latency_ms * 1e6
                calls = block_size(usual_ns, _TIMER_NS, asked.overheads)
                at_s = process.now_s
                most_s = asked.max_pass_s or math.inf
                samples_ns = self._time_runs(loaded.latency_ms, Sampling(asked), stop_s, calls, most_s)
        finally:
            self.took_s = process.now_s - began_s
        after = device.telemetry()
        reply = {
            "warmup_ns": warmup_ns,
            "samples_ns": samples_ns,
            "at_s": at_s,
            "telemetry": {"before": before, "after": after},
        }
        if calls > 1:
            reply["calls"] = calls
        if warmup.settled is not None:
            reply["settled"] = warmup.settled
        if before["throttled"] or after["throttled"]:
            reply["throttled"] = True
        return reply

    def _time_runs(
        self, latency_ms: float, rule: Rule, stop_s: float, calls: int = 1, most_s: float = math.inf
    ) -> list[int]:
        """Run a network until the rule has enough and return durations of a call in ns, one per block of `calls`.

        Args:
            latency_ms: the network's true latency.
            rule: the rule that ends the runs.
            stop_s: the moment on the device's clock after which no run begins.
            calls: runs per block.
            most_s: seconds after which the runs end in any case.

        Raises:
            AgentError: "timeout": `stop_s` passed before the rule had enough.
        """
        process = self._device.process
        began_s = process.now_s
        samples_ns: list[int] = []
        over = not rule.begins
        while not over:
            at_s = process.now_s
            if at_s > stop_s:
                raise AgentError("timeout", f"the deadline passed after {len(samples_ns)} of {rule.goal} runs")
            # As many at once as the rule needs in any case; then one by one, because the rule looks at each.
            wanted = calls if calls > 1 else max(rule.fewest - len(samples_ns), 1)
            limit_s = max(0.0, min(stop_s, began_s + most_s) - at_s)
            durations_ms = process.samples(latency_ms, wanted, limit_s=limit_s)
            ends_s = at_s + np.cumsum(durations_ms) / 1e3
            if calls > 1:
                durations_ms, ends_s = durations_ms.mean(keepdims=True), ends_s[-1:]
            for sample_ms, end_s in zip(durations_ms.tolist(), ends_s.tolist(), strict=True):
                samples_ns.append(max(1, round(sample_ms * 1e6)))
                over = rule.enough(samples_ns[-1] * calls, round((end_s - began_s) * 1e9))
        return samples_ns

    def profile(self, fields: Fields) -> dict[str, Any]:
        """Profile a loaded network: each layer of the cost model has its part of each run.

        Raises:
            AgentError: as a real worker does; "bad_request" if latencies come from a table.
        """
        process = self._device.process
        handle = fields.integer("handle", 0, 1 << 53)
        loaded = self._find_loaded(handle)
        asked = ProfileRequest.read(fields)
        stop_s = process.now_s + fields.number("deadline_s", 0, 86400)
        self._check_file(handle, loaded)
        if not loaded.layers_ms:
            raise AgentError("bad_request", "the latencies of this simulated device are from a table without layers")
        began_s = process.now_s
        try:
            with _naming(loaded.label):
                self._time_runs(loaded.latency_ms, Sampling(PassRequest(0, asked.warmup)), stop_s)
                samples_ns = self._time_runs(loaded.latency_ms, Sampling(PassRequest(0, asked.runs)), stop_s)
        finally:
            self.took_s = process.now_s - began_s
        operators = [
            Operator(f"layer {number}", kind, SIMULATED, tuple(round(ns * ms / loaded.latency_ms) for ns in samples_ns))
            for number, (kind, ms) in enumerate(loaded.layers_ms, 1)
        ]
        return report(operators, samples_ns, 1)

    def unload(self, fields: Fields) -> dict[str, Any]:
        """Forget loaded networks.

        Raises:
            AgentError: a handle is unknown.
        """
        for handle in fields.integers("handles", 0, 1 << 53, MAX_RUNS):
            self._find_loaded(handle)
            del self._loaded[handle]
        return {"loaded": len(self._loaded)}

    def _check_file(self, handle: int, loaded: _LoadedModel) -> None:
        try:
            self._device.storage.check(loaded.sha256, loaded.suffix)
        except AgentError as error:
            del self._loaded[handle]
            raise AgentError(error.kind, f"{error.message} while it was loaded: push and load it again") from None

    def _find_loaded(self, handle: int) -> _LoadedModel:
        if handle not in self._loaded:
            raise AgentError("bad_request", f"nothing is loaded under handle {handle}")
        return self._loaded[handle]


def _peak_bytes(network: str, file_bytes: int, batch_size: int) -> float:
    """Return the peak memory: the file, the weights as the runtime packs them, and the largest layer's activations."""
    cost = network_cost(network) or by_size(file_bytes)
    return file_bytes + float(cost.weight_bytes.sum() + batch_size * cost.moved_bytes.max(initial=0.0))


@contextmanager
def _naming(label: str) -> Iterator[None]:
    """Add the network's name to failures, as real workers do."""
    try:
        yield
    except AgentError as error:
        if not label or error.kind == "bad_request":
            raise
        raise AgentError(error.kind, f"{error.message} ({label})") from error
