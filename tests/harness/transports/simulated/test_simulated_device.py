"""What a simulated device does, faults and all, as a controller sees it."""

from __future__ import annotations

import gc
import hashlib
import math
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from simulated_devices import NETWORK, Connect, S

from latlab.harness.inventory.inventory import load_inventory
from latlab.harness.transports import ConnectError, DeviceLostError, ProtocolError, WorkerError
from latlab.harness.transports.simulated.config import Heating, Noise, SimulatedDevice
from latlab.harness.transports.simulated.device import simulated_device
from latlab.harness.transports.simulated.transport import SimulatedTransport

Load = Callable[..., int]
Time = Callable[..., list[int]]


def hello(transport: SimulatedTransport, **fields: Any) -> dict[str, Any]:
    return transport.request("hello", S, protocol=1, **fields)


# Latencies


def test_samples_are_the_truth(connect: Connect, load: Load, time: Time) -> None:
    worker = connect()
    truth_ns = round(worker.device.true_latency_ms(NETWORK) * 1e6)
    assert time(worker, load(worker), 5) == [truth_ns] * 5
    batch = worker.device.true_latency_ms(NETWORK, batch_size=8, threads=2)
    assert time(worker, load(worker, threads=2, inputs=[{"shape": [8, 3, 32, 32]}]), 1) == [round(batch * 1e6)]


def test_samples_are_noisy_around_it(connect: Connect, load: Load, time: Time) -> None:
    worker = connect(noise={"sigma": 0.05})
    samples = time(worker, load(worker), 5000)
    assert np.mean(samples) / 1e6 == pytest.approx(worker.device.true_latency_ms(NETWORK), rel=0.004)
    assert np.std(samples) / np.mean(samples) == pytest.approx(0.05, rel=0.05)


def test_the_same_requests_bring_the_same_samples(connect: Connect, load: Load, time: Time) -> None:
    def history(**fields: Any) -> list[int]:
        worker = connect(kind="phone", **fields)
        samples = []
        for _ in range(3):
            samples += time(worker, load(worker))
            worker.request("telemetry", S)  # how often the controller looks is up to its clock
            worker.close()
            worker.start()
            hello(worker)
        worker.close()
        return samples

    first = history(seed=4)
    assert history(seed=4) == first
    assert history(seed=5) != first
    assert history(seed=4, name="other") != first


def test_heat_shows_in_telemetry_and_in_latencies(connect: Connect, load: Load) -> None:
    heating = {"watts": 10, "ambient_c": 40, "c_per_watt": 6, "time_constant_s": 10, "throttle_c": 80}
    worker = connect(heating={**heating, "throttle_factor": 1.25}, rest_ms=0)
    timing = {"handle": load(worker), "warmup": 0, "runs": 100, "deadline_s": 60}
    replies = [worker.request("time", 70, **timing) for _ in range(200)]
    cold, hot = replies[0], replies[-1]
    assert cold["telemetry"]["before"]["temperature_c"]["soc"] < 45
    assert "throttled" not in cold
    assert hot["throttled"] is True
    assert hot["samples_ns"][0] / cold["samples_ns"][0] == pytest.approx(1.25, rel=1e-3)
    assert cold["telemetry"]["before"]["frequency_mhz"][0] == 1000
    assert hot["telemetry"]["after"]["frequency_mhz"][0] == 800
    assert hot["telemetry"]["after"]["temperature_c"]["soc"] == pytest.approx(88, abs=0.1)


def test_it_cannot_be_taken_for_a_real_device(connect: Connect, load: Load) -> None:
    worker = connect(kind="pi4")
    facts = hello(worker)
    assert facts["simulated"] is True
    assert facts["fingerprint"]["simulated"] is True
    assert {runtime["version"] for runtime in facts["runtimes"].values()} == {"simulated"}
    assert "simulated" in facts["cpus"]["model"]
    assert worker.request("telemetry", S)["simulated"] is True


def test_fingerprints_tell_simulations_apart(connect: Connect) -> None:
    def identity(**fields: Any) -> str:
        worker = connect(**fields)
        text: str = hello(worker)["fingerprint"]["id"]
        worker.close()
        return text

    assert identity(noise={"sigma": 0.1}) == identity(noise={"sigma": 0.1}, pace=0.5)
    assert identity(noise={"sigma": 0.1}) != identity(noise={"sigma": 0.2})


