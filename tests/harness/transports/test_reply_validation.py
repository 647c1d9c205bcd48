"""Checks of replies, on replies that go wrong in every way that a generator thinks of."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fuzz.mutations import Edit
from fuzz.replies import check_spoiled_reply
from fuzz.sample_replies import COMPLETE, REQUEST, REQUIRED
from hypothesis import given, settings
from hypothesis import strategies as st

from latlab.agents.protocol.errors import AgentError
from latlab.harness.text import printable
from latlab.harness.transports.reply_validation import BrokenReplyError, check_reply

CHECKED = [(verb, field) for verb, reply in REQUIRED.items() for field in reply]
OF_A_GPU = COMPLETE["time"]
PROFILE = COMPLETE["profile"]
OPERATOR = PROFILE["operators"][0]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


def line(message: object) -> bytes:
    return json.dumps(message).encode()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("runs", 3),
        ("samples_ns", [5, 6, 7]),
        ("samples_ns", []),
        ("kept", []),
        ("kept", [0, 0]),
        ("kept", [2]),
        ("operators", []),
        ("operators", [OPERATOR] * 2001),
        ("operators", ["Conv"]),
        ("mean_ns", -1),
        ("mean_ns", 10**16),
        ("median_ns", 1.5),
        ("name", "x" * 201),
        ("kind", None),
        ("provider", ["x"]),
        ("fused", ["x"] * 17),
        ("fused", "Conv"),
        ("left_out", {"operators": -1, "mean_ns": 0}),
        ("overhead_ns", None),
        ("resolution_ns", "1 us"),
    ],
)
def test_a_profile_is_checked(field: str, value: object) -> None:
    spoiled = {"operators": [{**OPERATOR, field: value}]} if field in OPERATOR else {field: value}
    with pytest.raises(BrokenReplyError):
        check_reply(line({"id": 4, "ok": True, **PROFILE, **spoiled}), 4, "profile", REQUEST)


def test_a_large_profile_passes_and_one_that_is_too_large_does_not() -> None:
    names = [{**OPERATOR, "name": f"{number}" * 40, "fused": []} for number in range(1000, 3000)]
    reply = {**PROFILE, "operators": names}
    assert check_reply(line({"id": 4, "ok": True, **reply}), 4, "profile", REQUEST) == reply
    with pytest.raises(BrokenReplyError, match="characters"):
        check_reply(
            line({"id": 4, "ok": True, **reply, "operators": [{**one, "fused": ["x" * 200] * 5} for one in names]}),
            4,
            "profile",
            REQUEST,
        )


def test_the_names_of_operators_become_printable() -> None:
    reply = {**PROFILE, "operators": [{**OPERATOR, "name": "a\x1b[31mb", "fused": ["\n"]}]}
    (found,) = check_reply(line({"id": 4, "ok": True, **reply}), 4, "profile", REQUEST)["operators"]
    assert (found["name"], found["fused"]) == ("ab", [" "])


@pytest.mark.parametrize("reply", [REQUIRED, COMPLETE], ids=["required", "complete"])
@pytest.mark.parametrize("verb", REQUIRED)
def test_a_good_reply(verb: str, reply: dict[str, dict[str, Any]]) -> None:
    assert check_reply(line({"id": 4, "ok": True, **reply[verb]}), 4, verb, REQUEST) == reply[verb]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("launch_ns", [1]),
        ("launch_ns", [1, 2, 3]),
        ("launch_ns", [1, -2]),
        ("launch_ns", [1, 2.5]),
        ("launch_ns", None),
        ("sm_mhz", [1980]),
        ("sm_mhz", [1980, 10**9]),
        ("sm_mhz", {}),
        ("discarded", -1),
        ("discarded", True),
        ("discarded", 10**9),
        ("throttled", 1),
        ("warnings", "hot"),
        ("warnings", [7]),
        ("warnings", ["x"] * 17),
        ("warnings", ["x" * 501]),
        ("warnings", ["\x1b[31mred"]),
    ],
)
def test_what_a_gpu_adds_is_checked(field: str, value: object) -> None:
    with pytest.raises(BrokenReplyError, match=field):
        check_reply(line({"id": 4, "ok": True, **OF_A_GPU, field: value}), 4, "time", REQUEST)


RULED: dict[str, Any] = {"warmup": 1, "runs": 2, "max_warmup": 4, "pass_s": 1.0, "max_runs": 5, "overheads": 100}
BY_RULES: dict[str, Any] = {
    **REQUIRED["time"],
    "warmup_ns": [9, 8],
    "samples_ns": [5, 6, 7],
    "at_s": 12345.678,
    "calls": 17,
    "settled": False,
}


def test_a_good_reply_of_a_pass_that_rules_ended() -> None:
    assert check_reply(line({"id": 4, "ok": True, **BY_RULES}), 4, "time", RULED) == BY_RULES


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("warmup_ns", []),
        ("warmup_ns", [9] * 5),
        ("samples_ns", [5]),
        ("samples_ns", [5] * 6),
        ("at_s", -1),
        ("at_s", 1e300),
        ("at_s", "now"),
        ("at_s", None),
        ("calls", 1),
        ("calls", 10**9),
        ("calls", 2.5),
        ("settled", 1),
    ],
)
def test_what_rules_add_is_checked(field: str, value: object) -> None:
    with pytest.raises(BrokenReplyError, match=field):
        check_reply(line({"id": 4, "ok": True, **BY_RULES, field: value}), 4, "time", RULED)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"max_warmup": None}, "warmup_ns"),
        ({"pass_s": None}, "samples_ns"),
        ({"overheads": None}, "calls"),
    ],
)
def test_nobody_does_more_than_was_asked_for(change: dict[str, Any], field: str) -> None:
    with pytest.raises(BrokenReplyError, match=field):
        check_reply(line({"id": 4, "ok": True, **BY_RULES}), 4, "time", {**RULED, **change})


def test_a_pass_that_its_seconds_ended_has_one_sample_at_least() -> None:
    request = {"warmup": 0, "runs": 50, "max_pass_s": 1.0}
    reply = {**REQUIRED["time"], "warmup_ns": []}
    assert check_reply(line({"id": 4, "ok": True, **reply}), 4, "time", request) == reply
    with pytest.raises(BrokenReplyError, match="0 samples, not 1"):
        check_reply(line({"id": 4, "ok": True, **reply, "samples_ns": []}), 4, "time", request)


@pytest.mark.parametrize("gpus", [None, {}, [3], [{}] * 65])
def test_gpus_are_a_list_of_objects(gpus: object) -> None:
    good = {**REQUIRED["hello"], "gpus": [{"name": "NVIDIA H200"}]}
    assert check_reply(line({"id": 4, "ok": True, **good}), 4, "hello", REQUEST) == good
    with pytest.raises(BrokenReplyError, match="gpus"):
        check_reply(line({"id": 4, "ok": True, **good, "gpus": gpus}), 4, "hello", REQUEST)


@pytest.mark.parametrize(("verb", "field"), CHECKED)
def test_nothing_may_be_missing(verb: str, field: str) -> None:
    reply = {key: value for key, value in REQUIRED[verb].items() if key != field}
    with pytest.raises(BrokenReplyError, match=field):
        check_reply(line({"id": 4, "ok": True, **reply}), 4, verb, REQUEST)


def test_what_need_not_be_said() -> None:
    nothing = dict.fromkeys(("libc", "environment", "abi", "machine", "python"))
    assert check_reply(line({"id": 4, "ok": True, **REQUIRED["hello"], **nothing}), 4, "hello", {})
    assert check_reply(line({"id": 4, "ok": True, **REQUIRED["load"], "delegated": None}), 4, "load", {})
    assert check_reply(line({"id": 4, "ok": True, **REQUIRED["hello"], "python": "3.13.0rc1+"}), 4, "hello", {})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lease", None),
        ("lease", {"folder": "0123456789abcdef", "token": 0}),
        ("lease", {"folder": "../../0123456789", "token": 1}),
        ("work", {"folder": "/", "free_bytes": -1, "total_bytes": 1}),
        ("work", {"free_bytes": 1, "total_bytes": 1}),
        ("libc", 3),
        ("environment", {"id": "../..", "runtimes": []}),
        ("environment", {"id": "0123456789abcdef", "runtimes": [1]}),
        ("abi", "cp311; rm"),
        ("machine", "--index-url=x y"),
        ("python", "3"),
        ("python", "--pre"),
        ("bits", "64"),
    ],
)
def test_what_is_said_must_be_right(field: str, value: object) -> None:
    reply = {**COMPLETE["hello"], field: value}
    with pytest.raises(BrokenReplyError):
        check_reply(line({"id": 4, "ok": True, **reply}), 4, "hello", {})


BROKEN_LINES = [
    b"garbage",
    b"",
    b"null",
    b"[1, 2]",
    b'{"id": 4}',
    b'{"id": "4", "ok": true}',
    b'{"id": 4, "ok": true}',
    b'{"id": 4, "ok": 1}',
    b'{"id": 4, "ok": false}',
    b'{"id": 4, "ok": false, "error": {"kind": "tired", "message": "no"}}',
    b'{"id": 4, "ok": false, "error": {"kind": ["busy"], "message": "no"}}',
    b'{"id": 4, "ok": false, "error": {"kind": "busy", "message": 3}}',
    b'{"id": 4, "ok": true, "warmup_ns": [9], "samples_ns": [NaN, 1], "telemetry": {}}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("broken", BROKEN_LINES)
def test_lines_that_are_no_reply(broken: bytes) -> None:
    is_refused(broken, "time")


SAMPLES_THAT_ARE_NONE = ["[5]", "[5, 5, 5]", "[5, -1]", "[5, 1.5]", "[5, true]", "[5, null]", '"55"', "[5, [5]]"]


@pytest.mark.parametrize("samples", [*SAMPLES_THAT_ARE_NONE, "[5, 9999999999999999]", '["1", "1"]'])
def test_samples_that_are_none(samples: str) -> None:
    rest = '"warmup_ns": [9], "telemetry": {"before": {}, "after": {}}'
    is_refused(f'{{"id": 4, "ok": true, "samples_ns": {samples}, {rest}}}'.encode(), "time", "samples_ns")


def changed(verb: str, **fields: object) -> bytes:
    return line({"id": 4, "ok": True, **REQUIRED[verb], **fields})


@pytest.mark.parametrize(
    ("verb", "broken", "told"),
    [
        ("hello", changed("hello", cpus={"count": "many"}), "'count' must be a whole number"),
        ("hello", changed("hello", lease={"folder": "0" * 16, "token": -5}), "'token' must be a whole number"),
        ("time", changed("time", telemetry=0).replace(b" 0}", b" 1e999}"), "1e999 is no number"),
        ("time", changed("time")[:-1] + b',"samples_ns":[1,1]}', "a name is given twice"),
        ("time", changed("time", samples_ns=[7] * 1_000_000), "'samples_ns' must be a list of at most"),
        (
            "time",
            changed("time", telemetry={"before": {}, "after": {str(n): 1 for n in range(100_000)}}),
            "more than 20000 values",
        ),
        ("bye", b'{"id":4,"ok":true,"x":%s1%s}' % (b"[" * 100_000, b"]" * 100_000), "nested too deeply"),
        ("bye", line({"id": 5, "ok": True}), "it answers request 5, not 4"),
    ],
    ids=["CPUs", "lease", "1e999", "twice", "a million samples", "a sea of telemetry", "an abyss", "another request"],
)
def test_what_is_wrong_is_named(verb: str, broken: bytes, told: str) -> None:
    is_refused(broken, verb, told)


def is_refused(broken: bytes, verb: str, told: str | None = None) -> None:
    with pytest.raises(BrokenReplyError, match=told) as caught:
        check_reply(broken, 4, verb, REQUEST)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_another_environment_than_asked_for() -> None:
    with pytest.raises(BrokenReplyError, match="another environment"):
        check_reply(line({"id": 4, "ok": True, "environment": "f" * 16}), 4, "install", REQUEST)


def test_a_failure_is_the_workers_own() -> None:
    error = {"kind": "unsupported_op", "message": "no \x1b[31mFoo\n"}
    with pytest.raises(AgentError) as caught:
        check_reply(line({"id": 4, "ok": False, "error": error}), 4, "load", REQUEST)
    assert (caught.value.kind, caught.value.message) == ("unsupported_op", "no Foo ")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(REQUIRED)), st.data())
def test_one_field_exchanged(verb: str, data: st.DataObject) -> None:
    """Whatever is accepted is as the fuzzer demands, which exchanges values at any depth but rarely a whole field."""
    reply = {"id": 4, "ok": True, **COMPLETE[verb]}
    reply[data.draw(st.sampled_from(sorted(reply)))] = data.draw(JSON)
    check_spoiled_reply((verb, True, [Edit("whole", 0, line(reply))]))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(REQUIRED)), st.binary(max_size=200) | JSON.map(line))
def test_anything_at_all(verb: str, anything: bytes) -> None:
    with pytest.raises((AgentError, BrokenReplyError)):
        check_reply(anything, 4, verb, REQUEST)


AGGREGATE: dict[str, Any] = {
    "statistic": "mean",
    "runs": 2,
    "first_ns": 6_000,
    "last_ns": 4_000,
    "min_ns": 4_000,
    "max_ns": 6_000,
    "std_ns": 1_000,
    "median_ns": 6_000,
}
TIMED_AS_ONE = {"warmup_ns": [9], "samples_ns": [5_000], "telemetry": {"before": {}, "after": {}}}


def test_one_sample_that_stands_for_many() -> None:
    reply = {**TIMED_AS_ONE, "aggregate": AGGREGATE}
    assert check_reply(line({"id": 4, "ok": True, **reply}), 4, "time", REQUEST) == reply


def test_one_sample_that_stands_for_as_many_runs_as_fitted_into_the_seconds() -> None:
    reply = {**TIMED_AS_ONE, "aggregate": {**AGGREGATE, "runs": 73}}
    assert check_reply(line({"id": 4, "ok": True, **reply}), 4, "time", {**REQUEST, "pass_s": 1.0}) == reply
    reply = {**TIMED_AS_ONE, "aggregate": {**AGGREGATE, "runs": 1}}
    assert check_reply(line({"id": 4, "ok": True, **reply}), 4, "time", {**REQUEST, "max_pass_s": 1.0}) == reply


@pytest.mark.parametrize(
    "change",
    [
        {"statistic": "median"},
        {"runs": 3},
        {"runs": None},
        {"min_ns": 5_100},
        {"max_ns": 4_900},
        {"first_ns": 7_000},
        {"median_ns": 1},
        {"std_ns": -1},
        {"std_ns": 0.5},
        None,
    ],
)
def test_aggregates_that_are_none(change: dict[str, Any] | None) -> None:
    reply = {**TIMED_AS_ONE, "aggregate": None if change is None else {**AGGREGATE, **change}}
    with pytest.raises(BrokenReplyError):
        check_reply(line({"id": 4, "ok": True, **reply}), 4, "time", REQUEST)


@pytest.mark.parametrize("samples", [[], [5_000, 5_000], [10_000]])
def test_aggregates_of_other_samples(samples: list[int]) -> None:
    reply = {**TIMED_AS_ONE, "samples_ns": samples, "aggregate": AGGREGATE}
    with pytest.raises(BrokenReplyError):
        check_reply(line({"id": 4, "ok": True, **reply}), 4, "time", REQUEST)


def test_printable() -> None:
    assert printable("tab\t, colour \x1b[31m, right to left \u202e, fine ü") == "tab , colour , right to left  , fine ü"
    assert len(printable("x" * 10_000)) == 2000
