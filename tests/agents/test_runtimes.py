"""The three runtimes, each through the conformance suite, and what is particular to each."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from runtime_conformance import RuntimeConformance
from tiny_networks import Network, eager, eager_module, onnx_network, tflite_network, torchscript_network

from latlab.agents import runtimes
from latlab.agents.errors import AgentError
from latlab.agents.runtimes import Delegation

# torch.jit is deprecated, and what there is.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


class TestONNXRuntime(RuntimeConformance):
    runtime = "onnxruntime"
    provider = "CPUExecutionProvider"

    @pytest.fixture
    def network(self, tmp_path: Path) -> Network:
        return onnx_network(tmp_path)

    @pytest.fixture
    def unsupported(self, tmp_path: Path) -> Path:
        return onnx_network(tmp_path, activation="NoSuchOperator").path

    def test_open_batch_needs_a_shape(self, tmp_path: Path) -> None:
        path = onnx_network(tmp_path, batch="N").path
        with pytest.raises(AgentError, match="open shape \\?x3x8x8") as caught:
            runtimes.open("onnxruntime", path)
        assert caught.value.kind == "bad_request"
        with runtimes.open("onnxruntime", path, input_shape=(5, 3, 8, 8)) as session:
            inputs = session.random_inputs(0)
            session.set_inputs(inputs)
            session.invoke()
            np.testing.assert_allclose(session.outputs()[0], eager(inputs[0]), atol=1e-5)

    def test_shape_that_contradicts_the_file(self, network: Network) -> None:
        with pytest.raises(AgentError, match="cannot run as 1x3x9x9"):
            runtimes.open("onnxruntime", network.path, input_shape=(1, 3, 9, 9))

    def test_another_provider_than_asked_for_is_an_error(
        self, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import onnxruntime

        actual = onnxruntime.InferenceSession

        class FallsBack(actual):  # type: ignore[misc, valid-type]
            def get_providers(self) -> list[str]:
                return ["SlowExecutionProvider"]

        monkeypatch.setattr(onnxruntime, "InferenceSession", FallsBack)
        with pytest.raises(AgentError, match="asked onnxruntime for CPUExecutionProvider") as caught:
            runtimes.open("onnxruntime", network.path)
        assert caught.value.kind == "runtime_missing"

    def test_out_of_memory(self, tmp_path: Path) -> None:
        import onnx
        from onnx import TensorProto, helper

        size = helper.make_tensor("size", TensorProto.INT64, [2], [1 << 22, 1 << 22])
        graph = helper.make_graph(
            [helper.make_node("ConstantOfShape", ["size"], ["y"])],
            "huge",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [size],
        )
        path = tmp_path / "huge.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
        with runtimes.open("onnxruntime", path) as session:
            session.set_inputs(session.random_inputs(0))
            with pytest.raises(AgentError) as caught:
                session.invoke()
        assert caught.value.kind == "out_of_memory"


class TestTFLite(RuntimeConformance):
    runtime = "tflite"
    provider = "XNNPACK"

    @pytest.fixture
    def network(self, tmp_path: Path) -> Network:
        return tflite_network(tmp_path)

    @pytest.fixture
    def unsupported(self, tmp_path: Path) -> Path:
        return tflite_network(tmp_path, custom=True).path

    def test_all_is_delegated(self, network: Network) -> None:
        with runtimes.open("tflite", network.path) as session:
            assert session.delegation == Delegation(operators=2, delegated=2, partitions=1)

    def test_what_xnnpack_does_not_take_shows(self, tmp_path: Path) -> None:
        path = tflite_network(tmp_path, activation="L2_NORMALIZATION").path
        with runtimes.open("tflite", path) as session:
            assert session.delegation == Delegation(operators=2, delegated=1, partitions=1)

    def test_a_package_that_imports_and_cannot_run(self, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
        """What tflite-runtime 2.14.0 does under numpy 2.0.2, recorded."""

        def interpreter(**_: object) -> None:
            cause = ImportError("numpy.core.multiarray failed to import")
            raise SystemError("<built-in method CreateWrapperFromFile> returned a result with an error set") from cause

        monkeypatch.setattr("latlab.agents.runtimes.tflite._interpreter_class", lambda: interpreter)
        with pytest.raises(AgentError, match="numpy<2") as caught:
            runtimes.open("tflite", network.path)
        assert caught.value.kind == "runtime_missing"

    def test_shape_that_contradicts_the_file(self, network: Network) -> None:
        with pytest.raises(AgentError, match="cannot run as 1x3x8x8"):
            runtimes.open("tflite", network.path, input_shape=(1, 3, 8, 8))


class TestTorchScript(RuntimeConformance):
    runtime = "torchscript"
    provider = "cpu"

    @pytest.fixture
    def network(self, tmp_path: Path) -> Network:
        return torchscript_network(tmp_path)

    @pytest.fixture
    def unsupported(self, tmp_path: Path) -> Path:
        """A TorchScript file is a zip of code: exchange the name of an operator in it."""
        network = torchscript_network(tmp_path)
        path = tmp_path / "unknown.torchscript"
        with zipfile.ZipFile(network.path) as old, zipfile.ZipFile(path, "w") as new:
            for entry in old.infolist():
                content = old.read(entry)
                if entry.filename.endswith(".py"):
                    content = content.replace(b"torch.tanh(", b"torch.no_such_operator(")
                new.writestr(entry, content)
        return path

    def test_without_a_shape_inputs_are_free(self, network: Network) -> None:
        with runtimes.open("torchscript", network.path) as session:
            assert session.inputs == ()
            with pytest.raises(AgentError, match="does not keep its input's shape"):
                session.random_inputs(0)
            array = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
            session.set_inputs([array])
            session.invoke()
            np.testing.assert_allclose(session.outputs()[0], eager(array), atol=1e-5)

    def test_a_module_that_was_not_frozen_is(self, tmp_path: Path) -> None:
        import torch

        path = tmp_path / "trained.pt"
        torch.jit.trace(eager_module().train(), torch.zeros(1, 3, 8, 8), check_trace=False).save(path)
        with runtimes.open("torchscript", path, input_shape=(1, 3, 8, 8)) as session:
            inputs = session.random_inputs(0)
            session.set_inputs(inputs)
            session.invoke()
            np.testing.assert_allclose(session.outputs()[0], eager(inputs[0]), atol=1e-5)

    def test_a_shape_that_the_network_cannot_take(self, network: Network) -> None:
        with runtimes.open("torchscript", network.path, input_shape=(1, 5, 8, 8)) as session:
            session.set_inputs(session.random_inputs(0))
            with pytest.raises(AgentError, match="to have 3 channels") as caught:
                session.invoke()
        assert caught.value.kind == "crash"

    def test_threads_are_set_when_it_runs(self, network: Network) -> None:
        import torch

        with (
            runtimes.open("torchscript", network.path, threads=2, input_shape=network.input_shape) as two,
            runtimes.open("torchscript", network.path, threads=1, input_shape=network.input_shape) as one,
        ):
            for session, threads in ((two, 2), (one, 1), (two, 2)):
                session.set_inputs(session.random_inputs(0))
                with session.running():
                    assert torch.get_num_threads() == threads
        torch.set_num_threads(1)


def test_unknown_runtime(tmp_path: Path) -> None:
    path = tmp_path / "net"
    path.touch()
    with pytest.raises(AgentError, match="unknown runtime 'abacus'; latlab knows onnxruntime") as caught:
        runtimes.open("abacus", path)
    assert caught.value.kind == "bad_request"


def test_a_package_that_does_not_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import is not a health check, but a failing one is a finding."""
    broken = tmp_path / "onnxruntime"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('libfoo.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "onnxruntime", raising=False)
    with pytest.raises(AgentError, match=r"does not import: libfoo\.so\.1") as caught:
        runtimes.load_runtime("onnxruntime")
    assert caught.value.kind == "runtime_missing"
