"""Phones without Python, on a real adbd: a script in the place of `benchmark_model` replays what releases print."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import benchmark_outputs as outputs
import pytest
from peers.fixtures import Peers
from peers.namespaces import find_program
from peers.phone import Phone
from peers.processes import wait_until
from transport_conformance import ANOTHER, ME, Model, S, hello

from latlab.harness.transports import ConnectError, DeviceLostError, WorkerError
from latlab.harness.transports.adb.config import ADBDevice
from latlab.harness.transports.benchmark_model.transport import BenchmarkModelTransport

pytestmark = pytest.mark.peers

PATIENCE_S = 2.0
GRACE_S = 5.0
"""What a busy machine may add to that."""
STAY_ON = "data/system/settings/global/stay_on_while_plugged_in"
SCRIPT = """#!/system/bin/sh
# Replays the output whose name is in the file `say`, with the numbers of runs that it is told to do.
here=/data/local/tmp/replay
[ "$1" = --help ] && {{ echo "usage: benchmark_model"; exit 1; }}
echo "$*" >>$here/arguments
grep Cpus_allowed_list /proc/self/status >$here/affinity
for argument; do case $argument in
--warmup_runs=*) warmup=${{argument#*=}} ;;
--num_runs=*) runs=${{argument#*=}} ;;
esac; done
{body}
read -r say <$here/say
# One run has no statistics but itself.
loops="s/at least 2 iter/at least $warmup iter/; s/at least 10 iter/at least $runs iter/"
loops="$loops; s/count=2 /count=$warmup /; s/count=10 /count=$runs /"
[ $runs = 1 ] && loops="$loops; s/count=1 first=14850 .*/count=1 curr=13520.2/"
if [ $warmup = 1 ]; then
  loops="$loops; s/count=1 first=14744 .*/count=1 curr=14132/; s/First inference: 14744/First inference: 14132/"
fi
sed "$loops" "$here/$say"
read -r status <$here/status
exit $status
"""


class Replay:
    """The script, and what it is to say."""

    def __init__(self, phone: Phone, folder: Path, body: str = "") -> None:
        self._phone, self._home = phone, phone.path("/data/local/tmp/replay")
        phone.run("/system/bin/rm", "-rf", "/data/local/tmp/replay")
        self._home.mkdir()
        self._home.chmod(0o777)
        self.path = folder / "benchmark_model"
        self.path.write_text(SCRIPT.format(body=body))
        self.says(outputs.CURRENT_CPU)

    def says(self, text: str, status: int = 0) -> None:
        (self._home / "output").write_text(text)
        (self._home / "say").write_text("output\n")
        (self._home / "status").write_text(f"{status}\n")

    @property
    def arguments(self) -> list[str]:
        """Of its last run."""
        return (self._home / "arguments").read_text().splitlines()[-1].split()

    @property
    def affinity(self) -> str:
        return (self._home / "affinity").read_text().split()[-1]


@pytest.fixture(scope="module")
def shared_phone(peers: Peers) -> Iterator[Phone]:
    """One without Python."""
    made = peers.phone("bare-phone", with_runtimes=False)
    yield made
    peers.close(made)


@pytest.fixture
def phone(shared_phone: Phone) -> Iterator[Phone]:
    shared_phone.path(STAY_ON).write_text("0\n")
    yield shared_phone
    shared_phone.link_up()
    shared_phone.free_disk()
    if not shared_phone.processes("^/usr/sbin/adbd"):
        shared_phone.start_adbd()
    shared_phone.run("/system/bin/rm", "-rf", "/data/local/tmp/work", "/system/bin/flock")


@pytest.fixture
def replay(phone: Phone, tmp_path: Path) -> Replay:
    return Replay(phone, tmp_path)


@pytest.fixture
def network(tmp_path: Path) -> Model:
    path = tmp_path / "network.tflite"
    path.write_bytes(bytes(4) + b"TFL3" + b"weights" * 1000)
    return Model(path, hashlib.sha256(path.read_bytes()).hexdigest(), ".tflite")


Connect = Callable[..., BenchmarkModelTransport]


@pytest.fixture
def connect(phone: Phone, replay: Replay) -> Connect:
    def connect(**changes: Any) -> BenchmarkModelTransport:
        settings: dict[str, Any] = {
            "host": phone.address,
            "port": phone.port,
            "work": "/data/local/tmp/work",
            "patience_s": PATIENCE_S,
            "benchmark_model": replay.path,
            **changes,
        }
        return BenchmarkModelTransport("drawer", ADBDevice(**settings))

    return connect


@pytest.fixture
def worker(connect: Connect) -> Iterator[BenchmarkModelTransport]:
    with connect() as transport:
        hello(transport)
        yield transport


def load(worker: BenchmarkModelTransport, model: Model, **changes: Any) -> dict[str, Any]:
    worker.push(model.path, model.sha256, model.suffix)
    fields: dict[str, Any] = {
        "sha256": model.sha256,
        "suffix": model.suffix,
        "runtime": "benchmark_model",
        "accelerator": "cpu",
        "threads": 1,
        "affinity": None,
        "inputs": [{"shape": [1, 3, 32, 32]}],
        "seed": 0,
    }
    return worker.request("load", S, **{**fields, **changes})


def timed(worker: BenchmarkModelTransport, handle: int, warmup: int = 2, runs: int = 10) -> dict[str, Any]:
    return worker.request("time", S, handle=handle, warmup=warmup, runs=runs, deadline_s=60)


# What it tells


def test_hello(connect: Connect, replay: Replay) -> None:
    digest = hashlib.sha256(replay.path.read_bytes()).hexdigest()
    with connect() as transport:
        facts = hello(transport)
        again = hello(transport)
    assert facts["pid"] == again["pid"]
    assert facts["runtimes"] == {"benchmark_model": {"version": digest[:16], "sha256": digest, "why": None}}
    assert facts["fingerprint"]["device"] == "latlab Test Phone"
    assert facts["fingerprint"]["os"] == "Android 14 (SDK 34)"
    assert facts["fingerprint"]["governor"] == ["schedutil"]
    assert facts["fingerprint"]["runtimes"] == {"benchmark_model": {"version": digest[:16], "build": digest}}
    assert len(facts["fingerprint"]["id"]) == 16
    assert facts["cpus"]["count"] >= 1
    assert facts["cpus"]["affinity"] == list(range(facts["cpus"]["count"]))
    assert facts["memory_bytes"] > 1 << 26
    assert facts["work"]["folder"] == "/data/local/tmp/work"
    assert 0 < facts["work"]["free_bytes"] <= facts["work"]["total_bytes"]


def test_facts_do_not_change_and_tokens_rise(connect: Connect) -> None:
    facts = []
    for _ in range(3):
        with connect() as transport:
            facts.append(hello(transport))
    assert facts[0]["lease"]["folder"] == facts[1]["lease"]["folder"]
    assert facts[0]["lease"]["token"] < facts[1]["lease"]["token"] < facts[2]["lease"]["token"]
    assert len({one["fingerprint"]["id"] for one in facts}) == 1


def test_another_program_is_another_fingerprint(connect: Connect, phone: Phone, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with connect() as transport:
        before = hello(transport)["fingerprint"]["id"]
    with connect(benchmark_model=Replay(phone, other, "# another").path) as transport:
        assert hello(transport)["fingerprint"]["id"] != before


def test_telemetry(worker: BenchmarkModelTransport) -> None:
    values = worker.request("telemetry", S)
    assert values["temperature_c"] == {"cpu-0-0": 41.5, "battery": 30.2, "skin": 33.0}
    assert set(values["frequency_mhz"]) == {2000.0}
    assert values["governor"] == ["schedutil"]
    assert values["battery"] == {"percent": 83, "status": "Charging", "temperature_c": 30.2}
    assert len(values["load"]) == 3
    assert values["memory_mb"]["available"] > 1
    assert values["cpu_ticks"]["busy"] > 0


# Loading and timing


def test_a_pass(worker: BenchmarkModelTransport, replay: Replay, network: Model) -> None:
    loaded = load(worker, network, threads=2)
    assert loaded["provider"] == "XNNPACK"
    assert loaded["delegated"] == {"operators": 65, "delegated": 64, "partitions": 1}
    assert loaded["runtime_version"] == hello(worker)["runtimes"]["benchmark_model"]["version"]
    assert (loaded["load_ns"], loaded["first_ns"]) == (12_750_000, 14_132_000)
    reply = timed(worker, loaded["handle"])
    assert reply["warmup_ns"] == [14_132_000]
    assert reply["samples_ns"] == [13_520_200]
    assert reply["aggregate"] == {
        "statistic": "mean",
        "runs": 10,
        "first_ns": 14_850_000,
        "last_ns": 13_315_000,
        "min_ns": 13_105_000,
        "max_ns": 15_765_000,
        "std_ns": 470_000,
        "p5_ns": 13_105_000,
        "median_ns": 13_498_000,
        "p95_ns": 15_765_000,
    }
    assert reply["telemetry"]["before"]["battery"]["percent"] == 83
    program, *_ = hello(worker)["runtimes"]["benchmark_model"]["version"], None
    assert replay.arguments == [
        f"--graph=/data/local/tmp/work/models/{network.sha256}.tflite",
        "--num_threads=2",
        "--warmup_runs=2",
        "--warmup_min_secs=0",
        "--num_runs=10",
        "--min_secs=0",
        replay.arguments[6],
        "--use_xnnpack=true",
    ]
    assert replay.arguments[6].startswith("--max_secs=")
    assert program == loaded["runtime_version"]


def test_an_older_release(worker: BenchmarkModelTransport, replay: Replay, network: Model) -> None:
    replay.says(outputs.OLDER_CPU)
    loaded = load(worker, network)
    assert loaded["provider"] == "XNNPACK"
    assert loaded["delegated"] is None
    assert set(timed(worker, loaded["handle"])["aggregate"]) == {
        "statistic", "runs", "first_ns", "last_ns", "min_ns", "max_ns", "std_ns",
    }  # fmt: skip


def test_affinity(worker: BenchmarkModelTransport, replay: Replay, network: Model) -> None:
    cpus = hello(worker)["cpus"]["affinity"]
    handle = load(worker, network, affinity=[cpus[-1]])["handle"]
    assert replay.affinity == str(cpus[-1])
    load(worker, network)
    timed(worker, handle)
    assert replay.affinity == str(cpus[-1])


def test_a_phone_without_taskset_offers_no_choice(connect: Connect, phone: Phone) -> None:
    phone.path("/system/bin/taskset").rename(phone.path("/system/bin/taskset.gone"))
    try:
        with connect() as transport:
            assert hello(transport)["cpus"]["affinity"] is None
    finally:
        phone.path("/system/bin/taskset.gone").rename(phone.path("/system/bin/taskset"))


@pytest.mark.parametrize(
    ("text", "accelerator", "provider", "flags"),
    [
        (outputs.CURRENT_GPU, "gpu", "GPU", ["--use_gpu=true", "--gpu_precision_loss_allowed=false"]),
        (outputs.CURRENT_NNAPI, "nnapi", "NNAPI", ["--use_nnapi=true", "--disable_nnapi_cpu=true"]),
    ],
)
def test_accelerators(
    worker: BenchmarkModelTransport,
    replay: Replay,
    network: Model,
    text: str,
    accelerator: str,
    provider: str,
    flags: list[str],
) -> None:
    replay.says(text)
    loaded = load(worker, network, accelerator=accelerator)
    assert loaded["provider"] == provider
    assert loaded["delegated"] == {"operators": 65, "delegated": 65, "partitions": 1}
    assert replay.arguments[-2:] == flags
    assert timed(worker, loaded["handle"])["samples_ns"]


@pytest.mark.parametrize(
    ("text", "accelerator", "kind", "words"),
    [
        (outputs.CURRENT_CPU, "gpu", "runtime_missing", "GPU delegate took nothing"),
        (outputs.CURRENT_GPU_UNSUPPORTED, "gpu", "runtime_missing", "GPU delegate took nothing"),
        (outputs.CURRENT_GPU_PARTLY, "gpu", "unsupported_op", "took 54 of 65 operators"),
        (outputs.CURRENT_NNAPI_REFUSED, "nnapi", "runtime_missing", "NNAPI delegate took nothing"),
        (outputs.CURRENT_NNAPI_REFERENCE, "nnapi", "runtime_missing", "only its reference"),
    ],
)
def test_a_fall_back_to_the_cpu_is_no_latency(
    worker: BenchmarkModelTransport, replay: Replay, network: Model, text: str, accelerator: str, kind: str, words: str
) -> None:
    replay.says(text)
    with pytest.raises(WorkerError, match=words) as caught:
        load(worker, network, accelerator=accelerator)
    assert caught.value.kind == kind


def test_a_fall_back_between_loading_and_timing(
    worker: BenchmarkModelTransport, replay: Replay, network: Model
) -> None:
    replay.says(outputs.CURRENT_GPU)
    handle = load(worker, network, accelerator="gpu")["handle"]
    replay.says(outputs.CURRENT_GPU_UNSUPPORTED)
    with pytest.raises(WorkerError, match="took nothing"):
        timed(worker, handle)


def test_a_release_that_does_not_know_a_flag(worker: BenchmarkModelTransport, replay: Replay, network: Model) -> None:
    replay.says("WARN: Unconsumed cmdline flags: --gpu_precision_loss_allowed=false\n" + outputs.CURRENT_GPU)
    with pytest.raises(WorkerError, match="does not know --gpu_precision_loss_allowed=false") as caught:
        load(worker, network, accelerator="gpu")
    assert caught.value.kind == "runtime_missing"
    replay.says("Unconsumed cmdline flags: --use_xnnpack=true\n" + outputs.OLDEST_CPU)
    with pytest.raises(WorkerError, match="cannot be believed"):  # it tells of other runs than the script was asked for
        load(worker, network)


# What fails


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a model that is none", "corrupt_artifact"),
        ("an operator that it does not know", "unsupported_op"),
        ("a delegate that fails", "unsupported_op"),
    ],
)
def test_crashes(worker: BenchmarkModelTransport, replay: Replay, network: Model, name: str, kind: str) -> None:
    replay.says(outputs.CRASHES[name], status=1)
    with pytest.raises(WorkerError, match="space/archi") as caught:
        load(worker, network, network="space/archi")
    assert caught.value.kind == kind
    replay.says(outputs.CURRENT_CPU)
    assert load(worker, network)["handle"]


@pytest.mark.parametrize(
    "text",
    ["", "garbage", outputs.CURRENT_CPU.replace("avg=13520.2", "avg=nan"), outputs.CURRENT_CPU.replace("us", "")],
)
def test_output_that_cannot_be_believed(
    worker: BenchmarkModelTransport, replay: Replay, network: Model, text: str
) -> None:
    handle = load(worker, network)["handle"]
    replay.says(text)
    with pytest.raises(WorkerError, match="cannot be believed") as caught:
        timed(worker, handle)
    assert caught.value.kind == "crash"
    replay.says(outputs.CURRENT_CPU)
    assert timed(worker, handle)


def test_fewer_runs_than_asked_for(worker: BenchmarkModelTransport, replay: Replay, network: Model) -> None:
    handle = load(worker, network)["handle"]
    replay.says(outputs.CURRENT_CPU.replace("count=10 ", "count=7 "))
    with pytest.raises(WorkerError, match="deadline") as caught:
        timed(worker, handle)
    assert caught.value.kind == "timeout"


def profile(worker: BenchmarkModelTransport, handle: int) -> dict[str, Any]:
    return worker.request("profile", S, handle=handle, warmup=2, runs=10, deadline_s=60)


def test_a_profile(worker: BenchmarkModelTransport, replay: Replay, network: Model) -> None:
    handle = load(worker, network)["handle"]
    replay.says(outputs.CURRENT_CPU + outputs.OPERATORS)
    found = profile(worker, handle)
    assert replay.arguments[-1] == "--enable_op_profiling=true"
    assert (found["runs"], found["samples_ns"]) == (10, [13_520_200])
    assert [(one["kind"], one["provider"]) for one in found["operators"]] == [
        ("Convolution (NHWC, F32) IGEMM", "XNNPACK"),
        ("Fully Connected (NC, F32) GEMM", "XNNPACK"),
        ("SOFTMAX", "TFLite kernels"),
    ]
    assert [one["mean_ns"] for one in found["operators"]] == pytest.approx([9e6, 3e6, 1e6], rel=1e-3)
    timed(worker, handle)
    assert replay.arguments[-1] != "--enable_op_profiling=true", "a pass after it is as one before it"


@pytest.mark.parametrize("spoiled", ["", outputs.OPERATORS.partition(" 23.077%")[0]], ids=["none", "cut off"])
def test_a_profile_that_cannot_be_read(
    worker: BenchmarkModelTransport, replay: Replay, network: Model, spoiled: str
) -> None:
    handle = load(worker, network)["handle"]
    replay.says(outputs.CURRENT_CPU + spoiled)
    with pytest.raises(WorkerError, match="profile cannot be read") as caught:
        profile(worker, handle)
    assert caught.value.kind == "crash"


def test_a_pass_of_some_seconds(worker: BenchmarkModelTransport, replay: Replay, network: Model) -> None:
    handle = load(worker, network)["handle"]
    replay.says(outputs.CURRENT_CPU.replace("count=2 ", "count=36 ").replace("count=10 ", "count=73 "))
    asked = {"warmup": 2, "runs": 50, "warmup_s": 0.5, "pass_s": 1, "max_pass_s": 15}
    reply = worker.request("time", S, handle=handle, deadline_s=60, **asked)
    assert reply["aggregate"]["runs"] == 73
    assert replay.arguments[2:7] == [
        "--warmup_runs=2",
        "--warmup_min_secs=0.5",
        "--num_runs=50",
        "--min_secs=1",
        "--max_secs=15.000",
    ]
    assert time.perf_counter() - 5 < reply["at_s"] < time.perf_counter()
    replay.says(outputs.CURRENT_CPU.replace("count=10 ", "count=7 "))  # 15 s were not enough for 50
    assert worker.request("time", S, handle=handle, deadline_s=60, **asked)["aggregate"]["runs"] == 7


def test_what_it_cannot_do_is_left_out_or_refused(
    worker: BenchmarkModelTransport, replay: Replay, network: Model
) -> None:
    handle = load(worker, network)["handle"]
    asked = {"handle": handle, "warmup": 2, "runs": 10, "deadline_s": 60}
    reply = worker.request("time", S, **asked, max_warmup=10, overheads=100)
    assert not {"settled", "calls"} & set(reply)
    with pytest.raises(WorkerError, match="prints no samples") as caught:
        worker.request("time", S, **asked, stop="stdrel")
    assert caught.value.kind == "bad_request"


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ("kill -9 $$", "out_of_memory", "was killed"),
        ("kill -11 $$", "crash", "ended with status 139"),
        ("exit 127", "runtime_missing", "cannot be started"),
        ("[ $runs = 1 ] || exec sleep 60", "timeout", "not through"),
    ],
)
def test_a_program_that_dies_or_hangs(
    connect: Connect, phone: Phone, tmp_path: Path, network: Model, body: str, kind: str, words: str
) -> None:
    broken = Replay(phone, tmp_path, f"[ -e {'/data/local/tmp/replay/good'} ] || {{ {body}; }}")
    phone.path("/data/local/tmp/replay/good").touch()
    with connect(benchmark_model=broken.path) as worker:
        hello(worker)
        handle = load(worker, network)["handle"]
        phone.path("/data/local/tmp/replay/good").unlink()
        start = time.monotonic()
        with pytest.raises(WorkerError, match=words) as caught:
            worker.request("time", S, handle=handle, warmup=2, runs=10, deadline_s=1)
        assert caught.value.kind == kind
        assert time.monotonic() - start < 4 + GRACE_S  # it may take 1 s, and as long again twice
        wait_until(lambda: not phone.processes("^sleep 60"), "what hung lives on")
        phone.path("/data/local/tmp/replay/good").touch()
        assert timed(worker, handle)


def test_endless_output(connect: Connect, phone: Phone, tmp_path: Path, network: Model) -> None:
    endless = Replay(phone, tmp_path, "exec tr '\\\\0' x </dev/zero")
    with connect(benchmark_model=endless.path) as worker:
        hello(worker)
        with pytest.raises(WorkerError, match="does not stop talking") as caught:
            load(worker, network)
        assert caught.value.kind == "crash"
        hello(worker)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"sha256": "f" * 64}, "missing_artifact", "put it first"),
        ({"sha256": "../../secret"}, "bad_request", "sha256"),
        ({"suffix": "/../x"}, "bad_request", "suffix"),
        ({"runtime": "tflite"}, "runtime_missing", "benchmark_model"),
        ({"accelerator": "npu"}, "bad_request", "npu"),
        ({"accelerator": "cpu --help"}, "bad_request", "accelerator"),
        ({"threads": 0}, "bad_request", "threads"),
        ({"affinity": []}, "bad_request", "affinity"),
        ({"affinity": [4095]}, "bad_request", "CPU"),
    ],
)
def test_loads_that_fail(
    worker: BenchmarkModelTransport, network: Model, changes: dict[str, Any], kind: str, words: str
) -> None:
    with pytest.raises(WorkerError, match=words) as caught:
        load(worker, network, **changes)
    assert caught.value.kind == kind
    assert load(worker, network)["handle"]


def test_requests_that_make_no_sense(connect: Connect, network: Model) -> None:
    with connect() as worker:
        with pytest.raises(WorkerError, match="hello"):
            worker.push(network.path, network.sha256, network.suffix)
        with pytest.raises(WorkerError, match="protocol"):
            worker.request("hello", S, protocol=999)
        hello(worker)
        with pytest.raises(WorkerError, match="unknown verb 'shell'"):
            worker.request("shell", S, command="id")
        handle = load(worker, network)["handle"]
        with pytest.raises(WorkerError, match="runs"):
            timed(worker, handle, runs=0)
        worker.request("unload", S, handles=[handle])
        with pytest.raises(WorkerError, match=f"handle {handle}"):
            timed(worker, handle)
        worker.request("bye", S)
        with pytest.raises(DeviceLostError, match="was ended"):
            worker.request("telemetry", S)


def test_no_program(connect: Connect, tmp_path: Path) -> None:
    for changes, words in (
        ({"benchmark_model": None}, "name the file with `benchmark_model`"),
        ({"benchmark_model": tmp_path / "nothing"}, "cannot be read"),
    ):
        with connect(**changes) as worker:
            runtime = hello(worker)["runtimes"]["benchmark_model"]
            assert runtime["version"] is None
            assert words in runtime["why"]


def test_a_program_for_another_processor(connect: Connect, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    # The head of an ELF file, for a processor that nothing on this machine emulates.
    foreign.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\0\xfe\xca\x01\0\0\0" + bytes(100))
    with connect(benchmark_model=foreign) as worker:
        runtime = hello(worker)["runtimes"]["benchmark_model"]
    assert runtime["version"] is None
    assert "does not start there" in runtime["why"]


# Files


def test_a_network_is_brought_once_and_checked(
    worker: BenchmarkModelTransport, phone: Phone, network: Model, monkeypatch: pytest.MonkeyPatch, connect: Connect
) -> None:
    worker.push(network.path, network.sha256, network.suffix)
    there = phone.path(f"/data/local/tmp/work/models/{network.sha256}.tflite")
    assert there.read_bytes() == network.path.read_bytes()

    def again(*_: object) -> None:
        raise AssertionError("transferred twice")

    monkeypatch.setattr(BenchmarkModelTransport, "_transfer", again)
    worker.push(network.path, network.sha256, network.suffix)
    worker.close()
    with connect() as another:
        hello(another)
        another.push(network.path, network.sha256, network.suffix)


def test_a_file_that_is_something_else(worker: BenchmarkModelTransport, network: Model) -> None:
    with pytest.raises(WorkerError) as caught:
        worker.push(network.path, "0" * 64, network.suffix)
    assert caught.value.kind == "corrupt_artifact"
    assert load(worker, network)["handle"]


def test_a_network_that_changes_on_the_device(worker: BenchmarkModelTransport, phone: Phone, network: Model) -> None:
    handle = load(worker, network)["handle"]
    phone.path(f"/data/local/tmp/work/models/{network.sha256}.tflite").write_bytes(b"junk")
    with pytest.raises(WorkerError, match="changed on the device") as caught:
        timed(worker, handle)
    assert caught.value.kind == "corrupt_artifact"
    handle = load(worker, network)["handle"]
    assert timed(worker, handle)


def test_a_full_disk(worker: BenchmarkModelTransport, phone: Phone, network: Model) -> None:
    phone.fill_disk()
    with pytest.raises(WorkerError) as caught:
        worker.push(network.path, network.sha256, network.suffix)
    assert caught.value.kind == "no_space"
    phone.free_disk()
    assert load(worker, network)["handle"]


# One user at a time


@pytest.mark.parametrize("with_flock", [True, False])
def test_a_second_controller(connect: Connect, phone: Phone, network: Model, with_flock: bool) -> None:
    if with_flock:
        # Android's toybox has one, Debian's busybox has none.
        phone.path("/system/bin/flock").write_bytes(Path(find_program("flock")).read_bytes())
        phone.path("/system/bin/flock").chmod(0o755)
    with connect() as first, connect() as second:
        pid = hello(first, owner=ME, who="anna@desk latlab process 7")["pid"]
        for fields in ({"owner": ANOTHER}, {}):
            with pytest.raises(
                WorkerError, match=rf"in use by anna@desk \(latlab process 7 there\) since .*, worker process {pid}"
            ) as caught:
                hello(second, **fields)
            assert caught.value.kind == "busy"
        with pytest.raises(WorkerError, match="hello"):
            second.push(network.path, network.sha256, network.suffix)
        first.request("telemetry", S)
        after = hello(second, owner=ME)
        assert after["pid"] != pid
        wait_until(lambda: not phone.is_running(pid), "the predecessor lives on")
        with pytest.raises(DeviceLostError, match="drawer: the worker was ended on the device"):
            first.request("telemetry", S)
        second.close()
        wait_until(lambda: not phone.is_running(after["pid"]), "the keeper lives on")
        with connect() as third:
            hello(third, owner=ANOTHER)


def test_a_stale_controller_is_refused(connect: Connect, phone: Phone, network: Model) -> None:
    with connect() as first, connect() as second:
        hello(first, owner=ME)
        handle = load(first, network)["handle"]
        phone.path("/data/local/tmp/work/lock").unlink()
        hello(second, owner=ANOTHER)
        with pytest.raises(WorkerError, match="another controller") as caught:
            timed(first, handle)
        assert caught.value.kind == "lease_lost"


def test_a_controller_that_says_nothing_any_more_leaves(connect: Connect, phone: Phone) -> None:
    with connect() as transport:
        pid = hello(transport, idle_s=1)["pid"]
        wait_until(lambda: not phone.is_running(pid), "the keeper does not leave")
        with pytest.raises(DeviceLostError, match="was ended on the device"):
            transport.request("telemetry", S)


def test_a_killed_controller_leaves_nothing(connect: Connect, phone: Phone, replay: Replay) -> None:
    program = (
        "import time\nfrom latlab.harness.transports.benchmark_model.transport import BenchmarkModelTransport\n"
        "from latlab.harness.transports.adb.config import ADBDevice\n"
        f"c = ADBDevice(host={phone.address!r}, work='/data/local/tmp/work', benchmark_model={str(replay.path)!r})\n"
        "t = BenchmarkModelTransport('x', c)\n"
        "t.start()\nt.request('hello', 20, protocol=1)\nprint('ready', flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as controller:
        assert controller.stdout is not None
        assert controller.stdout.readline() == "ready\n"
        controller.kill()
    assert phone.path(STAY_ON).read_text() == "15\n"
    wait_until(lambda: not phone.processes("latlab-keeper"), "its keeper lives on")
    with connect() as transport:
        hello(transport)
    assert phone.path(STAY_ON).read_text() == "0\n"


@pytest.mark.parametrize("body", ["", "trap '' HUP"], ids=["", "an adbd that sends no SIGHUP"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_program_ends_with_its_controller(
    connect: Connect, phone: Phone, tmp_path: Path, network: Model, body: str, number: signal.Signals
) -> None:
    """Also on old phones, whose adbd tells a program nothing of the end of its connection."""
    replay = Replay(phone, tmp_path, f"{body}\n[ $runs = 1 ] || {{ touch $here/runs; sleep 600; }}")
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from latlab.harness.transports.benchmark_model.transport import BenchmarkModelTransport\n"
        "from latlab.harness.transports.adb.config import ADBDevice\n"
        f"c = ADBDevice(host={phone.address!r}, work='/data/local/tmp/work', benchmark_model={str(replay.path)!r})\n"
        "t = BenchmarkModelTransport('x', c)\n"
        "t.start()\nt.request('hello', 20, protocol=1)\n"
        f"t.push(Path({str(network.path)!r}), {network.sha256!r}, '.tflite')\n"
        f"h = t.request('load', 20, sha256={network.sha256!r}, suffix='.tflite', runtime='benchmark_model', "
        "accelerator='cpu', threads=1, affinity=None, seed=0)['handle']\n"
        "t.request('time', 600, handle=h, warmup=1, runs=10, deadline_s=600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) as controller:
        runs = phone.path("/data/local/tmp/replay/runs")
        wait_until(lambda: runs.exists() or controller.poll() is not None, "it does not run")
        assert controller.poll() is None, controller.communicate()[1]
        assert phone.processes("benchmark_model-")
        controller.send_signal(number)
        wait_until(lambda: not phone.processes("benchmark_model-"), "the program lives on")
        wait_until(lambda: not phone.processes("latlab-keeper"), "its keeper lives on")
    with connect() as transport:
        hello(transport)


# Ways that are cut


@pytest.fixture
def slow(
    connect: Connect, phone: Phone, tmp_path: Path, network: Model
) -> Iterator[tuple[BenchmarkModelTransport, int]]:
    """A program that takes its time over a pass, under way."""
    program = Replay(phone, tmp_path, "[ $runs = 1 ] || sleep 61")
    with connect(benchmark_model=program.path) as worker:
        hello(worker, owner=ME)
        yield worker, load(worker, network)["handle"]


Fault = Callable[[Phone], object]


@pytest.mark.parametrize("fault", [Phone.link_down, Phone.kill_adbd])
def test_cut_while_timing(
    slow: tuple[BenchmarkModelTransport, int], phone: Phone, network: Model, fault: Fault
) -> None:
    worker, handle = slow
    timer = threading.Timer(0.3, fault, (phone,))
    timer.start()
    start = time.monotonic()
    with pytest.raises(DeviceLostError, match="drawer") as caught:
        timed(worker, handle)
    assert time.monotonic() - start < 0.3 + PATIENCE_S + GRACE_S
    timer.join()
    assert caught.value.unreachable
    with pytest.raises(ConnectError):
        worker.start()
    phone.link_up()
    if not phone.processes("^/usr/sbin/adbd"):
        phone.start_adbd()
    worker.start()
    hello(worker, owner=ME)
    assert load(worker, network)["handle"]


def test_closed_by_another_thread(slow: tuple[BenchmarkModelTransport, int], phone: Phone) -> None:
    worker, handle = slow
    threading.Timer(0.3, worker.close).start()
    start = time.monotonic()
    with pytest.raises(DeviceLostError):
        timed(worker, handle)
    assert time.monotonic() - start < 0.3 + GRACE_S
    wait_until(lambda: not phone.processes("benchmark_model-"), "the program lives on")


def test_the_keeper_killed(worker: BenchmarkModelTransport, phone: Phone, network: Model) -> None:
    handle = load(worker, network)["handle"]
    phone.signal(hello(worker)["pid"], signal.SIGKILL)
    time.sleep(0.2)
    with pytest.raises(DeviceLostError, match="was ended on the device") as caught:
        timed(worker, handle)
    assert not caught.value.unreachable
    worker.start()
    hello(worker)
    assert load(worker, network)["handle"]
