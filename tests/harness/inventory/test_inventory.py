"""Tests of inventory.yaml: `local` needs no file, and every mistake in a file is named with its line and field."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from latlab.agents.protocol.pass_request import STOPS
from latlab.harness.errors import BadInputError
from latlab.harness.inventory.inventory import Inventory, LocalDevice, explain, load_inventory, policy_named, schema
from latlab.harness.inventory.policies import PolicyConfig
from latlab.harness.timing_policy import PRESETS, TimingPolicy
from latlab.harness.transports import get, names
from latlab.harness.transports.ssh.config import SSHDevice

ROOT = Path(__file__).parents[3]


def load(tmp_path: Path, text: str) -> Inventory:
    path = tmp_path / "inventory.yaml"
    path.write_text(text, encoding="utf-8")
    return load_inventory(path)


def test_local_needs_no_inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LATLAB_INVENTORY", raising=False)
    assert load_inventory().device("local") == LocalDevice()


def test_the_repository_s_own_file() -> None:
    assert load_inventory(ROOT / "inventory.yaml").device("local").transport == "local"


def test_environment_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("devices: {bench: {transport: local, affinity: [0]}}")
    monkeypatch.setenv("LATLAB_INVENTORY", str(path))
    assert load_inventory().device("bench").affinity == [0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "devices:\n  local:\n    transport: local\n    threads: 3\n",
            "line 4: devices.local.threads: there is no such",
        ),
        ("devices:\n  local:\n    transport: telepathy\n", "line 3: devices.local.transport"),
        ("devices:\n  local:\n    affinity: two\n", "line 3: devices.local.affinity"),
        ("devices:\n  local:\n    affinity: [0, -1]\n", "line 3: devices.local.affinity.1"),
        ("devices: 7\n", "line 1: devices"),
        ("- a\n- b\n", "the file"),
        ("devices:\n  'a b': {}\n", "line 2: devices.a b: 'a b' cannot be a device's name"),
        ("devices:\n  local: [\n", "line 3"),
        (
            "devices: !!python/object/apply:os.system ['true']\n",
            "line 1: the tag !!python/object/apply:os.system is not",
        ),
        (
            "devices:\n  pi: {transport: ssh, hosst: pi.lan}\n",
            "line 2: devices.pi.hosst: there is no such field: did you",
        ),
        ("devices:\n  pi:\n    transport: ssh\n", "line 2: devices.pi.host: it is missing"),
        ("devices: {a: {transport: ssh, host: 7}}\n", "devices.a.host: text is wanted here: put it in quotes, not 7"),
        ("devices: {a: {transport: sssh}}\n", "choose one of: adb, local, simulated, ssh (did you mean ssh?)"),
        ("devices:\n  a: 7\n", "line 2: devices.a: `name: value` pairs are wanted here, not 7"),
        ("devices: {a: {transport: adb}}\n", "devices.a: give either host (TCP) or serial (USB)"),
        ("devices: {a: {targets: [{runtime: tvm}]}}\n", "devices.a.targets.0.runtime: choose 'onnxruntime', 'tflite'"),
        ("devices: {a: {targets: [{runtime: [tflite, tvm]}]}}\n", "devices.a.targets.0.runtime.1: choose"),
        (
            "devices: {a: {targets: [{threads: 0}]}}\n",
            "devices.a.targets.0.threads: at least 1 is wanted here, not 0",
        ),
        ("devices: {a: {targets: [{runtime: []}]}}\n", "devices.a.targets.0.runtime: at least one is wanted here"),
        ("devices: {a: {affinity: []}}\n", "devices.a.affinity: at least one is wanted here"),
        ("devices: {a: {targets: [{threads: 5000}]}}\n", "devices.a.targets.0: threads must be between 1 and 1024"),
        ("devices: {a: {targets: {runtime: tflite}}}\n", "devices.a.targets: a list is wanted here"),
        ("devices:\n  a: {}\n  b: {}\n  a: {}\n", "line 2: devices.a: it is given twice, in lines 2 and 4"),
        ("devices: {a: {affinity: [0], affinity: [1]}}\n", "devices.a.affinity: it is given twice"),
        ("devices:\n  1: {}\n", "line 2: devices.1: a name is text, and 1 is none: put it in quotes"),
        ("devices: {? [a, b] : {}}\n", "cannot be a name"),
        (
            "devices:\n  pi:\n    transport: ssh\n    host: root@127.0.0.1:2301\n",
            "line 4: devices.pi.host: write user: and port: as fields of their own (user: root, port: 2301) beside "
            "host: 127.0.0.1, not 'root@127.0.0.1:2301'",
        ),
        ("devices: {a: {transport: ssh, host: pi@pi.lan}}\n", "write user: as a field of its own (user: pi) beside"),
        ("devices: {a: {transport: ssh, host: '[::1]:22'}}\n", "(port: 22) beside host: ::1"),
        ("devices: {a: {transport: adb, host: '10.0.0.3:5555'}}\n", "(port: 5555) beside host: 10.0.0.3"),
        ("devices: {a: {transport: ssh, host: pi, key: /no/key}}\n", "devices.a.key: there is no file /no/key"),
        ("devices: {a: {transport: adb, host: pi, key: no/key}}\n", "devices.a.key: there is no file no/key in /"),
        (
            "devices:\n  a:\n    transport: adb\n    serial: X\n    benchmark_model: /no/such\n",
            "line 5: devices.a.benchmark_model: there is no file /no/such",
        ),
        (
            "devices:\n a: {transport: adb, serial: X, targets: [\n  {runtime: [tflite, benchmark_model]}]}\n",
            "line 3: devices.a.targets.0.runtime: it takes TFLite's program: name the file with `benchmark_model:`",
        ),
        ("devices: {a: {targets: [{runtime: benchmark_model}]}}\n", "benchmark_model is for Android devices"),
        (
            "devices:\n  a:\n    targets:\n      - runtime: onnxruntime\n        accelerator: nnapi\n",
            "line 4: devices.a.targets.0: onnxruntime does not run on nnapi, only on cpu and cuda (With nnapi, choose",
        ),
        ("devices: {a: {transport: simulated, targets: [{runtime: tflite, accelerator: cuda}]}}\n", "only on cpu"),
        ("devices: {all: {}}\n", "`all` means every device"),
        ("devices:\n\tlocal: {}\n", "line 2: there is a tab"),
        ("devices:\n  local: {}\n---\ndevices: {}\n", "line 3: a second document begins"),
        ("devices: &a {local: *a}\n", "line 1: *a stands for nothing before it"),
        ("devices: {a: {<<: 7}}\n", "devices.a.<<: it takes the alias of a mapping"),
        ("[" * 100_000, "line 1: nested more than 20 deep"),
        ("{a: " * 25 + "}" * 25, "line 1: nested more than 20 deep"),
        ("- " * 5_000, "line 1: nested more than 20 deep"),
        ("devices:\n  a: " + "[" * 25 + "]" * 24, "line 2: nested more than 20 deep"),
        ("devices:\n  a: \x07\n", "line 2"),
        ("#" * 1_100_000, "more than 1,000,000 bytes"),
        ("policies: 7\n", "line 1: policies: `name: value` pairs are wanted here, not 7"),
        ("policies:\n  mine: 3\n", "line 2: policies.mine: `name: value` pairs are wanted here, not 3"),
        ("policies:\n  mine:\n", "line 2: policies.mine: `name: value` pairs are wanted here"),
        ("policies:\n  'a b': {base: help}\n", "line 2: policies.a b: 'a b' cannot be a policy's name"),
        (
            "policies:\n  mine:\n    base: default\n    run: 3\n",
            "line 4: policies.mine.run: there is no such field: did you mean runs?",
        ),
        ("policies: {mine: {base: helpp}}\n", "policies.mine.base: choose one of: default, quick,"),
        ("policies: {mine: {base: help, name: x}}\n", "policies.mine.name: there is no such field"),
        ("policies:\n  help:\n    runs: 3\n", "line 2: policies.help: help is a policy of latlab's own"),
        ("policies:\n  mine:\n    runs: 3\n", "line 2: policies.mine.trim: it is missing (or let a preset give it"),
        (
            "policies:\n  mine:\n    base: help\n    runs: 0\n",
            "line 4: policies.mine.runs: a whole number from 1 to 100,000, not 0",
        ),
        ("policies: {mine: {base: help, runs: 2.5}}\n", "policies.mine.runs: a whole number is wanted here, not 2.5"),
        ("policies: {mine: {base: help, runs: true}}\n", "policies.mine.runs: a whole number is wanted here, not True"),
        ("policies: {mine: {base: help, trim: half}}\n", "policies.mine.trim: a number is wanted here, not 'half'"),
        ("policies: {mine: {base: help, trim: 0.5}}\n", "policies.mine.trim: less than 0.5, not 0.5"),
        ("policies: {mine: {base: help, stop: entropy}}\n", "policies.mine.stop: choose '' or 'stdrel', not 'entropy'"),
        ("policies: {mine: {base: help, max_runs: 9}}\n", "policies.mine.max_runs: 0 or at least runs (50), not 9"),
        ("policies: {mine: {base: help, anchors: 1}}\n", "policies.mine.anchors: true or false is wanted here, not 1"),
        ("policy: {}\n", "policy: there is no such field: did you mean policies?"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInputError) as caught:
        load(tmp_path, text).device("a")
    assert message in str(caught.value)
    assert "inventory.yaml" in str(caught.value)


SPOILED = (None, True, -1, 0, 1e30, float("inf"), 10**400, 0.5, "", "x", [], ["x"], [None], {}, {"a": 1})


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A model and those of its fields that are groups of fields."""
    yield model
    annotations: list[Any] = [field.annotation for field in model.model_fields.values()]
    for annotation in annotations:
        annotations.extend(get_args(annotation))
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from models(annotation)


