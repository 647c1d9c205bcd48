"""The device's side of loading: networks in the worker's memory, and the verbs `load`, `time`, `profile` and `unload`.

`latlab.harness.devices.loaded_models` is the controller's side: it decides which networks stay loaded.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from latlab.agents import runtimes
from latlab.agents.execution.profiling import profile
from latlab.agents.execution.sampling import repeated, take_device_samples, take_samples, timer_overhead_ns
from latlab.agents.execution.stopping import Rule, Sampling, Warmup, block_size, usual_call_ns
from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.load_request import INPUT_DATA, LoadRequest
from latlab.agents.protocol.messages import Fields
from latlab.agents.protocol.pass_request import MAX_RUNS, PassRequest
from latlab.agents.protocol.profile_request import ProfileRequest
from latlab.agents.system.peak_memory import PeakMemory
from latlab.agents.system.process import Affinity, watchdog
from latlab.agents.system.telemetry import Telemetry
from latlab.agents.workspace.model_store import ModelFolder
from latlab.agents.workspace.verified_files import Signature

if TYPE_CHECKING:
    from latlab.agents.runtimes.base import Array
    from latlab.agents.system.nvml import GPU

__all__ = ["LoadedModels"]

LOAD_LIMIT_S = 1800.0
"""Seconds after which loading counts as hung, and the process ends itself."""
WATCHDOG_GRACE_S = 15.0
"""Seconds past the deadline of a pass after which the runtime hangs in native code, so the process ends itself."""
_ONE_RUN = PassRequest(warmup=0, runs=1)


@dataclass
class _LoadedModel:
    session: runtimes.Session
    request: LoadRequest
    signature: Signature | None
    """State of the file when its content was last checked against the hash."""
    usual_ns: float
    """Usual duration of a call in ns, by the last pass; by the first inference before any pass."""


class LoadedModels:
    """The networks that this worker holds in memory, each under a handle.

    Args:
        models: the folder with the networks' files.
        telemetry: the sensors, which are read before and after each pass.
    """

    def __init__(self, models: ModelFolder, telemetry: Telemetry) -> None:
        self._models, self._telemetry = models, telemetry
        self._affinity = Affinity()
        self._loaded: dict[int, _LoadedModel] = {}
        self._handles = 0
        self._announced = ""
        self._overhead_ns: float | None = None

    def load(self, fields: Fields) -> dict[str, Any]:
        """Open a network in its runtime, run it once, and return its handle, durations in ns, and facts.

        Raises:
            AgentError: the kind says why the network cannot be loaded or run.
        """
        request = LoadRequest.read(fields)
        path = self._models.path(request.sha256, request.suffix)
        signature = self._models.signature(request.sha256, request.suffix)
        with self._naming_network(request.network, "loading"), watchdog(LOAD_LIMIT_S):
            self._affinity.pin(request.affinity)  # before the runtime starts its threads, which inherit it
            started = time.perf_counter_ns()
            runtimes.load_runtime(request.runtime)
            imported = time.perf_counter_ns()
            memory = PeakMemory()
            opening = time.perf_counter_ns()
            session = runtimes.open(request.runtime, path, request.threads, request.accelerator, request.inputs)
            opened = time.perf_counter_ns()
            try:
                session.set_inputs(self._values(session, request))
                (first_ns,), _ = self._samples(session, Sampling(_ONE_RUN), LOAD_LIMIT_S)
            except BaseException:
                session.close()
                raise
        gpu = _gpu(session)
        gc.freeze()  # so that no later collection has to scan the objects that importing a runtime left behind
        self._handles += 1
        self._loaded[self._handles] = _LoadedModel(session, request, signature, first_ns)
        return {
            "handle": self._handles,
            "import_ns": imported - started,
            "load_ns": opened - opening,
            "first_ns": first_ns,
            "memory": memory.grown(),
            "gpu": gpu.index if gpu else None,
            "inputs": [
                {name: value for name, value in vars(spec).items() if value is not None} for spec in session.inputs
            ],
            "runtime_version": session.version,
            "provider": session.provider,
            "delegated": session.delegation and vars(session.delegation),
        }

    def time(self, fields: Fields) -> dict[str, Any]:
        """Take one pass of a loaded network: warm-up, then samples, with telemetry before and after.

        Returns:
            Durations of single calls in ns, `at_s` (seconds on the device's steady clock when the samples began), the
            telemetry, and further facts of the pass (`calls`, `settled`, `warnings`, those of a GPU).

        Raises:
            AgentError: "timeout" after `deadline_s` seconds; "corrupt_artifact" if the file has changed; else the kind
                of the runtime's failure.
        """
        handle = fields.integer("handle", 0, 1 << 53)
        loaded = self._find(handle)
        request = PassRequest.read(fields)
        warmup = Warmup(request)
        deadline_s = fields.number("deadline_s", 0, 86400)
        started = time.perf_counter()
        self._check_file(handle, loaded)
        with self._naming_network(loaded.request.network, "timing"), watchdog(deadline_s + WATCHDOG_GRACE_S):
            self._affinity.pin(loaded.request.affinity)
            gpu = _gpu(loaded.session)
            before = self._telemetry.read()
            warmup_ns, _ = self._samples(loaded.session, warmup, deadline_s)
            calls = self._calls(loaded, warmup_ns, request.overheads)
            at_s = time.perf_counter()
            samples_ns, extra = self._samples(
                loaded.session, Sampling(request), deadline_s - (at_s - started), gpu, calls
            )
            others = gpu.other_processes() if gpu else None
        self._check_file(handle, loaded)
        if samples_ns:
            loaded.usual_ns = usual_call_ns(samples_ns)
        if calls > 1:
            extra["calls"] = calls
        if warmup.settled is not None:
            extra["settled"] = warmup.settled
        if others:
            extra["warnings"] = [others]
        telemetry = {"before": before, "after": self._telemetry.read()}
        return {
            "warmup_ns": warmup_ns,
            "samples_ns": samples_ns,
            "at_s": at_s,
            "telemetry": telemetry,
            **extra,
        }

    def profile(self, fields: Fields) -> dict[str, Any]:
        """Run a loaded network under its runtime's profiler, and return the time of each operator.

        The profiled network is opened apart, so that later passes of the loaded one are as they would be without this.

        Raises:
            AgentError: "bad_request" if the runtime has no profiler; "timeout" after `deadline_s` seconds; else the
                kind of the runtime's failure.
        """
        handle = fields.integer("handle", 0, 1 << 53)
        loaded = self._find(handle)
        request = ProfileRequest.read(fields)
        deadline_s = fields.number("deadline_s", 0, 86400)
        self._check_file(handle, loaded)
        with self._naming_network(loaded.request.network, "profiling"), watchdog(deadline_s + WATCHDOG_GRACE_S):
            self._affinity.pin(loaded.request.affinity)
            deadline_ns = time.perf_counter_ns() + round(deadline_s * 1e9)
            return profile(loaded.session, request, deadline_ns)

    def unload(self, fields: Fields) -> dict[str, Any]:
        """Close the networks of the given handles, and return how many stay loaded."""
        handles = fields.integers("handles", 0, 1 << 53, MAX_RUNS)
        for handle in handles:
            self._find(handle).session.close()
            del self._loaded[handle]
        return {"loaded": len(self._loaded)}

    def _values(self, session: runtimes.Session, request: LoadRequest) -> list[Array]:
        """Return the values of the inputs: those of the request's file, by name or by place, or random ones.

        Raises:
            AgentError: "bad_request" if the file lacks an input, or is not an `.npz` file of plain arrays.
        """
        if request.data is None:
            return session.random_inputs(request.seed)
        import numpy as np

        path = self._models.path(request.data, INPUT_DATA)
        try:
            with np.load(path, allow_pickle=False) as stored:
                names = list(stored)
                return [
                    stored[spec.name if spec.name in names else names[place]]
                    for place, spec in enumerate(session.inputs)
                ]
        except (ValueError, OSError, IndexError, EOFError, BadZipFile) as error:
            raise AgentError("bad_request", f"the input data cannot be used: {error}"[:300]) from error

    def _calls(self, loaded: _LoadedModel, warmup_ns: list[int], overheads: int) -> int:
        """Return the number of calls in one sample; more than 1 only where the host's clock times them."""
        if not overheads or loaded.session.clock is not None:
            return 1
        if self._overhead_ns is None:
            self._overhead_ns = timer_overhead_ns()
        one_ns = usual_call_ns(warmup_ns) if warmup_ns else loaded.usual_ns
        return block_size(one_ns, self._overhead_ns, overheads)

    def _samples(
        self, session: runtimes.Session, rule: Rule, seconds: float, gpu: GPU | None = None, calls: int = 1
    ) -> tuple[list[int], dict[str, Any]]:
        """Return durations of single calls in ns, and the further fields of the reply."""
        deadline_ns = time.perf_counter_ns() + round(seconds * 1e9)
        try:
            with session.running() as invoke:
                if session.clock is None:
                    blocks_ns = take_samples(repeated(invoke, calls), rule, deadline_ns)
                    return blocks_ns if calls == 1 else [round(block / calls) for block in blocks_ns], {}
                taken = take_device_samples(invoke, session.clock, rule, deadline_ns, gpu)
                return taken.samples_ns, taken.report()
        except AgentError:
            raise
        except Exception as error:
            raise session.explain(error) from error

    def _check_file(self, handle: int, loaded: _LoadedModel) -> None:
        """Check that the file behind a handle is still what was loaded: runtimes map it, and read from it at any time.

        Its content is hashed only if its state has changed, which a further hard link does, too.

        Raises:
            AgentError: "corrupt_artifact"; the network is then unloaded.
        """
        signature = self._models.signature(loaded.request.sha256, loaded.request.suffix)
        if signature is None or signature == loaded.signature:
            return
        try:
            self._models.path(loaded.request.sha256, loaded.request.suffix)
        except AgentError as error:
            if error.kind != "corrupt_artifact":
                raise
            loaded.session.close()
            del self._loaded[handle]
            raise AgentError(error.kind, f"{error.message} while it was loaded: push and load it again") from None
        loaded.signature = signature

    @contextmanager
    def _naming_network(self, label: str, doing: str) -> Iterator[None]:
        """Name the network in failures, and on stderr, which is all that a crashed process leaves behind."""
        if label and label != self._announced:
            with suppress(OSError):
                sys.stderr.write(f"latlab-worker: {doing} {label}\n")
                sys.stderr.flush()
            self._announced = label
        try:
            yield
        except AgentError as error:
            if not label or error.kind == "bad_request":
                raise
            raise AgentError(error.kind, f"{error.message} ({label})") from error

    def _find(self, handle: int) -> _LoadedModel:
        if handle not in self._loaded:
            raise AgentError("bad_request", f"nothing is loaded under handle {handle}")
        return self._loaded[handle]


def _gpu(session: runtimes.Session) -> GPU | None:
    """Return the GPU that a session runs on, as NVML sees it; None if it runs on no GPU, or there is no NVML."""
    if session.gpu is None:
        return None
    from latlab.agents.system import nvml

    return nvml.find(session.gpu)
