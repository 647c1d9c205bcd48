"""Tests of profiles: of simulated devices, whose truth is known, and of this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from latlab.harness import Lab
from latlab.harness.cli.main import main
from latlab.harness.devices.target_selection import TargetOptions
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.profiling.run import ROUNDS
from latlab.harness.profiling.summary import NetworkProfile
from latlab.harness.report.profile.page import write_page
from latlab.harness.targets import Target
from latlab.harness.telemetry.operator_profile import OperatorProfile, ProfiledOperator
from latlab.harness.telemetry.recorded_pass import RecordedPass
from latlab.harness.transports.local.config import LocalDevice
from latlab.harness.transports.simulated.config import SimulatedDevice

ARCH = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"


def lab(folder: Path, **fields: Any) -> Lab:
    """A lab with the simulated device `sim`, and this machine with a work folder of its own."""
    made = Lab(folder / "store.db", cache=folder / "cache")
    simulated = SimulatedDevice.model_validate({"transport": "simulated", "kind": "pi4", "pace": 0, **fields})
    made.inventory = Inventory({"sim": simulated, "local": LocalDevice(transport="local", work=folder / "work")}, {})
    return made


def profile(*operators: tuple[str, float], inference_ms: float = 10.0, **fields: Any) -> OperatorProfile:
    listed = tuple(ProfiledOperator(f"n{number}", kind, "cpu", ms, ms) for number, (kind, ms) in enumerate(operators))
    defaults = {"left_out": 0, "left_out_ms": 0.0, "runs": 10, "overhead_ms": 0.0, "resolution_ms": 1e-6}
    return OperatorProfile(operators=listed, inference_ms=inference_ms, **{**defaults, **fields})


def network_profile(
    *profiles: OperatorProfile,
    passes_ms: tuple[float, ...] = (10.0, 10.0),
    file_operators: dict[str, int] | None = None,
    facts: dict[str, Any] | None = None,
) -> NetworkProfile:
    passes = tuple(RecordedPass([], [round(ms * 1e6)] * 10, {}) for ms in passes_ms)
    return NetworkProfile("t", "net", 1, passes, profiles, facts or {}, file_operators or {})


# Summaries


def test_kinds_and_the_longest() -> None:
    found = network_profile(profile(("Conv", 6.0), ("Relu", 1.0), ("Conv", 2.0), ("Add", 1.0)))
    assert [(one.kind, one.operators, one.typical_ms) for one in found.kinds] == [
        ("Conv", 2, 8.0),
        ("Add", 1, 1.0),
        ("Relu", 1, 1.0),
    ]
    assert [one.share for one in found.kinds] == pytest.approx([0.8, 0.1, 0.1])
    assert [one.typical_ms for one in found.longest(2)] == [6.0, 2.0]
    assert found.agrees
    assert found.explanation() == "the operators add up to 10.0 ms, 100 % of an inference (10.0 ms)"


def test_the_least_disturbed_round_counts() -> None:
    found = network_profile(
        profile(("Conv", 6.0), ("Relu", 1.0), inference_ms=12.0),  # a smaller sum: too much was taken out of it
        profile(("Conv", 7.0), ("Relu", 2.0), inference_ms=11.0),
        passes_ms=(9.5, 30.0, 9.0),
    )
    assert (found.sum_ms, found.latency_ms) == (9.0, 9.0)
    assert [one.mean_ms for one in found.operators] == [7.0, 2.0]
    assert [one.typical_ms for one in found.operators] == [6.0, 1.0]
    assert found.disturbed
    assert "Something else used the device" in found.explanation()


def test_rounds_with_other_operators_are_not_mixed() -> None:
    found = network_profile(
        profile(("Conv", 5.0), ("Relu", 1.0)),
        profile(("Conv", 4.0), inference_ms=9.0),
        profile(("Conv", 3.0), inference_ms=8.0),
    )
    assert [one.typical_ms for one in found.operators] == [3.0]


@pytest.mark.parametrize(
    ("operators", "fields", "words"),
    [
        ([("Conv", 5.0)], {}, "50 % of an inference (10.0 ms). The rest is the runtime's work between them"),
        (
            [("Conv", 20.0)],
            {"inference_ms": 22.0},
            "200 % of an inference (10.0 ms). The profiler slows them: under it",
        ),
        ([("Conv", 0.005)] * 500, {"resolution_ms": 0.001}, "rounding down to 1 µs, which is some 0.250 ms here"),
    ],
)
def test_a_difference_is_explained(operators: list[tuple[str, float]], fields: dict[str, Any], words: str) -> None:
    found = network_profile(profile(*operators, **fields))
    assert not found.agrees
    assert words in found.explanation()


def test_what_was_fused_and_what_was_added() -> None:
    ran = profile(("FusedConv", 1.0), ("Conv", 1.0), ("ReorderInput", 0.1))
    found = network_profile(ran, file_operators={"Conv": 2, "Relu": 2, "Constant": 3})
    assert found.fusion() == (
        "fused or left out of the file's operators: Conv 2 → 1, Relu 2 → 0; "
        "added by the runtime: FusedConv 1, ReorderInput 1"
    )
    assert network_profile(ran, file_operators={"CONV_2D": 2}).fusion() == "", "these names cannot be compared"
    facts = {"provider": "XNNPACK", "delegated": {"operators": 65, "delegated": 64, "partitions": 1}}
    assert network_profile(ran, facts=facts).fusion() == "XNNPACK runs 64 of the file's 65 operators, in 1 piece"
    assert network_profile(profile(("relu", 1.0)), file_operators={"aten::relu": 1}).fusion() == ""


def test_operators_too_short_for_the_clock() -> None:
    found = network_profile(profile(("Conv", 0.0), ("Relu", 0.0)))
    assert [one.share for one in found.kinds] == [0, 0]
    assert found.to_json()["sum_percent"] == 0


# Simulated devices, whose layers are the truth


def test_layers_of_a_simulated_network(tmp_path: Path) -> None:
    made = lab(tmp_path, kind="ideal")
    found = made.profile(ARCH, "sim", space="nasbench201")
    assert len(found.profiles) == ROUNDS
    assert len(found.passes) == ROUNDS + 1
    assert found.simulated
    assert found.sum_ms == pytest.approx(found.latency_ms, rel=1e-4)
    assert "conv" in {one.kind for one in found.kinds}
    assert sum(one.share for one in found.kinds) == pytest.approx(1)
    assert made.store.table(sustained=True).empty, "a profile makes no label"
    text = json.dumps(found.to_json(), allow_nan=False)
    assert json.loads(text)["operators"][0]["kind"] == found.operators[0].kind


def test_a_table_has_no_layers(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(f"arch,ms\n{ARCH},5.0\n")
    with pytest.raises(BadInputError, match=r"device sim: .* from a table without layers"):
        lab(tmp_path, table=str(table), column="ms").profile(ARCH, "sim", space="nasbench201")


def test_a_network_that_fails(tmp_path: Path) -> None:
    made = lab(tmp_path, faults={"max_params": 10})
    with pytest.raises(LatlabError, match=r"fails on sim.*out_of_memory"):
        made.profile(ARCH, "sim", space="nasbench201")


def test_a_worker_that_dies_while_it_profiles(tmp_path: Path) -> None:
    made = lab(tmp_path, kind="ideal", faults={"schedule": [{"kind": "crash", "verb": "profile", "after_requests": 8}]})
    found = made.profile(ARCH, "sim", space="nasbench201")
    assert len(found.profiles) == ROUNDS, "the job is done again from its beginning"


# This machine


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An ONNX file: three products of matrices, one ReLU."""
    weight = numpy_helper.from_array(np.eye(128, dtype=np.float32), "weight")
    nodes = [helper.make_node("MatMul", [a, "weight"], [b]) for a, b in (("x", "h0"), ("h0", "h1"), ("h1", "h2"))]
    graph = helper.make_graph(
        [*nodes, helper.make_node("Relu", ["h2"], ["y"])],
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [128, 128])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [128, 128])],
        [weight],
    )
    path = tmp_path / "products.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_a_file_on_this_machine(tmp_path: Path, model: Path) -> None:
    found = lab(tmp_path).profile(model, "local")
    assert found.kinds[0].kind == "MatMul"
    assert found.target == "local/onnxruntime/cpu/fp32/t1/b128"
    assert 0 < found.sum_ms <= found.best.inference_ms
    assert found.file_operators["MatMul"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "tflite", "torchscript"])
