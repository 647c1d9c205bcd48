"""Checks of replies. The worker runs on somebody's device: nothing that it sends is believed unchecked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from latlab.agents.protocol.errors import KINDS, AgentError
from latlab.agents.protocol.load_request import MAX_INPUT_NAME, MAX_INPUTS, MAX_SIDES, MAX_SIZE
from latlab.agents.protocol.messages import PROTOCOL, Fields, decode, shortened
from latlab.agents.protocol.pass_request import MAX_CALLS, PassRequest
from latlab.agents.protocol.profile_request import MAX_FUSED, MAX_OPERATORS, MAX_WORD, ProfileRequest
from latlab.agents.workspace.environments import ENVIRONMENT_ID
from latlab.harness.text import _MAX_TEXT, printable

__all__ = ["BrokenReplyError", "check_reply"]

MAX_NS = 10**15
"""Longest duration, eleven days: longer than any inference, and sums of it fit 64 bits."""
MAX_MHZ = 1_000_000
MAX_DISCARDED = 1_000_000
MAX_S = 1e10
"""Highest reading of a steady clock: some 300 years."""
MAX_ID = 1 << 53
MAX_DEPTH = 16
MAX_VALUES = 20_000
MAX_CHARACTERS = 200_000
"""Characters of all text in a reply. The facts of a machine with 1,024 CPUs take a tenth of that."""
MAX_PROFILE_VALUES = 20 * MAX_OPERATORS
MAX_PROFILE_CHARACTERS = 1_600_000
"""The same bounds for a profile: hundreds of characters for each operator."""
_MAX_INTEGER = 1 << 63
_MAX_CPUS = 1 << 16
_SAMPLES = ("warmup_ns", "samples_ns", "launch_ns", "sm_mhz")
_FOLDER_ID = re.compile(r"[0-9a-f]{16}")
_MEAN = re.compile("mean")
_WORD = re.compile(r"[A-Za-z0-9_.-]{0,64}")
_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}[0-9A-Za-z.+]{0,32}")


class BrokenReplyError(ValueError):
    """A line that is not a reply to the request."""


def check_reply(line: bytes, number: int, verb: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a reply except `id` and `ok`, with control characters replaced by spaces.

    Args:
        line: the reply, as JSON.
        number: the id of the request.
        verb: the verb of the request.
        request: the other fields of the request.

    Raises:
        AgentError: the failure that the worker reports.
        BrokenReplyError: the line is not a result of `verb`.
    """
    try:
        message = decode(line)
    except ValueError as error:
        raise BrokenReplyError(f"{error}: {printable(line[:80].decode('utf-8', 'replace'))!r}") from None
    answered = message.get("id")
    if type(answered) is not int or answered != number:
        raise BrokenReplyError(f"it answers request {printable(shortened(answered))}, not {number}")
    if message.get("ok") is False:
        raise _failure(message.get("error"))
    if message.get("ok") is not True:
        raise BrokenReplyError("it says neither ok nor why not")
    try:
        _CHECKS[verb](Fields(message), request)
    except AgentError as error:
        raise BrokenReplyError(printable(error.message)) from None
    samples = {key: message[key] for key in _SAMPLES if key in message} if verb == "time" else {}
    rest = {key: value for key, value in message.items() if key not in samples and key not in ("id", "ok")}
    cleaner = _Cleaner(MAX_PROFILE_VALUES, MAX_PROFILE_CHARACTERS) if verb == "profile" else _Cleaner()
    return {**cleaner.value(rest, 0), **samples}


class _Cleaner:
    """Copies free-form values with bounds on depth, number and text: they go into the store, tables and terminals."""

    def __init__(self, max_values: int = MAX_VALUES, max_characters: int = MAX_CHARACTERS) -> None:
        self._values = self._characters = 0
        self._max_values, self._max_characters = max_values, max_characters

    def value(self, value: Any, depth: int) -> Any:
        self._values += 1
        if depth > MAX_DEPTH:
            raise BrokenReplyError(f"it is nested more than {MAX_DEPTH} deep")
        if self._values > self._max_values or self._characters > self._max_characters:
            raise BrokenReplyError(f"it has more than {self._max_values} values or {self._max_characters} characters")
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return [self.value(one, depth + 1) for one in value]
        if isinstance(value, dict):
            return {self._text(name): self.value(one, depth + 1) for name, one in value.items()}
        if type(value) is int and not -_MAX_INTEGER <= value < _MAX_INTEGER:
            raise BrokenReplyError("it has a number of more than 64 bits")
        return value

    def _text(self, text: str) -> str:
        self._characters += len(text)
        return printable(text)


