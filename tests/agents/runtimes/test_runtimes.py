"""Tests of the three runtimes: the conformance suite for each, and what only one of them does."""

from __future__ import annotations

import zipfile
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import numpy as np
import pytest
from runtime_conformance import RuntimeConformance
from tiny_networks import (
    Network,
    eager,
    eager_module,
    heavy_onnx,
    heavy_torchscript,
    onnx_graph,
    onnx_network,
    tflite_network,
    torchscript_network,
)

from latlab.agents import runtimes
from latlab.agents.execution.sampling import take_device_samples, take_samples
from latlab.agents.execution.stopping import Sampling
from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.pass_request import PassRequest
from latlab.agents.runtimes import Delegation, Session, cuda
from latlab.agents.runtimes import onnxruntime as ort_session
from latlab.agents.runtimes.torchscript import TorchClock
from latlab.agents.system import nvml

PROVIDERS = __import__("onnxruntime").get_available_providers()
FOREVER = 1 << 62


def runs(count: int) -> Sampling:
    return Sampling(PassRequest(warmup=0, runs=count))


HEAVY = (8, 64, 128, 128)

# torch.jit is deprecated, and what there is.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


def huge_onnx(folder: Path) -> Path:
    from onnx import TensorProto, helper

    size = helper.make_tensor("size", TensorProto.INT64, [2], [1 << 22, 1 << 22])
    return onnx_graph(folder, [helper.make_node("ConstantOfShape", ["size"], ["y"])], [1], [size])


def huge_torchscript(folder: Path) -> Path:
    import torch

    class Huge(torch.nn.Module):
        def forward(self, x):
            return x.expand(1 << 50).clone()  # more than fits into an address

    path = folder / "huge.torchscript"
    torch.jit.script(Huge()).save(str(path))
    return path


def unknown_operator(folder: Path) -> Path:
    """Replace the name of an operator in a TorchScript file, which is a zip archive of code."""
    network = torchscript_network(folder)
    path = folder / "unknown.torchscript"
    with zipfile.ZipFile(network.path) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith(".py"):
                content = content.replace(b"torch.tanh(", b"torch.no_such_operator(")
            new.writestr(entry, content)
    return path


class Stream:
    """A stand-in for CUDA's clock that has nothing but the address of a stream."""

    stream = 4096


