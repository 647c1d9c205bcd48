"""Tests of the runtimes' profilers, on networks that take long enough for a clock of microseconds."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tiny_networks import onnx_graph, onnx_network, tflite_network

from latlab.agents import runtimes
from latlab.agents.execution import operator_report
from latlab.agents.execution.operator_report import report, typical_runs
from latlab.agents.execution.profiling import profile
from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.profile_request import MAX_WORD, ProfileRequest
from latlab.agents.runtimes import litert_profiler, onnxruntime_trace
from latlab.agents.runtimes.onnxruntime_profiler import ORTProfiler, _adding_tensors
from latlab.agents.runtimes.onnxruntime_trace import read_trace
from latlab.agents.runtimes.profiler import Operator

FOREVER = 1 << 62
REQUEST = ProfileRequest(warmup=2, runs=6)
SIZE = 256

# torch.jit is deprecated, and what there is.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


def matmuls(folder: Path, count: int) -> Path:
    """Write an ONNX file of matrix products in a row, with one ReLU at the end."""
    weight = numpy_helper.from_array(np.eye(SIZE, dtype=np.float32), "weight")
    names = ["x", *(f"h{number}" for number in range(count))]
    nodes = [helper.make_node("MatMul", [names[n], "weight"], [names[n + 1]], name=f"product{n}") for n in range(count)]
    return onnx_graph(folder, [*nodes, helper.make_node("Relu", [names[-1]], ["y"])], [SIZE, SIZE], [weight])


def profiled(runtime: str, path: Path, shape: tuple[int, ...], request: ProfileRequest = REQUEST) -> dict[str, Any]:
    asked = [runtimes.InputRequest(shape=list(shape))]
    with runtimes.open(runtime, path, inputs=asked) as session:
        session.set_inputs(session.random_inputs(0))
        return profile(session, request, FOREVER)


def times(found: dict[str, Any]) -> dict[str, int]:
    """Return the nanoseconds of each kind of operator."""
    sums: dict[str, int] = {}
    for one in found["operators"]:
        sums[one["kind"]] = sums.get(one["kind"], 0) + one["mean_ns"]
    return sums


def test_onnxruntime_times_each_node(tmp_path: Path) -> None:
    found = profiled("onnxruntime", matmuls(tmp_path, 4), (SIZE, SIZE))
    assert [one["name"] for one in found["operators"][:4]] == [f"product{number}" for number in range(4)]
    assert {one["provider"] for one in found["operators"]} == {"CPUExecutionProvider"}
    assert found["runs"] == len(found["samples_ns"]) == REQUEST.runs
    sums = times(found)
    assert sums["MatMul"] > sums.get("Relu", 0), "products of large matrices take longer than a maximum with 0"
    # What is outside of the operators is next to nothing here, even under the profiler.
    assert sum(sums.values()) > 0.3 * min(found["samples_ns"])


def test_onnxruntime_shows_what_it_has_fused(tmp_path: Path) -> None:
    path = onnx_network(tmp_path).path
    kinds = [one["kind"] for one in profiled("onnxruntime", path, (1, 3, 8, 8))["operators"]]
    assert "Relu" not in kinds, "it is part of the convolution"
    assert {"Tanh"} < set(kinds)


def test_the_body_of_a_loop_is_not_counted_twice(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "weight"], ["next"], name="inside"),
            helper.make_node("Identity", ["going"], ["goes_on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [SIZE, SIZE]),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [SIZE, SIZE]),
        ],
    )
    constants = [
        numpy_helper.from_array(np.eye(SIZE, dtype=np.float32), "weight"),
        helper.make_tensor("times", TensorProto.INT64, [], [5]),
    ]
    path = onnx_graph(
        tmp_path,
        [helper.make_node("Loop", ["times", "", "x"], ["y"], name="loop", body=body)],
        [SIZE, SIZE],
        constants,
    )
    found = profiled("onnxruntime", path, (SIZE, SIZE))
    sums = times(found)
    assert sums["MatMul"] > sums["Loop"], "the loop itself only calls its body"
    assert sum(sums.values()) <= max(found["samples_ns"])


def test_the_model_that_measures_the_profilers_cost_is_a_model() -> None:
    model = onnx.load_from_string(_adding_tensors(3, 5))
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Sum"] * 3


def test_torchscript_times_each_operator_of_the_graph(tmp_path: Path) -> None:
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3), torch.nn.Flatten()
    ).eval()
    path = tmp_path / "net.pt"
    torch.jit.trace(module, torch.zeros(1, 3, 64, 64)).save(str(path))
    found = profiled("torchscript", path, (1, 3, 64, 64))
    assert [one["kind"] for one in found["operators"]] == ["_convolution", "relu", "_convolution", "flatten"]
    assert found["operators"][0]["name"].startswith("1x3x64x64, 32x3x3x3")
    sums = times(found)
    assert sums["_convolution"] > sums["relu"]
    assert found["resolution_ns"] == 1


def test_tflite_times_operators_inside_the_delegate_and_outside(tmp_path: Path) -> None:
    found = profiled("tflite", tflite_network(tmp_path, "LOG_SOFTMAX").path, (1, 8, 8, 3))
    providers = {one["kind"].split(" ")[0]: one["provider"] for one in found["operators"]}
    assert providers == {"Convolution": "XNNPACK", "LOG_SOFTMAX": "TFLite kernels"}
    assert found["resolution_ns"] == 1000


def test_other_releases_of_tflite_have_no_profiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litert_profiler, "TRIED", ("1.4.",))
    with pytest.raises(AgentError, match=r"no profiler that latlab can read.*benchmark_model") as caught:
        profiled("tflite", tflite_network(tmp_path).path, (1, 8, 8, 3))
    assert caught.value.kind == "bad_request"


def test_the_deadline_of_a_profile(tmp_path: Path) -> None:
    with runtimes.open("onnxruntime", onnx_network(tmp_path).path) as session:
        session.set_inputs(session.random_inputs(0))
        with pytest.raises(AgentError, match="deadline") as caught:
            profile(session, REQUEST, 0)
    assert caught.value.kind == "timeout"


# Traces of onnxruntime


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of a trace that onnxruntime has written, of 5 inferences."""
    kept: list[list[str]] = []
    read = onnxruntime_trace.read_trace

    def keep(path: str, runs: int, overhead_ns: int) -> list[Operator]:
        kept.append(Path(path).read_text().splitlines())
        return read(path, runs, overhead_ns)

    monkeypatch.setattr("latlab.agents.runtimes.onnxruntime_profiler.read_trace", keep)
    profiled("onnxruntime", onnx_network(tmp_path).path, (1, 3, 8, 8), ProfileRequest(warmup=2, runs=3))
    return kept[-1]