@pytest.mark.parametrize("top", [*map(get, names()), PolicyConfig])
def test_every_kind_of_mistake_is_explained_in_latlab_s_words(top: type[BaseModel]) -> None:
    """pydantic's messages are for programmers, and change with its releases."""
    for model in models(top):
        for name, value in itertools.product(model.model_fields, SPOILED):
            try:
                model.model_validate({name: value})
            except ValidationError as caught:
                for problem in (explain({}, (name,), error)[1] for error in caught.errors()):
                    assert not problem.startswith("it is not valid"), problem


def test_a_missing_file_keeps_nobody_from_the_other_devices(tmp_path: Path) -> None:
    inventory = load(tmp_path, "devices:\n  a: {transport: ssh, host: pi, key: /no/key}\n  b: {}\n")
    assert inventory.device("b").transport == "local"
    with pytest.raises(BadInputError, match=r"line 2: devices\.a\.key: there is no file /no/key"):
        inventory.device("a")


def test_everything_that_is_wrong_is_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = "devices:\n  a: {pyton: x}\n  b: {transport: telepathy}\n  'c d': {}\n  e: {affinity: [-1, x]}\nmore: 1\n"
    with pytest.raises(BadInputError) as caught:
        load(tmp_path, text)
    lines = caught.value.message.splitlines()
    assert [line.split(":")[0].rpartition("line ")[2] for line in lines] == ["2", "3", "4", "5", "5", "6"]