def test_a_pass_by_rules_on_its_own_clock(connect: Connect, load: Load) -> None:
    worker = connect(noise={"sigma": 0.002}, rest_ms=0)
    fields = {"handle": load(worker), "deadline_s": 60, "runs": 5}
    true_ms = worker.device.true_latency_ms(NETWORK)
    for _ in range(2):
        began_s = worker.device.process.now_s
        reply = worker.request("time", 70, warmup=3, max_warmup=9, pass_s=1.0, **fields)
        assert reply["at_s"] - began_s == pytest.approx(sum(reply["warmup_ns"]) / 1e9, rel=1e-3)
        assert reply["settled"] is True
        assert len(reply["samples_ns"]) == pytest.approx(1000 / true_ms, rel=0.02)
    reply = worker.request("time", 70, warmup=0, max_pass_s=2.5 * true_ms / 1e3, **fields)
    assert len(reply["samples_ns"]) == 3
    assert "settled" not in reply
    reply = worker.request("time", 70, warmup=0, stop="stdrel", max_pass_s=15, **fields)
    assert len(reply["samples_ns"]) == 5  # its noise is below .5 %
    began_s = worker.device.process.now_s
    reply = worker.request("time", 70, warmup=0, overheads=1_000_000, **fields)  # a tenth of a second
    assert reply["calls"] == math.ceil(100 / true_ms)
    assert reply["samples_ns"][0] / 1e6 == pytest.approx(true_ms, rel=0.01)
    took_s = worker.device.process.now_s - began_s
    assert took_s == pytest.approx(sum(reply["samples_ns"]) * reply["calls"] / 1e9, rel=1e-3)


# Pace


def test_pace(connect: Connect, load: Load, time: Time) -> None:
    for pace in (0.0, 0.2):
        worker = connect(f"pace {pace}", pace=pace, rest_ms=0)
        handle = load(worker)
        runs = round(3000 / worker.device.true_latency_ms(NETWORK))
        start = perf_counter()
        took_s = sum(time(worker, handle, runs)) / 1e9
        assert pace * took_s <= perf_counter() - start < pace * took_s + took_s / 2


def test_what_takes_too_long_is_cut_off(connect: Connect, load: Load) -> None:
    """At pace 0 a deadline passes on the device's own clock: nobody waits."""
    worker = connect()
    handle = load(worker)
    start = monotonic()
    with pytest.raises(WorkerError, match="deadline passed after") as caught:
        worker.request("time", 70, handle=handle, warmup=0, runs=100_000, deadline_s=20)
    assert caught.value.kind == "timeout"
    with pytest.raises(DeviceLostError, match=r"no reply to 'time' within 10 s"):
        worker.request("time", 10, handle=handle, warmup=0, runs=100_000, deadline_s=20)
    assert monotonic() - start < 5


# Who holds it


def test_a_second_controller_with_the_same_inventory(connect: Connect) -> None:
    first = connect("shared", seed=3)
    second = SimulatedTransport.from_config("shared", SimulatedDevice(kind="ideal", seed=3))
    second.start()
    with pytest.raises(WorkerError, match=r"in use by worker process \d+") as caught:
        hello(second)
    assert caught.value.kind == "busy"
    token = hello(first)["lease"]["token"]
    first.close()
    assert hello(second)["lease"]["token"] == token + 1
    second.close()


def test_a_worker_left_behind_makes_way_for_its_own_controller(connect: Connect) -> None:
    config = SimulatedDevice(kind="ideal")
    old, new, foreign = (SimulatedTransport.from_config("left", config) for _ in range(3))
    for transport in (old, new, foreign):
        transport.start()
    hello(old, owner="a" * 32)
    with pytest.raises(WorkerError, match="in use"):
        hello(foreign, owner="b" * 32)
    hello(new, owner="a" * 32)
    with pytest.raises(DeviceLostError, match="made way"):
        old.request("telemetry", S)
    for transport in (new, foreign):
        transport.close()