def _failure(error: object) -> AgentError:
    if not isinstance(error, dict):
        raise BrokenReplyError("it reports a failure without saying which")
    kind, message = error.get("kind"), error.get("message")
    if not isinstance(kind, str) or kind not in KINDS or not isinstance(message, str):
        raise BrokenReplyError(f"it reports a failure of an unknown kind, {printable(shortened(kind))}")
    return AgentError(kind, printable(message))


def _check_hello(reply: Fields, _: Mapping[str, Any]) -> None:
    reply.integer("protocol", PROTOCOL, PROTOCOL)
    reply.integer("pid", 1, MAX_ID)
    reply.string("worker_version", 64)
    cpus = Fields(reply.table("cpus"))
    cpus.optional_integers("affinity", 0, _MAX_CPUS, _MAX_CPUS)
    cpus.optional_integer("count", 1, _MAX_CPUS)
    cpus.optional_string("model", _MAX_TEXT)
    reply.table("fingerprint")
    reply.optional_string("libc", 100)
    if "lease" in reply:
        lease = Fields(reply.table("lease"))
        lease.text("folder", _FOLDER_ID)
        lease.integer("token", 1, MAX_ID)
    if "work" in reply:
        work = Fields(reply.table("work"))
        work.string("folder", 4096)
        for name in ("free_bytes", "total_bytes"):
            work.integer(name, 0, MAX_ID)
    environment = reply.optional_table("environment")
    if environment is not None:
        Fields(environment).text("id", ENVIRONMENT_ID)
        Fields(environment).strings("runtimes", 16, 32)
    # `latlab setup` chooses wheels by these fields and passes them to programs: no other form is let through.
    reply.optional_text("abi", _WORD)
    reply.optional_text("machine", _WORD)
    reply.optional_text("python", _VERSION)
    if "bits" in reply:
        reply.integer("bits", 16, 128)
    if "gpus" in reply:
        reply.tables("gpus", 64)
    runtimes = reply.table("runtimes")
    for name in runtimes:
        runtime = Fields(Fields(runtimes).table(name))
        runtime.optional_string("version", 100)
        runtime.optional_string("why", _MAX_TEXT)


def _check_install(reply: Fields, request: Mapping[str, Any]) -> None:
    if reply.text("environment", ENVIRONMENT_ID) != request["environment"]:
        raise BrokenReplyError("it installed another environment")


def _check_put(reply: Fields, _: Mapping[str, Any]) -> None:
    reply.boolean("have")


def _check_load(reply: Fields, _: Mapping[str, Any]) -> None:
    reply.integer("handle", 0, MAX_ID)
    for name in ("import_ns", "load_ns", "first_ns"):
        reply.integer(name, 0, MAX_NS)
    for name in ("runtime_version", "provider"):
        reply.string(name, 100)
    for spec in map(Fields, reply.tables("inputs", MAX_INPUTS)):
        spec.string("name", MAX_INPUT_NAME)
        spec.string("dtype", 20)
        spec.integers("shape", 1, MAX_SIZE, MAX_SIDES)
        for name in ("low", "high"):
            spec.optional_integer(name, -1 << 63, 1 << 63)


