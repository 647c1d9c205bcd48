"""The worker for a phone without Python: it runs here and answers requests by running `benchmark_model` there.

`benchmark_model` times runs in a loop of its own and prints their statistics, but no samples. A pass is therefore one
start of the program. Its reply has one sample, the mean of all runs, and an `aggregate` with the other statistics. The
program has flags for numbers of runs and for seconds; it can neither compare the halves of a warm-up nor time calls in
blocks, so these parts of a timing policy have no effect.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latlab.agents.execution.operator_report import report
from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.load_request import LoadRequest
from latlab.agents.protocol.messages import PROTOCOL, SHA256, SUFFIX, WHO, Fields
from latlab.agents.protocol.pass_request import MAX_RUNS, PassRequest
from latlab.agents.protocol.profile_request import ProfileRequest
from latlab.agents.runtimes.profiler import Operator
from latlab.harness.text import printable
from latlab.harness.transports.adb.lease import LOST, PhoneLease
from latlab.harness.transports.adb.phone import SHELL_S, Phone, WorkFolder
from latlab.harness.transports.adb.phone_info import FACTS, TELEMETRY, describe, read_telemetry
from latlab.harness.transports.adb.services import CompletedCommand, TooMuchOutputError
from latlab.harness.transports.base import ChannelTimeoutError, Deadline
from latlab.harness.transports.benchmark_model.input_flags import input_flags
from latlab.harness.transports.benchmark_model.output import (
    BenchmarkOutputError,
    BenchmarkResult,
    Statistics,
    TooFewRunsError,
    parse_operators,
    parse_output,
)

__all__ = ["BenchmarkWorker"]

VERSION = "benchmark-model-1"
"""The version of the way in which the program is run: rows of different versions need not be comparable."""
MAX_BYTES = 2 << 30
"""Most bytes of model files on the device; beyond that the oldest are deleted."""
LOAD_LIMIT_S = 240.0
"""Longest time in seconds for the run that loads a network."""
LEAVE_S = 3.0
"""Seconds before the deadline of a request, in which a program that does not end is killed and that is reported."""
CHANGED = 94
"""The exit status of a run that did not start, because its model file or the program has changed since its check."""
_OWNER = re.compile(r"[0-9a-f]{32}")
_FLAGS = {
    "cpu": ["--use_xnnpack=true"],
    # By default the GPU computes in fp16, but targets are fp32.
    "gpu": ["--use_gpu=true", "--gpu_precision_loss_allowed=false"],
    # NNAPI has an implementation on the CPU for what no accelerator takes.
    "nnapi": ["--use_nnapi=true", "--disable_nnapi_cpu=true"],
}
_DELEGATES = {"cpu": "XNNPACK", "gpu": "GPU", "nnapi": "NNAPI"}
_ONE_EACH = PassRequest(warmup=1, runs=1)
_DISPENSABLE_FLAG = re.compile(r"--use_xnnpack=\S+")
"""Releases without this flag have no XNNPACK; the output shows which delegate ran."""
_ERROR_PATTERNS = (
    ("unsupported_op", ("unresolved custom op", "Didn't find op for builtin", "operations are not supported")),
    ("corrupt_artifact", ("Failed to mmap model", "model identifier", "Failed to load model", "Could not open")),
    ("out_of_memory", ("bad_alloc", "Out of memory", "CL_OUT_OF_HOST_MEMORY", "CL_MEM_OBJECT_ALLOCATION_FAILURE")),
    ("unsupported_op", ("Failed to apply", "failed to prepare")),
)


@dataclass(frozen=True)
class _LoadedModel:
    """A loaded network and how to run it."""

    sha256: str
    suffix: str
    accelerator: str
    threads: int
    affinity: tuple[int, ...] | None
    network: str
    input_flags: tuple[str, ...] = ()
    """Flags that say what the model's file leaves open of its inputs."""