def test_an_idle_worker_leaves(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = connect()
    hello(worker, idle_s=60)
    later = monotonic() + 61
    monkeypatch.setattr("latlab.harness.transports.simulated.processes.time.monotonic", lambda: later)
    with pytest.raises(DeviceLostError, match="no request came for 60 s"):
        worker.request("telemetry", S)


def test_a_worker_is_not_idle_while_it_works(connect: Connect, load: Load) -> None:
    worker = connect(pace=1.0)
    handle = load(worker)
    hello(worker, idle_s=1)
    runs = round(1500 / worker.device.true_latency_ms(NETWORK))
    worker.request("time", S, handle=handle, warmup=0, runs=runs, deadline_s=S)
    worker.request("telemetry", S)


# Faults


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("hang", DeviceLostError, "no reply to 'time' within"),
        ("crash", DeviceLostError, "was killed by SIGSEGV during 'time'"),
        ("disconnect", DeviceLostError, "link was cut"),
        ("refuse", DeviceLostError, "link was cut"),
        ("garbage", ProtocolError, "broken reply"),
    ],
)
def test_faults_that_cost_the_worker(
    connect: Connect, load: Load, time: Time, kind: Any, error: type[DeviceLostError], words: str
) -> None:
    worker = connect()
    handle = load(worker)
    worker.inject(kind, after_requests=2, verb="time", connects=2)
    for _ in range(2):
        assert time(worker, handle)
    start = monotonic()
    with pytest.raises(error, match=words) as caught:
        time(worker, handle)
    assert monotonic() - start < 10  # its deadline is 70 s
    assert caught.value.timed_out == (kind == "hang")
    assert caught.value.unreachable == (kind in ("disconnect", "refuse"))
    if kind == "disconnect":
        for _ in range(2):
            with pytest.raises(ConnectError, match="no route") as refused:
                worker.start()
            assert not refused.value.lasting
    if kind == "refuse":
        with pytest.raises(ConnectError, match="host key") as refused:
            worker.start()
        assert refused.value.lasting
        worker.device.heal()
    worker.start()
    hello(worker)
    assert time(worker, load(worker))


@pytest.mark.parametrize("kind", ["hang", "crash"])
def test_a_hang_at_pace_1_lasts_until_the_deadline(connect: Connect, kind: Any) -> None:
    worker = connect(pace=1.0)
    worker.inject(kind, verb="telemetry")
    start = monotonic()
    with pytest.raises(DeviceLostError):
        worker.request("telemetry", 0.8)
    assert (monotonic() - start > 0.79) == (kind == "hang")


def test_a_full_disk(connect: Connect, load: Load, tmp_path: Path) -> None:
    worker = connect()
    worker.inject("no_space")
    with pytest.raises(WorkerError, match="No space left") as caught:
        load(worker)
    assert caught.value.kind == "no_space"
    assert load(worker)


@pytest.mark.parametrize("on_disk", [True, False])
def test_networks_that_change_on_the_device(connect: Connect, load: Load, tmp_path: Path, on_disk: bool) -> None:
    worker = connect(work=tmp_path / "work" if on_disk else None)
    load(worker)
    worker.inject("corrupt", verb="load")
    with pytest.raises(WorkerError) as caught:
        load(worker)
    assert caught.value.kind == "corrupt_artifact"
    assert load(worker)


def test_a_device_taken_over(connect: Connect, load: Load, time: Time) -> None:
    worker = connect()
    handle, token = load(worker), hello(worker)["lease"]["token"]
    worker.inject("lease_lost")
    with pytest.raises(WorkerError, match="taken over") as caught:
        time(worker, handle)
    assert caught.value.kind == "lease_lost"
    with pytest.raises(DeviceLostError, match="exit code 0"):
        time(worker, handle)
    worker.start()
    assert hello(worker)["lease"]["token"] > token + 1


def test_faults_by_chance_come_as_often_as_asked(connect: Connect, load: Load, time: Time) -> None:
    worker = connect(faults={"hangs": 0.02, "crashes": 0.01, "disconnects": 0.03})
    lost = {"no reply": 0, "SIGSEGV": 0, "link was cut": 0}
    handle, n = load_again(worker, load), 6000
    for _ in range(n):
        try:
            time(worker, handle, 1)
        except DeviceLostError as error:
            lost[next(words for words in lost if words in error.message)] += 1
            handle = load_again(worker, load)
    for count, probability in zip(lost.values(), (0.02, 0.01, 0.03), strict=True):
        assert count == pytest.approx(n * probability, rel=0.35)