@pytest.fixture
def cuda_build(monkeypatch: pytest.MonkeyPatch) -> Stream:
    """An onnxruntime that says it was built with CUDA, on a machine that has a driver."""
    import onnxruntime

    if "CUDAExecutionProvider" in PROVIDERS:
        pytest.skip("this build has CUDA")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ("CUDAExecutionProvider", *PROVIDERS))
    monkeypatch.setattr(cuda, "event_clock", Stream)
    monkeypatch.setattr(cuda, "pci_bus_id", lambda: "0000:17:00.0")
    return Stream()


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
        with runtimes.open("onnxruntime", path, inputs=[runtimes.InputRequest(shape=(5, 3, 8, 8))]) as session:
            inputs = session.random_inputs(0)
            session.set_inputs(inputs)
            session.invoke()
            np.testing.assert_allclose(session.outputs()[0], eager(inputs[0]), atol=1e-5)

    def test_shape_that_contradicts_the_file(self, network: Network) -> None:
        with pytest.raises(AgentError, match="cannot run as 1x3x9x9"):
            runtimes.open("onnxruntime", network.path, inputs=[runtimes.InputRequest(shape=(1, 3, 9, 9))])

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
        path = huge_onnx(tmp_path)

        def run() -> None:
            with runtimes.open("onnxruntime", path) as session:  # up to 1.27 this fails already
                session.set_inputs(session.random_inputs(0))
                session.invoke()

        with pytest.raises(AgentError) as caught:
            run()
        assert caught.value.kind == "out_of_memory"

    def test_cuda_in_a_build_without(self, network: Network) -> None:
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            pytest.skip("this build has CUDA")
        with pytest.raises(AgentError, match=r"without CUDA: .*pip install 'onnxruntime-gpu") as caught:
            runtimes.open("onnxruntime", network.path, accelerator="cuda")
        assert caught.value.kind == "runtime_missing"

    @pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
    def test_a_cuda_provider_that_does_not_start_is_an_error(self, network: Network, cuda_build: Stream) -> None:
        """What ORT does when a library of CUDA is missing: a session that has the CPU alone, and a warning."""
        with pytest.raises(AgentError, match=r"for CUDAExecutionProvider, got CPU.*\[cuda,cudnn\]") as caught:
            runtimes.open("onnxruntime", network.path, accelerator="cuda")
        assert caught.value.kind == "runtime_missing"

    def test_a_driver_that_is_too_old(
        self, network: Network, cuda_build: Stream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What onnxruntime-gpu 1.31.1 says, recorded, shortened at the dots."""

        def refuse(*_: object, **__: object) -> None:
            raise RuntimeError(
                "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:137 ... [with ERRTYPE = cudaError; bool "
                "THRW = true; SUCCTYPE = cudaError; std::conditional_t<THRW, void, common::Status> = void] "
                "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; "
                "file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider.cc ; line=355 ; "
                "expr=cudaSetDevice(info_.device_id); "
            )

        monkeypatch.setattr("onnxruntime.InferenceSession", refuse)
        with pytest.raises(AgentError, match=r"^CUDA failure 35: CUDA driver version is insufficient") as caught:
            runtimes.open("onnxruntime", network.path, accelerator="cuda")
        assert caught.value.kind == "runtime_missing"

    def test_nodes_that_fall_back_to_the_cpu_are_an_error(
        self, network: Network, cuda_build: Stream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every CPU build has a second provider that starts, and takes no node of this network."""
        monkeypatch.setattr(ort_session.CUDASession, "provider", "AzureExecutionProvider")
        with pytest.raises(AgentError, match=r"on the CPU 1 x Conv, 1 x Relu, 1 x Tanh\. ") as caught:
            runtimes.open("onnxruntime", network.path, accelerator="cuda")
        assert caught.value.kind == "unsupported_op"

    def test_bound_inputs_and_outputs(
        self, network: Network, cuda_build: Stream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All of a session for CUDA but CUDA: binding, a run that only queues, outputs, on the CPU's provider."""
        monkeypatch.setattr(ort_session, "DEVICE", "cpu")
        monkeypatch.setattr(ort_session.CUDASession, "provider", "CPUExecutionProvider")
        monkeypatch.setattr(ort_session.CUDASession, "_open", ort_session.ONNXRuntimeSession._open)
        with runtimes.open("onnxruntime", network.path, accelerator="cuda") as session:
            for seed in range(2):
                inputs = session.random_inputs(seed)
                session.set_inputs(inputs)
                with session.running() as infer:
                    infer()
                session.invoke()
                first = session.outputs()[0]
                np.testing.assert_allclose(first, eager(inputs[0]), atol=1e-5)
            kept = first.copy()
            session.set_inputs(session.random_inputs(5))
            session.invoke()
            np.testing.assert_array_equal(first, kept)
            assert np.abs(session.outputs()[0] - first).max() > 0.1


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
            runtimes.open("tflite", network.path, inputs=[runtimes.InputRequest(shape=(1, 3, 8, 8))])


class FakeTorch:
    """The part of `torch.cuda` that a clock needs."""

    def __init__(self) -> None:
        self.now_ms, self.synchronised = 1.0, 0
        outer = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = outer.now_ms

            def elapsed_time(self, end: Event) -> float:
                return end.at - self.at

        def synchronize() -> None:
            outer.synchronised += 1

        self.cuda = SimpleNamespace(Event=Event, synchronize=synchronize)


class TestTorchScript(RuntimeConformance):
    runtime = "torchscript"
    provider = "cpu"

    @pytest.fixture
    def network(self, tmp_path: Path) -> Network:
        return torchscript_network(tmp_path)

    @pytest.fixture
    def unsupported(self, tmp_path: Path) -> Path:
        return unknown_operator(tmp_path)

    def test_without_a_shape_inputs_are_free(self, network: Network) -> None:
        with runtimes.open("torchscript", network.path) as session:
            assert session.inputs == ()
            with pytest.raises(AgentError, match="does not keep its input's shape"):
                session.random_inputs(0)
            array = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
            session.set_inputs([array])
            session.invoke()
            np.testing.assert_allclose(session.outputs()[0], eager(array), atol=1e-5)

    def test_cuda_in_a_build_without(self, network: Network) -> None:
        import torch

        if torch.version.cuda is not None:
            pytest.skip("this build has CUDA")
        with pytest.raises(AgentError, match="built without CUDA: pip install") as caught:
            runtimes.open("torchscript", network.path, accelerator="cuda")
        assert caught.value.kind == "runtime_missing"

    def test_cuda_without_a_gpu(self, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch

        monkeypatch.setattr(torch.version, "cuda", "12.6")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(AgentError, match=r"\(CUDA 12\.6\) finds no GPU: nvidia-smi") as caught:
            runtimes.open("torchscript", network.path, accelerator="cuda")
        assert caught.value.kind == "runtime_missing"

    def test_out_of_memory(self, tmp_path: Path) -> None:
        with runtimes.open(
            "torchscript", huge_torchscript(tmp_path), inputs=[runtimes.InputRequest(shape=(1,))]
        ) as session:
            session.set_inputs(session.random_inputs(0))
            with pytest.raises(AgentError) as caught:
                session.invoke()
        assert caught.value.kind == "out_of_memory"

    def test_the_clock_of_torch(self) -> None:
        torch = FakeTorch()
        clock = TorchClock(torch)
        clock.start()
        torch.now_ms += 2.5
        clock.stop()
        clock.wait()
        assert torch.synchronised == 1
        assert clock.elapsed_ns() == 2_500_000

    def test_a_module_that_was_not_frozen_is(self, tmp_path: Path) -> None:
        import torch

        path = tmp_path / "trained.pt"
        torch.jit.trace(eager_module().train(), torch.zeros(1, 3, 8, 8), check_trace=False).save(path)
        with runtimes.open("torchscript", path, inputs=[runtimes.InputRequest(shape=(1, 3, 8, 8))]) as session:
            inputs = session.random_inputs(0)
            session.set_inputs(inputs)
            session.invoke()
            np.testing.assert_allclose(session.outputs()[0], eager(inputs[0]), atol=1e-5)

    def test_a_shape_that_the_network_cannot_take(self, network: Network) -> None:
        with runtimes.open("torchscript", network.path, inputs=[runtimes.InputRequest(shape=(1, 5, 8, 8))]) as session:
            session.set_inputs(session.random_inputs(0))
            with pytest.raises(AgentError) as caught:
                session.invoke()
        assert caught.value.kind == "crash"
        assert caught.value.message
        assert caught.value.message in " ".join(str(caught.value.__cause__).split())  # the line of torch that says why

    def test_threads_are_set_when_it_runs(self, network: Network) -> None:
        import torch

        with (
            runtimes.open(
                "torchscript", network.path, threads=2, inputs=[runtimes.InputRequest(shape=network.input_shape)]
            ) as two,
            runtimes.open(
                "torchscript", network.path, threads=1, inputs=[runtimes.InputRequest(shape=network.input_shape)]
            ) as one,
        ):
            for session, threads in ((two, 2), (one, 1), (two, 2)):
                session.set_inputs(session.random_inputs(0))
                with session.running():
                    assert torch.get_num_threads() == threads
        torch.set_num_threads(1)


class CUDAConformance(RuntimeConformance):
    """The tests that a GPU adds to the conformance suite."""

    accelerator = "cuda"

    @pytest.fixture
    def heavy(self, tmp_path: Path) -> Path:
        """A network that keeps a GPU busy for longer than it takes to launch."""
        raise NotImplementedError

    @pytest.fixture
    def huge(self, tmp_path: Path) -> Path:
        """A network that needs more memory than any GPU has."""
        raise NotImplementedError

    def test_names_its_gpu(self, session: Session) -> None:
        assert session.gpu
        assert nvml.find(session.gpu) is not None

    def test_events_agree_with_the_hosts_clock(self, heavy: Path) -> None:
        with runtimes.open(
            self.runtime, heavy, accelerator="cuda", inputs=[runtimes.InputRequest(shape=HEAVY)]
        ) as session:
            session.set_inputs(session.random_inputs(0))
            clock = session.clock
            assert clock is not None
            with session.running() as infer:
                take_device_samples(infer, clock, runs(5), FOREVER)
                taken = take_device_samples(infer, clock, runs(20), FOREVER)

                def both() -> None:
                    infer()
                    clock.wait()

                waited = median(take_samples(both, runs(20), FOREVER))
        assert median(taken.samples_ns) == pytest.approx(waited, rel=0.1, abs=30_000)
        assert median(taken.launch_ns) < waited

    def test_a_launch_takes_time(self, session: Session) -> None:
        session.set_inputs(session.random_inputs(0))
        assert session.clock is not None
        with session.running() as infer:
            taken = take_device_samples(infer, session.clock, runs(20), FOREVER, gpu=nvml.find(session.gpu))
        assert all(1000 < launch < 100_000_000 for launch in taken.launch_ns)
        assert all(1000 < sample < 100_000_000 for sample in taken.samples_ns)
        assert taken.discarded <= 20
        assert len(taken.sm_mhz) == 20

    def test_out_of_memory_and_after_it(self, huge: Path, network: Network) -> None:
        with runtimes.open(
            self.runtime, huge, accelerator="cuda", inputs=[runtimes.InputRequest(shape=(1,))]
        ) as session:
            session.set_inputs(session.random_inputs(0))
            with pytest.raises(AgentError) as caught:
                session.invoke()
        assert caught.value.kind == "out_of_memory"
        with self.open(network) as session:
            session.set_inputs(session.random_inputs(0))
            session.invoke()


@pytest.mark.gpu
class TestONNXRuntimeCUDA(CUDAConformance):
    runtime = "onnxruntime"
    provider = "CUDAExecutionProvider"

    @pytest.fixture(autouse=True)
    def build(self) -> None:
        if "CUDAExecutionProvider" not in PROVIDERS:
            pytest.skip("onnxruntime was built without CUDA")

    @pytest.fixture
    def network(self, tmp_path: Path) -> Network:
        return onnx_network(tmp_path)

    @pytest.fixture
    def unsupported(self, tmp_path: Path) -> Path:
        return onnx_network(tmp_path, activation="NoSuchOperator").path

    @pytest.fixture
    def heavy(self, tmp_path: Path) -> Path:
        return heavy_onnx(tmp_path, list(HEAVY), layers=16)

    @pytest.fixture
    def huge(self, tmp_path: Path) -> Path:
        return huge_onnx(tmp_path)


@pytest.mark.gpu
class TestTorchScriptCUDA(CUDAConformance):
    runtime = "torchscript"
    provider = "cuda"

    @pytest.fixture(autouse=True)
    def build(self) -> None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("torch was built without CUDA")

    @pytest.fixture
    def network(self, tmp_path: Path) -> Network:
        return torchscript_network(tmp_path)

    @pytest.fixture
    def unsupported(self, tmp_path: Path) -> Path:
        return unknown_operator(tmp_path)

    @pytest.fixture
    def heavy(self, tmp_path: Path) -> Path:
        return heavy_torchscript(tmp_path, list(HEAVY), layers=16)

    @pytest.fixture
    def huge(self, tmp_path: Path) -> Path:
        return huge_torchscript(tmp_path)


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
