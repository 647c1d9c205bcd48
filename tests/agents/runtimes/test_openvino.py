"""Tests of the runtime openvino: the conformance suite, and what only this one does."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path

import numpy as np
import pytest
from runtime_conformance import RuntimeConformance
from tiny_networks import Network, eager, onnx_graph, onnx_network

from latlab.agents import runtimes
from latlab.agents.protocol.errors import AgentError

pytestmark = pytest.mark.skipif(
    util.find_spec("openvino") is None, reason="openvino is not installed: pip install 'latlab[openvino]'"
)


class TestOpenVINO(RuntimeConformance):
    runtime = "openvino"
    provider = "CPU f32"

    @pytest.fixture
    def network(self, tmp_path: Path) -> Network:
        return onnx_network(tmp_path)

    @pytest.fixture
    def unsupported(self, tmp_path: Path) -> Path:
        return onnx_network(tmp_path, activation="NoSuchOperator").path

    def test_names_the_operator_that_it_lacks(self, unsupported: Path) -> None:
        with pytest.raises(AgentError, match="NoSuchOperator"):
            runtimes.open("openvino", unsupported)

    def test_open_batch_needs_a_shape(self, tmp_path: Path) -> None:
        path = onnx_network(tmp_path, batch="N").path
        with pytest.raises(AgentError, match="open shape \\?x3x8x8") as caught:
            runtimes.open("openvino", path)
        assert caught.value.kind == "bad_request"
        with runtimes.open("openvino", path, inputs=[runtimes.InputRequest(shape=(5, 3, 8, 8))]) as session:
            inputs = session.random_inputs(0)
            session.set_inputs(inputs)
            session.invoke()
            np.testing.assert_allclose(session.outputs()[0], eager(inputs[0]), atol=1e-5)

    def test_shape_that_contradicts_the_file(self, network: Network) -> None:
        with pytest.raises(AgentError, match="cannot run as 1x3x9x9"):
            runtimes.open("openvino", network.path, inputs=[runtimes.InputRequest(shape=(1, 3, 9, 9))])

    def test_out_of_memory(self, tmp_path: Path) -> None:
        from onnx import TensorProto, helper

        size = helper.make_tensor("size", TensorProto.INT64, [2], [1 << 22, 1 << 22])
        path = onnx_graph(tmp_path, [helper.make_node("ConstantOfShape", ["size"], ["y"])], [1], [size])
        with pytest.raises(AgentError) as caught:
            runtimes.open("openvino", path)
        assert caught.value.kind == "out_of_memory"

    @pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"])
    def test_inputs_of_every_type_arrive(self, tmp_path: Path, dtype: str) -> None:
        import onnx
        from onnx import helper

        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        ends = [helper.make_tensor_value_info(name, kind, [2, 3]) for name in "xy"]
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "graph", ends[:1], ends[1:])
        path = tmp_path / "identity.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
        with runtimes.open("openvino", path) as session:
            assert session.inputs[0].dtype == dtype
            (array,) = session.random_inputs(0)
            session.set_inputs([array])
            session.invoke()
            np.testing.assert_array_equal(session.outputs()[0], array)

    def test_no_gpu_is_said(self, network: Network) -> None:
        import openvino

        if any(name.startswith("GPU") for name in openvino.Core().available_devices):
            pytest.skip("this machine has a GPU that OpenVINO runs on")
        with pytest.raises(AgentError, match="finds no GPU here, only CPU") as caught:
            runtimes.open("openvino", network.path, accelerator="gpu")
        assert caught.value.kind == "runtime_missing"

    def test_more_threads_than_cpus_are_refused(self, network: Network) -> None:
        """OpenVINO would run on fewer, and say so nowhere but in a property."""
        with pytest.raises(AgentError, match=r"not on 1000: .* CPU") as caught:
            self.open(network, threads=1000)
        assert caught.value.kind == "bad_request"


def in_a_new_process(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_computes_in_the_networks_own_precision(tmp_path: Path, dtype: str) -> None:
    """Left alone, OpenVINO computes everything in bfloat16 where the CPU has instructions for it."""
    import onnx
    import openvino
    from onnx import helper

    kind = getattr(onnx.TensorProto, dtype.upper())
    one = {"float16": 0x3C00, "bfloat16": 0x3F80}[dtype]
    weights = helper.make_tensor("w", kind, [3, 3], np.full(9, one, "<u2").tobytes(), raw=True)
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=kind),
        helper.make_node("MatMul", ["a", "w"], ["b"]),
        helper.make_node("Cast", ["b"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    path = onnx_graph(tmp_path, nodes, [2, 3], [weights])
    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    name, ability = {"float16": ("f16", "FP16"), "bfloat16": ("bf16", "BF16")}[dtype]
    expected = name if ability in able else "f32"
    with runtimes.open("openvino", path) as session:
        assert session.provider == f"CPU {expected}"
        (array,) = session.random_inputs(0)
        session.set_inputs([array])
        session.invoke()
        np.testing.assert_allclose(session.outputs()[0], array @ np.ones((3, 3), np.float32), atol=0.05)


def test_its_threads_stay_on_the_workers_cpus(tmp_path: Path) -> None:
    """With its own pinning, OpenVINO moves threads, the caller's too, to CPUs that the worker was not given."""
    path = onnx_network(tmp_path).path
    program = """
import os, sys
cpu = max(os.sched_getaffinity(0))
os.sched_setaffinity(0, {cpu})
from latlab.agents import runtimes
session = runtimes.open("openvino", sys.argv[1])
session.set_inputs(session.random_inputs(0))
with session.running() as infer:
    for _ in range(100):
        infer()
    print(all(os.sched_getaffinity(int(thread)) == {cpu} for thread in os.listdir("/proc/self/task")))
"""
    assert in_a_new_process(program, str(path)) == "True\n"


def test_its_telemetry_is_off() -> None:
    """Telemetry, where it is installed, is not even imported: `import openvino` alone would report itself."""
    if not list(metadata.distributions(name="openvino-telemetry")):
        pytest.skip("openvino_telemetry is not installed")
    program = """
import sys
from latlab.agents import runtimes
runtimes.load_runtime("openvino")
print("openvino" in sys.modules, [name for name in sys.modules if "openvino_telemetry" in name and sys.modules[name]])
"""
    assert in_a_new_process(program) == "True []\n"


def test_as_many_threads_as_cpus(tmp_path: Path) -> None:
    count = len(os.sched_getaffinity(0))
    network = onnx_network(tmp_path)
    with runtimes.open("openvino", network.path, threads=count) as session:
        session.set_inputs(session.random_inputs(0))
        session.invoke()
