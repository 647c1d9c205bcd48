"""Tests of CUDA's driver: errors without one, events on a stand-in compiled from C, and both on a real GPU."""

from __future__ import annotations

from pathlib import Path

import fake_nvidia
import pytest

from latlab.agents.protocol.errors import AgentError
from latlab.agents.runtimes import cuda
from latlab.agents.runtimes.cuda import Driver, EventClock
from latlab.agents.system import nvml


@pytest.fixture
def library(tmp_path: Path) -> str:
    return fake_nvidia.build(tmp_path, fake_nvidia.CUDA)


def test_events_around_the_work(library: str) -> None:
    clock = EventClock(Driver(library))
    assert clock.stream != 0
    fake_nvidia.set_values(library, now_ms=2.0)
    clock.start()
    fake_nvidia.set_values(library, now_ms=3.25)
    clock.stop()
    clock.wait()
    assert clock.elapsed_ns() == 1_250_000


def test_where_the_gpu_is(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Driver(library).pci_bus_id() == "0000:17:00.0"
    monkeypatch.setattr(cuda, "LIBRARY", library)
    cuda.pci_bus_id.cache_clear()
    try:
        assert cuda.pci_bus_id() == "0000:17:00.0"
    finally:
        cuda.pci_bus_id.cache_clear()


def test_no_driver(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match=r"cannot open shared object.*install NVIDIA's driver") as caught:
        Driver(str(tmp_path / "libcuda.so.1"))
    assert caught.value.kind == "runtime_missing"


def test_a_driver_without_a_gpu(library: str) -> None:
    fake_nvidia.set_values(library, init_status=100)
    with pytest.raises(AgentError, match="cuInit answers CUDA_ERROR_NO_DEVICE") as caught:
        Driver(library)
    assert caught.value.kind == "runtime_missing"


@pytest.mark.parametrize(("status", "kind"), [(2, "out_of_memory"), (700, "crash")])
def test_what_fails_in_the_queue_comes_up_at_the_wait(library: str, status: int, kind: str) -> None:
    clock = EventClock(Driver(library))
    fake_nvidia.set_values(library, synchronize_status=status)
    with pytest.raises(AgentError, match="cuCtxSynchronize answers CUDA_ERROR") as caught:
        clock.wait()
    assert caught.value.kind == kind


@pytest.mark.gpu
def test_a_real_gpu() -> None:
    clock = cuda.event_clock()
    clock.start()
    clock.stop()
    clock.wait()
    assert 0 <= clock.elapsed_ns() < 10_000_000
    assert nvml.find(cuda.pci_bus_id()) is not None