def load_again(worker: SimulatedTransport, load: Load) -> int:
    while True:
        try:
            worker.start()
            hello(worker)
            return load(worker)
        except DeviceLostError:
            continue


def test_networks_that_do_not_run(connect: Connect, load: Load) -> None:
    for faults, kind, words in (
        ({"unsupported": 1.0}, "unsupported_op", "not implemented"),
        ({"unsupported_kinds": ["pool", "add"]}, "unsupported_op", "add"),
        ({"max_params": 1000}, "out_of_memory", "do not fit"),
    ):
        worker = connect(str(kind) + words, faults=faults)
        with pytest.raises(WorkerError, match=words) as caught:
            load(worker)
        assert caught.value.kind == kind
    assert load(connect("fits", faults={"unsupported_kinds": ["hswish"], "max_params": 10**7}))
    with pytest.raises(WorkerError, match="cannot run as 1x3x7x7"):
        load(connect("shape"), inputs=[{"shape": [1, 3, 7, 7]}])


def test_which_networks_are_unsupported_stays_the_same() -> None:
    def lacking(seed: int) -> list[bool]:
        config = SimulatedDevice.model_validate({"seed": seed, "faults": {"unsupported": 0.3}})
        faults = simulated_device("sim", config).faults
        return [faults.lacks_operator(hashlib.sha256(b"%d" % n).hexdigest()) for n in range(1000)]

    assert lacking(1) == lacking(1)
    assert lacking(1) != lacking(2)
    assert np.mean(lacking(1)) == pytest.approx(0.3, abs=0.05)


# The inventory


INVENTORY = """
devices:
  pretend-pi:
    transport: simulated
    kind: pi4
    noise: {sigma: 0.1}
    heating: {throttle_c: 70}
  cool:
    transport: simulated
    kind: pi4
    heating: null
    faults:
      hangs: 0.001
      schedule:
        - {kind: disconnect, after_requests: 10, connects: 2}
"""


def test_an_inventory(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yaml"
    path.write_text(INVENTORY)
    devices = load_inventory(path).devices
    pi, cool = devices["pretend-pi"], devices["cool"]
    assert isinstance(pi, SimulatedDevice)
    assert isinstance(cool, SimulatedDevice)
    assert (pi.noise.sigma, pi.noise.autocorrelation, pi.cost.peak_gflops) == (0.1, 0.4, 7.0)
    assert pi.heating is not None
    assert (pi.heating.throttle_c, pi.heating.ambient_c) == (70, 48)
    assert cool.heating is None
    assert cool.faults.schedule[0].connects == 2
    assert SimulatedDevice(kind="ideal").noise == Noise()
    assert SimulatedDevice(kind="server").heating is None
    assert SimulatedDevice(kind="server", heating=Heating()).heating == Heating()


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "toaster"},
        {"pace": -1},
        {"seed": -1},
        {"column": "raspi4"},
        {"noise": {"sigma": -0.1}},
        {"noise": {"loud": True}},
        {"noise": 3},
        {"faults": {"hangs": 1.5}},
        {"faults": {"unsupported_kinds": ["hswitch"]}},
        {"faults": {"schedule": [{"kind": "sulk"}]}},
    ],
)
def test_fields_that_make_no_sense(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SimulatedDevice.model_validate(fields)


def test_a_device_remembers_as_long_as_its_configuration_lives() -> None:
    config = SimulatedDevice()
    assert simulated_device("a", config) is simulated_device("a", config)
    assert simulated_device("a", config) is not simulated_device("b", config)
    copy = config.model_copy(update={"seed": 9})
    assert simulated_device("a", copy) is not simulated_device("a", config)
    assert simulated_device("a", copy).config.seed == 9
    forgotten = weakref.ref(simulated_device("a", copy))
    del copy
    gc.collect()
    assert forgotten() is None


def test_a_thousand_are_cheap(load: Load, time: Time) -> None:
    config = SimulatedDevice(kind="phone", faults={"hangs": 1e-9})
    warm = SimulatedTransport.from_config("warm", config)
    warm.start()
    hello(warm)
    load(warm)
    gc.collect()
    tracemalloc.start()
    devices = []
    for n in range(100):
        transport = SimulatedTransport.from_config(f"device {n}", config)
        transport.start()
        hello(transport)
        time(transport, load(transport))
        devices.append(transport)
    gc.collect()
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used / len(devices) < 60_000