class BenchmarkWorker:
    """Answers requests, one at a time, as `latlab.agents.worker` does.

    Args:
        phone: the phone, connected.
        folder: its work folder.
        binary: the `benchmark_model` for the phone, a file on this machine; None if the inventory names none.
    """

    def __init__(self, phone: Phone, folder: WorkFolder, binary: Path | None) -> None:
        self._phone, self._folder, self._binary = phone, folder, binary
        self._program = ""
        self._lease: PhoneLease | None = None
        self._signatures: dict[str, str] = {}
        """The output of `stat` for each file on the device whose hash was checked, by path."""
        self._cpus: frozenset[int] = frozenset()
        self._loaded: dict[int, _LoadedModel] = {}
        self._handles = 0
        self._verbs = {
            "hello": self._hello,
            "put": self._put,
            "load": self._load,
            "time": self._time,
            "profile": self._profile,
            "unload": self._unload,
            "telemetry": self._telemetry,
            "bye": self._bye,
        }

    def answer(self, verb: str, request: Fields, deadline: Deadline) -> dict[str, Any]:
        """Return the result of a request.

        Raises:
            AgentError: the request is wrong or failed.
            ChannelLostError: the connection to the phone is gone.
            ChannelTimeoutError: the phone does not answer in time.
        """
        if verb not in self._verbs:
            raise AgentError("bad_request", f"unknown verb {verb!r}")
        if verb != "hello":
            if self._lease is None:
                raise AgentError("bad_request", f"{verb!r} came before a hello that succeeded")
            self._lease.stay(deadline.seconds)
        return self._verbs[verb](request, deadline)

    def end(self, deadline: Deadline) -> None:
        """Release the phone."""
        if self._lease is not None:
            self._lease.release(deadline)

    def _hello(self, request: Fields, deadline: Deadline) -> dict[str, Any]:
        request.integer("protocol", PROTOCOL, PROTOCOL)
        owner = request.text("owner", _OWNER) if "owner" in request else None
        who = request.optional_text("who", WHO)
        idle_s = request.number("idle_s", 1, 86400) if "idle_s" in request else 120.0
        if self._lease is None:
            self._lease = PhoneLease(self._phone, self._folder.path, owner, who, idle_s, os.urandom(8).hex())
        found = self._bring_program()
        facts = describe(self._phone.shell(FACTS).output, {"version": found["version"], "build": found.get("sha256")})
        self._cpus = frozenset(facts["cpus"]["affinity"] or ())
        free, total = self._folder.free_bytes, self._folder.total_bytes
        return {
            "protocol": PROTOCOL,
            "worker_version": VERSION,
            "pid": self._lease.pid,
            "lease": {"folder": self._lease.folder, "token": self._lease.token},
            "runtimes": {"benchmark_model": found},
            **({"work": {"folder": self._folder.path, "free_bytes": free, "total_bytes": total}} if total else {}),
            **facts,
        }

    def _bring_program(self) -> dict[str, str | None]:
        """Copy the program to the phone and return its version, or why there is none.

        The program reports no version, so its hash stands for one.
        """
        if self._binary is None:
            return {"version": None, "why": "name the file with `benchmark_model` in the inventory"}
        try:
            sha256 = hashlib.sha256(self._binary.read_bytes()).hexdigest()
        except OSError as error:
            return {"version": None, "why": f"{self._binary} cannot be read: {error.strerror}"}
        program = f"{self._folder.path}/benchmark_model-{sha256[:16]}"
        try:
            self._phone.bring(self._binary, program, sha256)
        except OSError as error:
            return {"version": None, "why": f"it cannot be brought to the device: {error.strerror}"}
        ran = self._phone.shell(f"{shlex.quote(program)} --help 2>&1")
        if ran.status in (126, 127) or b"not executable" in ran.output:
            said = printable(ran.output.decode("utf-8", "replace").strip().rpartition("\n")[2])[:300]
            return {"version": None, "why": f"{self._binary} does not start there (made for another ABI?): {said}"}
        self._program = program
        self._signatures[program] = self._signature(program)
        return {"version": sha256[:16], "sha256": sha256, "why": None}

    def _put(self, request: Fields, _: Deadline) -> dict[str, Any]:
        sha256, suffix = request.text("sha256", SHA256), request.text("suffix", SUFFIX)
        size = request.integer("size", 0, 1 << 40)
        there, arrived = self._model(sha256, suffix), f"{self._folder.path}/incoming/{sha256}"
        signature = self._signature(there)
        if signature and signature == self._signatures.get(there):
            return {"have": True}
        if signature and self._hash(there, size) == sha256:
            self._signatures[there] = signature
            return {"have": True}
        if self._size(arrived) < size:  # there is no file, or a part of one
            return {"have": False}
        digest = self._hash(arrived, size)
        if digest != sha256:
            self._phone.shell(f"rm -f {shlex.quote(arrived)}")
            raise AgentError("corrupt_artifact", f"the file arrived with hash {str(digest)[:12]}..., not {sha256[:12]}")
        self._guarded(f"mv -f {shlex.quote(arrived)} {shlex.quote(there)}", SHELL_S)
        self._signatures[there] = self._signature(there)
        self._evict(keep=there)
        return {"have": True}

    def _load(self, request: Fields, deadline: Deadline) -> dict[str, Any]:
        asked = LoadRequest.read(request)
        if asked.runtime != "benchmark_model" or not self._program:
            raise AgentError("runtime_missing", "this device's only runtime is benchmark_model")
        if asked.accelerator not in _FLAGS:
            raise AgentError(
                "bad_request", f"benchmark_model runs on {', '.join(_FLAGS)}, not on {asked.accelerator!r}"
            )
        accelerator, affinity = asked.accelerator, asked.affinity
        if asked.data is not None:
            raise AgentError("bad_request", "benchmark_model takes no input data here: leave out --input-data")
        one = _LoadedModel(
            asked.sha256,
            asked.suffix,
            accelerator,
            asked.threads,
            None if affinity is None else tuple(affinity),
            printable(asked.network),
            tuple(input_flags(asked.inputs)),
        )
        if affinity is not None and (not affinity or not self._cpus.issuperset(affinity)):
            raise AgentError("bad_request", f"field 'affinity' must name some of the usable CPUs, {sorted(self._cpus)}")
        if self._model(one.sha256, one.suffix) not in self._signatures:
            raise AgentError("missing_artifact", f"the network {one.sha256[:12]}... is not on the device: put it first")
        result = self._run(one, _ONE_EACH, min(LOAD_LIMIT_S, deadline.left - LEAVE_S))
        self._handles += 1
        self._loaded[self._handles] = one
        delegation = result.delegation(_DELEGATES[accelerator])
        known = delegation is not None and delegation.operators is not None
        return {
            "handle": self._handles,
            "import_ns": 0,
            "load_ns": round(result.init_us * 1000),
            "first_ns": round(result.first_us * 1000),
            "memory": None
            if result.memory_mib is None
            else {"peak_mb": result.memory_mib * 2**20 / 1e6, "how": "benchmark_model"},
            "inputs": [],  # the program does not print them
            "runtime_version": Path(self._program).name.rpartition("-")[2],
            "provider": delegation.delegate if delegation else "TFLite reference kernels",
            "delegated": {
                "operators": delegation.operators,
                "delegated": delegation.delegated,
                "partitions": delegation.partitions,
            }
            if delegation and known
            else None,
        }

    def _time(self, request: Fields, deadline: Deadline) -> dict[str, Any]:
        loaded = self._find_loaded(request.integer("handle", 0, 1 << 53))
        request.integer("runs", 1, MAX_RUNS)
        asked = PassRequest.read(request)
        if asked.stop:
            raise AgentError("bad_request", f"benchmark_model prints no samples that {asked.stop!r} could look at")
        deadline_s = request.number("deadline_s", 0, 86400)
        before = self._telemetry(request, deadline)
        result = self._run(loaded, asked, min(deadline_s, deadline.left - LEAVE_S))
        # On the clock of this machine, where this worker runs. The runs are the last thing that the program does.
        at_s = time.perf_counter() - result.inference.mean * result.inference.count / 1e6
        return {
            "warmup_ns": [round(result.warmup.mean * 1000)] if result.warmup.count else [],
            "samples_ns": [round(result.inference.mean * 1000)],
            "at_s": max(0.0, at_s),
            "aggregate": _aggregate(result.inference),
            "telemetry": {"before": before, "after": self._telemetry(request, deadline)},
        }

    def _profile(self, request: Fields, deadline: Deadline) -> dict[str, Any]:
        """Run the program once with its operator profiling on. It prints means of all runs, which stand for each."""
        loaded = self._find_loaded(request.integer("handle", 0, 1 << 53))
        asked = ProfileRequest.read(request)
        deadline_s = request.number("deadline_s", 0, 86400)
        runs = PassRequest(warmup=asked.warmup, runs=asked.runs)
        result, text = self._start(
            loaded, runs, min(deadline_s, deadline.left - LEAVE_S), ["--enable_op_profiling=true"]
        )
        try:
            rows = parse_operators(text)
        except BenchmarkOutputError as error:
            raise AgentError("crash", f"benchmark_model's profile cannot be read: {error}"[:1000]) from None
        provider = _DELEGATES[loaded.accelerator]
        operators = [
            Operator(row.name, row.kind, provider if row.delegate else "TFLite kernels", (round(row.mean_ms * 1e6),))
            for row in rows
        ]
        return {**report(operators, [round(result.inference.mean * 1000)], 1000), "runs": asked.runs}

    def _unload(self, request: Fields, _: Deadline) -> dict[str, Any]:
        for handle in request.integers("handles", 0, 1 << 53, MAX_RUNS):
            self._find_loaded(handle)
            del self._loaded[handle]
        return {"loaded": len(self._loaded)}

    def _telemetry(self, _: Fields, __: Deadline) -> dict[str, Any]:
        return read_telemetry(self._phone.shell(TELEMETRY).output)

    def _bye(self, _: Fields, __: Deadline) -> dict[str, Any]:
        return {}

    def _run(self, one: _LoadedModel, asked: PassRequest, seconds: float) -> BenchmarkResult:
        """Run the program once, and return its result; arguments and errors are those of `_start`."""
        return self._start(one, asked, seconds, [])[0]

    def _start(
        self, one: _LoadedModel, asked: PassRequest, seconds: float, further: Sequence[str]
    ) -> tuple[BenchmarkResult, str]:
        """Run the program once, and return its result and its output.

        Args:
            one: the network and how to run it.
            asked: the numbers of runs and the seconds that they may last.
            seconds: the longest time that the program may take.
            further: more flags.

        Raises:
            AgentError: it failed, timed out, or did not run as asked.
        """
        seconds = max(seconds, 1.0)
        capped = 0 < asked.max_pass_s < seconds
        model = self._model(one.sha256, one.suffix)
        flags = [
            f"--graph={model}",
            f"--num_threads={one.threads}",
            f"--warmup_runs={asked.warmup}",
            f"--warmup_min_secs={asked.warmup_s:g}",
            f"--num_runs={asked.runs}",
            f"--min_secs={asked.pass_s:g}",  # with 0, `num_runs` is the exact number of runs, not the least
            f"--max_secs={asked.max_pass_s if capped else seconds:.3f}",
            *_FLAGS[one.accelerator],
            *one.input_flags,
            *further,
        ]
        # The taskset of toybox and that of busybox both take hexadecimal digits without a prefix.
        pin = [] if one.affinity is None else ["taskset", f"{sum(1 << cpu for cpu in set(one.affinity)):x}"]
        command = " ".join(shlex.quote(word) for word in [*pin, self._program, *flags])
        files = [self._program, model]
        check = f'[ "$({_stat(*files)})" = {shlex.quote(self._expected(*files))} ] || exit {CHANGED}'
        try:
            ran = self._guarded(f"{check}\nexec {command}", seconds + LEAVE_S / 2)
        except ChannelTimeoutError:
            if self._phone.connection is not None and self._phone.connection.lost:
                raise
            raise AgentError("timeout", f"benchmark_model was not through within {seconds:g} s") from None
        except TooMuchOutputError as error:
            raise AgentError("crash", str(error)) from None
        if ran.status == CHANGED:
            self._signatures.pop(model, None)
            self._bring_program()  # in case it was the program that changed
            raise AgentError("corrupt_artifact", f"the network {one.sha256[:12]}... has changed on the device")
        text = f"{ran.output.decode('utf-8', 'replace')}\n{ran.errors.decode('utf-8', 'replace')}"
        if ran.status:
            raise _failure(ran, text, one)
        try:
            timed = asked.warmup_s > 0, asked.pass_s > 0
            result = parse_output(text, warmup=asked.warmup, runs=asked.runs, timed=timed, capped=capped)
        except TooFewRunsError as error:
            raise AgentError("timeout", f"the deadline passed: {error}") from None
        except BenchmarkOutputError as error:
            raise AgentError("crash", f"benchmark_model's output cannot be believed: {error}"[:1000]) from None
        _check_flags(result)
        _check_delegate(result, one.accelerator)
        return result, text

    def _guarded(self, command: str, seconds: float) -> CompletedCommand:
        assert self._lease is not None
        ran = self._phone.shell(self._lease.guard(command), seconds)
        if ran.status == LOST:
            self._lease.check(ran.status)
        return ran

    def _model(self, sha256: str, suffix: str) -> str:
        return f"{self._folder.path}/models/{sha256}{suffix}"

    def _hash(self, path: str, size: int) -> str | None:
        try:
            return self._phone.sha256(path, size)
        except OSError as error:
            raise AgentError("crash", error.strerror or str(error)) from None

    def _signature(self, path: str) -> str:
        """Return the output of `stat`, which changes when the file does; "" where there is no file."""
        return self._phone.shell(f"{_stat(path)} 2>/dev/null").output.decode("ascii", "replace").strip()

    def _size(self, path: str) -> int:
        """Return the size of a file in bytes, or -1 where there is none."""
        words = self._signature(path).split()
        return int(words[1]) if len(words) == 4 and words[1].isdecimal() else -1

    def _expected(self, *paths: str) -> str:
        return "\n".join(self._signatures.get(path, "") for path in paths)

    def _evict(self, keep: str) -> None:
        folder = shlex.quote(f"{self._folder.path}/models")
        listed = self._phone.shell(f"cd {folder} && stat -c '%Y %s %n' *").output.decode("utf-8", "replace")
        found = re.findall(r"(?m)^([0-9]{1,15}) ([0-9]{1,15}) ([0-9a-f]{64}\.[a-z]{1,10})$", listed)
        total = sum(int(size) for _, size, _ in found)
        for _, size, name in sorted(found, key=lambda one: int(one[0])):
            path = f"{self._folder.path}/models/{name}"
            if total > MAX_BYTES and path != keep:
                self._phone.shell(f"rm -f {shlex.quote(path)}")
                self._signatures.pop(path, None)
                total -= int(size)

    def _find_loaded(self, handle: int) -> _LoadedModel:
        if handle not in self._loaded:
            raise AgentError("bad_request", f"nothing is loaded under handle {handle}")
        return self._loaded[handle]