def written(folder: Path, lines: list[str]) -> str:
    path = folder / "trace.json"
    path.write_text("\n".join(lines))
    return str(path)


def test_a_trace_is_json_and_its_last_inferences_count(trace: list[str], tmp_path: Path) -> None:
    events = json.loads("\n".join(trace))
    names = {event["name"].removesuffix("_kernel_time") for event in events if event["cat"] == "Node"}
    operators = read_trace(written(tmp_path, trace), 2, 0)
    assert {one.name for one in operators} == names
    assert all(len(one.run_ns) == 2 for one in operators)
    spread = [one.overhead_ns for one in read_trace(written(tmp_path, trace), 2, 700)]
    assert sum(spread) == pytest.approx(700, abs=len(spread))
    assert max(spread) - min(spread) <= 1  # each ran once


def test_the_profilers_own_work_is_found_in_a_network_of_nodes_alone() -> None:
    profiler = ORTProfiler(None, None, {}, 0)
    profiler._traced_ns = [900, 200, 5000, 210, 190, 205]  # the fastest third: 190 and 200
    profiler._plain_ns = [100, 102, 900, 100, 3000, 110]
    nodes = [Operator(name, "Sum", "cpu", (400, 75, 4000, 80, 75, 70)) for name in "ab"]
    profiler.operators = lambda: nodes  # type: ignore[method-assign]
    assert profiler.share_inside() == pytest.approx((150 - 100) / (195 - 100))
    profiler._traced_ns = list(profiler._plain_ns)
    assert profiler.share_inside() == 0  # no slower under the profiler