def test_many_mistakes_are_counted(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"\.\.\. and 30 more"):
        load(tmp_path, "devices:\n" + "".join(f"  d{n}: {{x: 1}}\n" for n in range(50)))


def test_aliases_that_stand_for_more_than_memory_holds(tmp_path: Path) -> None:
    levels = "".join(f"  - &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 15))
    started = time.monotonic()
    with pytest.raises(BadInputError, match="counting what aliases stand for"):
        load(tmp_path, f"x:\n  - &a0 [a, a, a, a, a, a, a, a, a]\n{levels}")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("host", ["pi", "pi.lan", "10.0.0.3", "::1", "fe80::1%eth0", "[::1]"])
def test_hosts_that_are_hosts(tmp_path: Path, host: str) -> None:
    for transport in ("ssh", "adb"):
        device = load(tmp_path, f"devices: {{a: {{transport: {transport}, host: '{host}'}}}}").device("a")
        assert host in device.address


def test_words_mean_what_they_mean_to_editors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """YAML 1.1 made a truth value of `yes`, a number of `12:30` and a date of `2024-01-02`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0x1F").touch()
    text = "devices:\n  yes: {description: no}\n  pi: {transport: ssh, host: 2024-01-02, user: 12:30, key: 0x1F}\n"
    inventory = load(tmp_path, text)
    assert inventory.device("yes").description == "no"
    pi = inventory.device("pi")
    assert isinstance(pi, SSHDevice)
    assert (pi.host, pi.user, str(pi.key)) == ("2024-01-02", "12:30", "0x1F")


def test_what_devices_have_in_common_is_written_once(tmp_path: Path) -> None:
    text = """
devices:
  pi1: &pi
    transport: ssh
    host: pi1.lan
    targets: &usual [{runtime: tflite, threads: [1, 4]}]
  pi2: {<<: *pi, host: pi2.lan}
  here: {targets: *usual}
"""
    inventory = load(tmp_path, text)
    pi2 = inventory.device("pi2")
    assert isinstance(pi2, SSHDevice)
    assert (pi2.host, len(pi2.all_targets("pi2"))) == ("pi2.lan", 2)
    assert inventory.device("here").targets == pi2.targets


@pytest.mark.parametrize("text", ["", "# nothing\n", "devices:\n", "devices: {}\n", "\ufeffdevices:\n"])
def test_no_devices(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text).devices == {}


def test_a_device_may_have_nothing_but_a_name(tmp_path: Path) -> None:
    assert load(tmp_path, "devices:\n  local:\n").device("local") == LocalDevice()


POLICIES = """
policies:
  whole:
    {warmup: 0, runs: 100, trim: 0, passes: 2, spread: 3, max_passes: 4, precision: 0.02, max_s: 9, max_warmup: 5,
     warmup_s: 0.1, pass_s: 1, max_pass_s: 2, max_runs: 200, stop: stdrel, overheads: 50, anchors: true}
  longer:
    base: help
    runs: 100
"""


def test_own_policies(tmp_path: Path) -> None:
    inventory = load(tmp_path, POLICIES)
    assert inventory.policies["whole"] == TimingPolicy(
        "whole", 0, 100, 0, 2, 3, 4, 0.02, 9, 5, 0.1, 1, 2, 200, "stdrel", 50, True
    )
    longer = policy_named("longer", inventory)
    assert longer == replace(PRESETS["help"], name="longer", runs=100)
    assert policy_named("help", inventory) is policy_named("help") is PRESETS["help"]
    assert inventory.devices == {}


@pytest.mark.parametrize("text", ["policies:\n", "devices:\npolicies: {}\n", "# policies:\n"])
def test_no_policies(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text).policies == {}


def test_unknown_policies_list_the_known(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="unknown policy 'longest'") as caught:
        policy_named("longest", load(tmp_path, POLICIES))
    assert "help" in caught.value.hint
    assert "whole, longer. Your own belong into" in caught.value.hint


def test_the_fields_of_a_policy_are_those_of_a_timing_policy() -> None:
    assert {"name", *PolicyConfig.model_fields} == {"base", *(field.name for field in fields(TimingPolicy))}
    assert get_args(get_args(PolicyConfig.model_fields["stop"].annotation)[0]) == STOPS


def test_the_schema_knows_policies() -> None:
    made = schema()
    (section, nothing) = made["properties"]["policies"]["anyOf"]
    assert nothing == {"type": "null"}
    assert section["additionalProperties"] == {"$ref": "#/$defs/PolicyConfig"}
    assert set(PRESETS) < set(made["$defs"]["PolicyConfig"]["properties"]["base"]["enum"])


def test_a_thousand_devices_are_read_quickly(tmp_path: Path) -> None:
    text = "devices:\n" + "".join(f"  d{n}: {{transport: ssh, host: h{n}.lan, user: pi}}\n" for n in range(1000))
    started = time.monotonic()
    assert len(load(tmp_path, text).devices) == 1000
    assert time.monotonic() - started < 5


def test_unknown_device_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="'pixel' is not in the inventory"):
        load(tmp_path, "devices: {}").device("pixel")


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cannot read"):
        load_inventory(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInputError):
        load_inventory(tmp_path / "b.yaml")


WORDS = [
    "devices",
    "policies",
    "runs",
    "base",
    "local",
    "a b",
    "all",
    "transport",
    "affinity",
    "targets",
    "runtime",
    "threads",
    "host",
    "<<",
    "kind",
]
VALUES = [
    "ssh",
    "adb",
    "simulated",
    "local",
    "tflite",
    "yes",
    "~",
    "1",
    "-1",
    "0.5",
    "1e999",
    "[]",
    "{}",
    "&a x",
    "*a",
    "!!x",
]
PLAIN = st.sampled_from(VALUES) | st.integers().map(str) | st.text(max_size=5).map(repr)
NESTED = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda values: f"[{', '.join(values)}]")
        | st.lists(st.tuples(st.sampled_from(WORDS) | PLAIN, inner), max_size=4).map(
            lambda pairs: f"{{{', '.join(f'{key}: {value}' for key, value in pairs)}}}"
        )
    ),
    max_leaves=12,
)
LINES = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(["", "- "]), st.sampled_from(WORDS), PLAIN), max_size=8
).map(lambda lines: "\n".join(f"{' ' * indent}{dash}{key}: {value}" for indent, dash, key, value in lines))
INVENTORIES = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="{}[]:,&*!|>?-'\"# \n\tab1", max_size=60),
    NESTED,
    NESTED.map(lambda text: f"devices: {{d: {text}}}"),
    LINES,
)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(INVENTORIES)
def test_anything_is_an_inventory_or_one_clear_error(tmp_path: Path, text: str) -> None:
    with contextlib.suppress(BadInputError):
        load(tmp_path, text.encode("utf-8", "ignore").decode())