def _stat(*paths: str) -> str:
    return f"stat -c '%i %s %Y %Z' {' '.join(map(shlex.quote, paths))}"


def _aggregate(one: Statistics) -> dict[str, Any]:
    values = {
        "first_ns": one.first,
        "last_ns": one.last,
        "min_ns": one.least,
        "max_ns": one.most,
        "std_ns": one.deviation,
        "p5_ns": one.p5,
        "median_ns": one.median,
        "p95_ns": one.p95,
    }
    known = {name: round(value * 1000) for name, value in values.items() if value is not None}
    return {"statistic": "mean", "runs": one.count, **known}


def _check_flags(result: BenchmarkResult) -> None:
    unknown = _DISPENSABLE_FLAG.sub("", result.unknown_flags).strip()
    if unknown:
        raise AgentError("runtime_missing", f"this benchmark_model does not know {unknown[:200]}: take a later release")


def _check_delegate(result: BenchmarkResult, accelerator: str) -> None:
    """Raise `AgentError` unless the accelerator runs the whole network: a part on the CPU would distort the latency."""
    if accelerator == "cpu":
        return
    name = _DELEGATES[accelerator]
    one = result.delegation(name)
    if one is None:
        raise AgentError("runtime_missing", f"the {name} delegate took nothing of the network: it would run on the CPU")
    if accelerator == "nnapi" and set(result.nnapi_accelerators) == {"nnapi-reference"}:
        raise AgentError("runtime_missing", "NNAPI has no accelerator there, only its reference, which is on the CPU")
    if not one.whole:
        share = f"{one.delegated} of {one.operators}" if one.operators else "some"
        raise AgentError("unsupported_op", f"the {name} delegate took {share} operators, the CPU would run the others")


def _failure(ran: CompletedCommand, text: str, one: _LoadedModel) -> AgentError:
    """Return the error for a run that ended with a failure."""
    where = f" (network {one.network})" if one.network else ""
    if ran.status in (126, 127):
        return AgentError("runtime_missing", f"it cannot be started: {printable(text.strip()[-300:])}")
    if ran.status == 128 + 9:
        return AgentError("out_of_memory", f"benchmark_model was killed, most likely for want of memory{where}")
    errors = [line.strip() for line in text.splitlines() if "ERROR" in line or "rror:" in line] or [text.strip()[-300:]]
    words = printable(" ".join(errors)[:500])
    for kind, signs in _ERROR_PATTERNS:
        if any(sign in text for sign in signs):
            return AgentError(kind, f"{words}{where}")
    how = "" if ran.status is None else f" with status {ran.status}"
    return AgentError("crash", f"benchmark_model ended{how}{where}: {words}")