def node(facts: str) -> list[str]:
    return ["[", f'{{"cat": "Node", "name": "a_kernel_time", "args": {{}}, {facts}}}', "]"]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda lines: lines[: len(lines) // 2], "ends before its end mark"),
        (lambda lines: [*lines[:-2], lines[-2][:30]], "is no event"),
        (lambda _: ["[", "]"], "0 inferences, not 3"),
        (lambda _: [], "ends before its end mark"),
        (lambda _: ["[", "7,", "]"], "line 2 is no event"),
        (lambda _: ["[", "[" * 100_000, "]"], "line 2 is no event"),
        (lambda _: node('"dur": 1.5, "ts": 0'), "has no times"),
        (lambda _: node('"dur": -1, "ts": 0'), "has no times"),
    ],
    ids=["a profiler that died", "a cut line", "no inference", "nothing", "a number", "deep", "no whole", "negative"],
)
def test_a_trace_that_cannot_be_read(
    trace: list[str], tmp_path: Path, spoil: Callable[[list[str]], list[str]], why: str
) -> None:
    with pytest.raises(AgentError, match=why) as caught:
        read_trace(written(tmp_path, spoil(trace)), 3, 0)
    assert caught.value.kind == "crash"


def test_a_trace_that_was_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with runtimes.open("onnxruntime", onnx_network(tmp_path).path) as session:
        session.set_inputs(session.random_inputs(0))
        with session.profiler() as profiler:
            profiler.start()
            profiler.invoke()
            profiler.collect()
            for folder in tmp_path.glob("latlab-profile-*"):
                for file in folder.iterdir():
                    file.unlink()
            with pytest.raises(AgentError, match="wrote no profile"):
                profiler.operators()


# Reports


def test_interruptions_do_not_count() -> None:
    assert typical_runs([5, 100, 6, 1, 7, 8, 9, 6, 5, 6]) == [0, 2, 4, 5, 6, 7, 8, 9]
    conv = Operator("a", "Conv", "cpu", (4, 99, 4, 1, 4, 4, 4, 4, 4, 4), overhead_ns=1)
    (one,) = report([conv], [5, 100, 6, 1, 7, 8, 9, 6, 5, 6], 1)["operators"]
    assert (one["mean_ns"], one["median_ns"]) == (3, 3)


def test_a_report_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_report, "MAX_OPERATORS", 2)
    found = report([Operator("n" * 999, "k", "p", (ns,), fused=("x",) * 99) for ns in (5, 1, 7, 2)], [20], 1)
    assert [one["mean_ns"] for one in found["operators"]] == [5, 7]
    assert found["left_out"] == {"operators": 2, "mean_ns": 3}
    assert len(found["operators"][0]["name"]) == MAX_WORD
    assert len(found["operators"][0]["fused"]) == 16


def test_a_profiler_that_records_too_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latlab.agents.runtimes.onnxruntime_profiler._share_inside_nodes", lambda *_: 0)
    monkeypatch.setattr("latlab.agents.runtimes.onnxruntime_profiler.ORTProfiler.operators", lambda _: [])
    with pytest.raises(AgentError, match="recorded no inferences, not 6"):
        profiled("onnxruntime", onnx_network(tmp_path).path, (1, 3, 8, 8))


def test_traces_that_killed_workers_have_left_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    old, new, other = (tmp_path / name for name in ("latlab-profile-old", "latlab-profile-new", "other"))
    for folder in (old, new, other):
        folder.mkdir()
        (folder / "trace.json").write_text("[")
    for folder in (old, other):
        os.utime(folder, (0, 0))
    network = onnx_network(tmp_path)
    profiled("onnxruntime", network.path, network.input_shape)
    assert sorted(one.name for one in tmp_path.iterdir() if one.is_dir()) == ["latlab-profile-new", "other"]