def _check_time(reply: Fields, request: Mapping[str, Any]) -> None:
    asked = PassRequest.read(Fields(dict(request)))
    aggregate = "aggregate" in reply
    for name, fewest, most in (
        ("warmup_ns", asked.warmup, asked.most_warmup),
        ("samples_ns", asked.fewest_runs, asked.most_runs),
    ):
        fewest, most = (min(fewest, 1), min(most, 1)) if aggregate else (fewest, most)
        samples = reply.integers(name, 0, MAX_NS, most)
        if len(samples) < fewest:
            raise BrokenReplyError(f"field {name!r} has {len(samples)} samples, not {fewest}")
    if aggregate:
        _check_aggregate(Fields(reply.table("aggregate")), samples, asked)
    # Accelerators add these fields; `take_device_samples` of the worker describes them.
    runs = len(samples)
    for name, greatest in (("launch_ns", MAX_NS), ("sm_mhz", MAX_MHZ)):
        if name in reply and len(reply.integers(name, 0, greatest, runs)) != runs:
            raise BrokenReplyError(f"field {name!r} has not one value for each of {runs} samples")
    if "at_s" in reply:
        reply.number("at_s", 0, MAX_S)
    if "calls" in reply:
        reply.integer("calls", 2, MAX_CALLS if asked.overheads else 0)
    if "settled" in reply:
        reply.boolean("settled")
    if "discarded" in reply:
        reply.integer("discarded", 0, MAX_DISCARDED)
    if "throttled" in reply:
        reply.boolean("throttled")
    if "warnings" in reply and any(text != printable(text) for text in reply.strings("warnings", 16, 500)):
        raise BrokenReplyError("field 'warnings' has characters that cannot be printed")
    telemetry = Fields(reply.table("telemetry"))
    telemetry.table("before")
    telemetry.table("after")


def _check_profile(reply: Fields, request: Mapping[str, Any]) -> None:
    runs = ProfileRequest.read(Fields(dict(request))).runs
    reply.integer("runs", runs, runs)
    samples = reply.integers("samples_ns", 0, MAX_NS, runs)
    if len(samples) not in (1, runs):  # a program that prints no samples gives the mean of all
        raise BrokenReplyError(f"field 'samples_ns' has {len(samples)} samples, not {runs}")
    kept = reply.integers("kept", 0, len(samples) - 1, runs)
    if not kept or len(set(kept)) != len(kept):
        raise BrokenReplyError("field 'kept' names no inference, or one twice")
    for name in ("overhead_ns", "resolution_ns"):
        reply.integer(name, 0, MAX_NS)
    left_out = Fields(reply.table("left_out"))
    for name in ("operators", "mean_ns"):
        left_out.integer(name, 0, MAX_NS)
    operators = reply.tables("operators", MAX_OPERATORS)
    if not operators:
        raise BrokenReplyError("field 'operators' has no operator")
    for one in map(Fields, operators):
        for name in ("name", "kind", "provider"):
            one.string(name, MAX_WORD)
        for name in ("mean_ns", "median_ns"):
            one.integer(name, 0, MAX_NS)
        one.strings("fused", MAX_FUSED, MAX_WORD)


def _check_aggregate(aggregate: Fields, samples: list[int], asked: PassRequest) -> None:
    """Check the statistics of a runtime that prints no samples: the one sample of its reply is the mean of all runs.

    Extremes, quantiles and the standard deviation are in nanoseconds.
    """
    aggregate.text("statistic", _MEAN)
    aggregate.integer("runs", asked.fewest_runs, MAX_ID if asked.pass_s else asked.runs)
    least, most = aggregate.integer("min_ns", 0, MAX_NS), aggregate.integer("max_ns", 0, MAX_NS)
    for name in ("first_ns", "last_ns", "p5_ns", "median_ns", "p95_ns"):
        if name in aggregate:
            aggregate.integer(name, least, most)
    aggregate.integer("std_ns", 0, MAX_NS)
    slack = 1 + most // 1000  # the mean is printed with few digits
    if not all(least - slack <= sample <= most + slack for sample in samples):
        raise BrokenReplyError("the mean of all runs lies outside of their extremes")


def _check_nothing(_: Fields, __: Mapping[str, Any]) -> None:
    """Accept every result: that of these verbs is free-form, or empty."""


_CHECKS: dict[str, Callable[[Fields, Mapping[str, Any]], None]] = {
    "hello": _check_hello,
    "put": _check_put,
    "load": _check_load,
    "time": _check_time,
    "profile": _check_profile,
    "unload": _check_nothing,
    "install": _check_install,
    "telemetry": _check_nothing,
    "bye": _check_nothing,
}