def test_an_architecture_in_each_runtime(tmp_path: Path, runtime: str) -> None:
    found = lab(tmp_path).profile(ARCH, "local", space="nasbench201", options=TargetOptions(runtime))
    assert Target.parse(found.target).runtime == runtime
    assert len(found.operators) > 20
    # An inference is at least as long as its operators without the profiler, but for noise: loosely.
    assert 0.2 < found.ratio < 3
    assert "onv" in found.kinds[0].kind


# The command, its table and its page


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["latlab", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "inventory.yaml"
    path.write_text("devices:\n  sim: {transport: simulated, kind: pi4, pace: 0}\n")
    return path


def test_the_command(
    tmp_path: Path, inventory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "profile.html"
    words = ["profile", ARCH, "sim", "--space", "nasbench201", "--inventory", str(inventory)]
    code, out, err = run(capsys, monkeypatch, *words, "--top", "3", "--out", str(page))
    assert (code, err) == (0, "")
    assert "The 3 longest of" in out
    assert "the operators add up to" in out
    html = page.read_text()
    assert "Along the network" in html
    assert "sim/onnxruntime" in html
    code, out, err = run(capsys, monkeypatch, *words, "--json")
    assert (code, err) == (0, "")
    assert {one["kind"] for one in json.loads(out)["kinds"]} >= {"conv", "linear"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone.onnx", "sim"], "gone.onnx"),
        (["net", "sim"], "'net' is not a model"),
        (["1,2", "sim", "--space", "nasbench201"], "1,2"),
        (
            [ARCH, "sim", "--space", "nasbench201", "--out", "page.pdf"],
            "page.pdf: --out writes a file that ends in .html",
        ),
        ([ARCH, "sim", "--space", "nasbench201", "--input", "1x3x32x32"], "options of --model"),
        ([ARCH, "sim", "--space", "nasbench201", "--out", "/proc/none/page.html"], "cannot write"),
        ([ARCH, "sim", "nowhere", "--space", "nasbench201"], "nowhere"),
        (
            [ARCH, "sim", "--space", "nasbench201", "--runtime", "openvino"],
            "onnxruntime, tflite, torchscript, benchmark",
        ),
        ([ARCH, "sim", "--space", "nasbench201", "--runtime", "executorch"], "has no profiler that latlab can read"),
    ],
)
def test_bad_input(
    tmp_path: Path,
    inventory: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, monkeypatch, "profile", *words, "--inventory", str(inventory))
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_the_page_escapes_what_a_device_says(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    one = OperatorProfile((ProfiledOperator(evil, evil, evil, 1.0, 1.0, (evil,)),), 3, 0.5, 10, 1.0, 0.1, 1e-3)
    page = tmp_path / "page.html"
    write_page(network_profile(one, file_operators={evil: 3}), page, 5)
    assert "<script" not in page.read_text()


def test_a_page_of_many_operators(tmp_path: Path) -> None:
    many = profile(*[(f"Kind{number % 20}", 1.0 + number % 7) for number in range(1500)])
    page = tmp_path / "page.html"
    write_page(network_profile(many), page, 20)
    text = page.read_text()
    assert "9 further kinds" in text
    assert len(text) < 1_000_000
