"""Tests of the worker's replies about a network on a GPU: on a stand-in and on a real one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny_networks import torchscript_network

from latlab.agents import runtimes
from latlab.agents.execution.loaded_models import LoadedModels
from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.messages import Fields, encode
from latlab.agents.runtimes import Session
from latlab.agents.system import nvml
from latlab.agents.system.telemetry import Telemetry
from latlab.harness.transports.reply_validation import check_reply


class Clock:
    def start(self) -> None: ...

    def stop(self) -> None: ...

    def wait(self) -> None: ...

    def elapsed_ns(self) -> int:
        return 400_000


class GPUSession(Session):
    runtime, version, provider, inputs = "made-up", "1", "made-up", ()
    gpu = "0000:17:00.0"

    def __init__(self) -> None:
        self.clock = Clock()
        self.error: Exception | None = None

    def set_inputs(self, arrays: Sequence[Any]) -> None: ...

    def random_inputs(self, seed: int) -> list[Any]:
        return []

    def invoke(self) -> None: ...

    def outputs(self) -> list[Any]:
        return []

    @contextmanager
    def running(self) -> Iterator[Callable[[], object]]:
        yield self.call

    def call(self) -> None:
        if self.error:
            raise self.error

    def explain(self, error: BaseException) -> AgentError:
        return AgentError("out_of_memory", str(error))

    def close(self) -> None: ...


class Card:
    default_sm_mhz, index = 2000, 0

    def __init__(self) -> None:
        self.mhz, self.others = 1900, None

    def sm_mhz(self) -> int:
        return self.mhz

    def idle(self) -> bool:
        return True

    def other_processes(self) -> str | None:
        return self.others


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    card = Card()
    monkeypatch.setattr(nvml, "find", lambda address: card if address == GPUSession.gpu else None)
    return card


class Files:
    """A folder of networks that never change."""

    def path(self, sha256: str, suffix: str) -> str:
        return f"{sha256}{suffix}"

    def signature(self, sha256: str, suffix: str) -> None:
        return None


LOAD = {"sha256": "0" * 64, "suffix": ".pt", "runtime": "made-up", "accelerator": "cuda", "threads": 1, "seed": 0}


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> GPUSession:
    """The runtime session that the worker opens."""
    session = GPUSession()
    monkeypatch.setattr(runtimes, "load_runtime", lambda _: None)
    monkeypatch.setattr(runtimes, "open", lambda *_: session)
    return session


def timed(warmup: int = 1, runs: int = 3) -> dict[str, Any]:
    """Return the reply to a `time` request after the controller has checked it."""
    networks = LoadedModels(Files(), Telemetry())  # type: ignore[arg-type]
    handle = networks.load(Fields(LOAD))["handle"]
    request = {"handle": handle, "warmup": warmup, "runs": runs, "deadline_s": 60}
    reply = networks.time(Fields(request))
    return check_reply(encode({"id": 7, "ok": True, **reply}), 7, "time", request)


def test_a_reply_of_a_gpu(card: Card, session: GPUSession) -> None:
    reply = timed()
    assert reply["samples_ns"] == [400_000] * 3
    assert reply["warmup_ns"] == [400_000]
    assert len(reply["launch_ns"]) == 3
    assert reply["sm_mhz"] == [1900] * 3
    assert (reply["discarded"], reply["throttled"]) == (0, False)
    assert "warnings" not in reply


def test_a_throttled_gpu_with_company(card: Card, session: GPUSession) -> None:
    card.mhz, card.others = 500, "other processes compute on the GPU: 12"
    reply = timed()
    assert (reply["discarded"], reply["throttled"]) == (3, True)
    assert reply["warnings"] == ["other processes compute on the GPU: 12"]


def test_without_nvml_there_are_launches_and_no_clocks(session: GPUSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "find", lambda _: None)
    reply = timed()
    assert set(reply) == {"warmup_ns", "samples_ns", "at_s", "telemetry", "launch_ns", "discarded", "throttled"}


def test_the_runtimes_errors_are_explained(card: Card, session: GPUSession) -> None:
    session.error = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    with pytest.raises(AgentError, match="CUDA out of memory") as caught:
        timed()
    assert caught.value.kind == "out_of_memory"


def test_a_network_on_the_cpu_says_nothing_of_it(session: GPUSession) -> None:
    session.clock = session.gpu = None
    assert set(timed()) == {"warmup_ns", "samples_ns", "at_s", "telemetry"}


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_real_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch was built without CUDA")
    network = torchscript_network(tmp_path)
    session = runtimes.open("torchscript", network.path, 1, "cuda", [runtimes.InputRequest(shape=network.input_shape)])
    monkeypatch.setattr(runtimes, "load_runtime", lambda _: None)
    monkeypatch.setattr(runtimes, "open", lambda *_: session)
    began = time.perf_counter_ns()
    reply = timed(warmup=10, runs=50)
    assert sum(reply["samples_ns"]) < time.perf_counter_ns() - began
    assert len(reply["launch_ns"]) == len(reply["sm_mhz"]) == 50
    assert reply["discarded"] <= 50
    assert reply["telemetry"]["after"]["gpu"][0]["sm_mhz"] > 100
