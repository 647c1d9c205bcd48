"""Tests of choosing wheels for a device: which fit, where they come from, what they require."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.tags import parse_tag
from wheelhouse import Wheelhouse

from latlab.agents import runtimes
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.provisioning.platforms import Platform
from latlab.harness.provisioning.runtime_packages import (
    INSTALLABLE,
    ON_CUDA,
    PIWHEELS,
    TORCH_CPU_INDEX,
    UnavailableError,
    choices,
)
from latlab.harness.provisioning.wheels import NoWheelError, WheelFetcher
from latlab.harness.targets import RUNTIMES

HELLO: dict[str, Any] = {
    "platform": "linux",
    "machine": "aarch64",
    "bits": 64,
    "python": "3.11.2",
    "abi": "cp311",
    "libc": "glibc 2.36",
}
PI = Platform("aarch64", "3.11.2", "cp311", "glibc", (2, 36))
OLD_PI = Platform("armv7l", "3.9.2", "cp39", "glibc", (2, 31))
SERVER = Platform("x86_64", "3.12.1", "cp312", "glibc", (2, 17))
RISCV = Platform("riscv64", "3.12.1", "cp312", "glibc", (2, 39))
ALPINE = Platform("aarch64", "3.12.1", "cp312", "musl", (1, 2))


# What a device is


@pytest.mark.parametrize(
    ("changes", "platform"),
    [
        ({}, PI),
        ({"machine": "arm64"}, PI),
        ({"machine": "armv7l", "python": "3.9.2", "abi": "cp39", "libc": "glibc 2.31"}, OLD_PI),
        # 32-bit programs on a 64-bit kernel, as on many a Raspberry Pi
        ({"bits": 32, "python": "3.9.2", "abi": "cp39", "libc": "glibc 2.31"}, OLD_PI),
        ({"machine": "x86_64", "bits": 32}, Platform("i686", "3.11.2", "cp311", "glibc", (2, 36))),
        ({"libc": "musl 1.2.4", "python": "3.12.1", "abi": "cp312"}, ALPINE),
        ({"libc": "musl", "python": "3.12.1", "abi": "cp312"}, ALPINE),
        ({"abi": "cp313t", "python": "3.13.0rc1+"}, Platform("aarch64", "3.13.0rc1+", "cp313t", "glibc", (2, 36))),
    ],
)
def test_devices(changes: dict[str, Any], platform: Platform) -> None:
    assert Platform.of("pi", {**HELLO, **changes}) == platform


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"libc": "bionic"}, "Android", "Termux"),
        ({"platform": "darwin", "libc": None, "executable": "/x/python"}, "darwin", "/x/python"),
        ({"libc": None}, "linux", "Install the runtimes there"),
        ({"abi": None}, "linux", "Install the runtimes there"),
        ({"abi": "pp310"}, "not CPython", "Name another"),
        ({"libc": "glibc"}, "C library", ""),
        ({"libc": "dietlibc 0.34"}, "C library", ""),
        ({"simulated": {"seed": 1}}, "simulated", ""),
    ],
)
def test_devices_that_no_wheels_are_made_for(changes: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(LatlabError, match=message) as caught:
        Platform.of("pi", {**HELLO, **changes})
    assert hint in (caught.value.hint or "")
    assert "pi" in caught.value.message


def test_this_machine_takes_what_its_own_pip_takes(tmp_path: Path) -> None:
    """The tags are made up from what the worker says; here they can be compared with packaging's own."""
    from packaging.tags import sys_tags

    from latlab.harness.transports.local.transport import LocalTransport

    with LocalTransport(work=tmp_path) as transport:
        platform = Platform.of("local", transport.request("hello", 20, protocol=1))
    own = {tag.platform for tag in sys_tags()} - {"any"}
    assert set(platform.tags) == own
    assert platform.abi in {tag.abi for tag in sys_tags()}


def test_tags_name_what_is_older_and_nothing_newer() -> None:
    assert PI.tags[0] == "manylinux_2_36_aarch64"
    assert {"manylinux_2_17_aarch64", "manylinux2014_aarch64", "linux_aarch64"} <= set(PI.tags)
    assert "manylinux_2_16_aarch64" not in PI.tags
    assert "manylinux_2_37_aarch64" not in PI.tags
    assert {"manylinux1_x86_64", "manylinux2010_x86_64", "manylinux_2_5_x86_64"} <= set(SERVER.tags)
    assert "manylinux_2_28_x86_64" not in SERVER.tags
    assert ALPINE.tags == ["musllinux_1_2_aarch64", "musllinux_1_1_aarch64", "musllinux_1_0_aarch64", "linux_aarch64"]
    for platform in (PI, OLD_PI, SERVER, ALPINE):
        assert all(parse_tag(f"py3-none-{tag}") for tag in platform.tags)


# What there is for it


def first(runtime: str, platform: Platform, accelerator: str = "cpu") -> tuple[str, ...]:
    return choices(runtime, platform, accelerator)[0].requirements


def own(distribution: str) -> str:
    """Return the version that is installed here, without what tells builds apart."""
    return version(distribution).partition("+")[0]


@pytest.mark.parametrize("platform", [PI, SERVER])
def test_latlabs_own_versions_come_first(platform: Platform) -> None:
    """What a network is timed with there is what it was checked with here."""
    assert first("onnxruntime", platform) == (f"onnxruntime=={own('onnxruntime')}",)
    assert first("tflite", platform) == (f"ai-edge-litert=={own('ai-edge-litert')}",)


def test_torch_without_cuda_unless_it_is_asked_for() -> None:
    torch = own("torch")
    (server, older) = choices("torchscript", SERVER)
    assert server.requirements == (f"torch=={torch}+cpu", "numpy")
    assert server.indexes == older.indexes == (TORCH_CPU_INDEX,)
    assert older.requirements[0].endswith("+cpu")
    assert [way.requirements for way in choices("torchscript", PI)] == [("torch<2.11", "numpy")]
    assert first("torchscript", SERVER, "cuda") == (f"torch=={torch},!={torch}+cpu", "numpy")
    assert first("onnxruntime", SERVER, "cuda")[0].startswith("onnxruntime-gpu[cuda,cudnn]==")


def test_old_devices_have_old_numpy() -> None:
    assert [way.requirements for way in choices("tflite", OLD_PI)] == [("tflite-runtime", "numpy<2")]
    assert choices("tflite", OLD_PI)[0].indexes == (PIWHEELS,)
    assert choices("tflite", PI)[-1].requirements == ("tflite-runtime", "numpy<2")


def test_openvinos_own_version_first_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an optional package of latlab: without it here, the device gets the newest."""
    monkeypatch.setattr("latlab.harness.provisioning.runtime_packages._is_here", lambda _: False)
    assert [way.requirements for way in choices("openvino", PI)] == [("openvino",)]
    monkeypatch.setattr("latlab.harness.provisioning.runtime_packages._is_here", lambda _: True)
    monkeypatch.setattr("latlab.harness.provisioning.runtime_packages._own", lambda _: "2026.4.1")
    assert [way.requirements for way in choices("openvino", PI)] == [("openvino==2026.4.1",), ("openvino",)]


def test_executorch_comes_with_a_torch_and_without_what_writes_its_files() -> None:
    (way,) = choices("executorch", SERVER)
    assert way.requirements == ("executorch==1.5.*", f"torch=={own('torch')}+cpu", "numpy", "numpy>=2")
    assert way.indexes == (TORCH_CPU_INDEX,)
    assert way.bare == ("executorch",)
    assert "torch<2.11" in choices("executorch", PI)[0].requirements


@pytest.mark.parametrize(
    ("runtime", "platform", "accelerator", "words"),
    [
        ("onnxruntime", OLD_PI, "cpu", "no wheel of onnxruntime for armv7l: that device has tflite only"),
        ("torchscript", OLD_PI, "cpu", "no wheel of torch for armv7l: that device has tflite only"),
        ("onnxruntime", PI, "cuda", "Jetson"),
        *((runtime, ALPINE, "cpu", "musl") for runtime in INSTALLABLE),
        *(
            (runtime, Platform("riscv64", "3.12.1", "cp312", "glibc", (2, 39)), "cpu", "riscv64")
            for runtime in INSTALLABLE
        ),
    ],
)
def test_what_nobody_publishes(runtime: str, platform: Platform, accelerator: str, words: str) -> None:
    with pytest.raises(UnavailableError, match=words):
        choices(runtime, platform, accelerator)


def test_runtimes_of_gpus_are_runtimes() -> None:
    assert set(ON_CUDA) < set(INSTALLABLE)


# Fetching it


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheelhouse:
    return Wheelhouse(tmp_path / "house", monkeypatch)


def names(fetcher: WheelFetcher, *requirements: str) -> dict[str, str]:
    return {wheel.name: str(wheel.version) for wheel in fetcher.fetch(requirements)}


def test_the_right_one_of_many(house: Wheelhouse, tmp_path: Path) -> None:
    for tag in ("cp311-cp311-manylinux_2_17_aarch64", "cp311-cp311-manylinux_2_17_x86_64", "cp312-cp312-linux_aarch64"):
        house.add("native", "1.0", tag)
    house.add("native", "2.0", "cp311-cp311-manylinux_2_38_aarch64")  # a newer C library than the device has
    (wheel,) = WheelFetcher(PI, tmp_path / "kept").fetch(["native"])
    assert wheel.path == tmp_path / "kept" / "native-1.0-cp311-cp311-manylinux_2_17_aarch64.whl"
    assert wheel.path.read_bytes() == (house.folder / wheel.path.name).read_bytes()
    assert list((tmp_path / "kept").iterdir()) == [wheel.path]


def test_conditions_are_the_devices(house: Wheelhouse, tmp_path: Path) -> None:
    """And not this machine's: torch for a Pi must not bring the CUDA libraries of the controller."""
    house.add(
        "torch",
        "2.10.0",
        requires=[
            "nvidia-cublas; platform_machine == 'x86_64'",
            "for-arm; platform_machine == 'aarch64'",
            "for-old; python_version < '3.12'",
            "for-new; python_version >= '3.12'",
            "for-windows; sys_platform == 'win32'",
            "for-tests; extra == 'tests'",
        ],
    )
    for name in ("nvidia-cublas", "for-arm", "for-old", "for-new"):
        house.add(name, "1.0")
    assert set(names(WheelFetcher(PI, tmp_path / "a"), "torch")) == {"torch", "for-arm", "for-old"}
    assert set(names(WheelFetcher(SERVER, tmp_path / "b"), "torch")) == {"torch", "nvidia-cublas", "for-new"}


def test_extras(house: Wheelhouse, tmp_path: Path) -> None:
    house.add("gpu", "1.0", requires=["cuda; extra == 'cuda'", "cudnn; extra == 'cudnn'", "plain"])
    for name in ("cuda", "cudnn", "plain"):
        house.add(name, "1.0")
    fetcher = WheelFetcher(PI, tmp_path / "kept")
    assert set(names(fetcher, "gpu")) == {"gpu", "plain"}
    assert set(names(fetcher, "gpu[cuda,cudnn]")) == {"gpu", "plain", "cuda", "cudnn"}


def test_what_a_bare_distribution_requires_is_left_out(house: Wheelhouse, tmp_path: Path) -> None:
    house.add("exporter", "1", requires=["enormous", "shared"])
    house.add("runtime", "1", requires=["shared"])
    house.add("shared", "1")
    fetcher = WheelFetcher(PI, tmp_path / "kept")
    assert [wheel.name for wheel in fetcher.fetch(["exporter"], bare=["exporter"])] == ["exporter"]
    found = fetcher.fetch(["exporter", "runtime"], bare=["exporter"])
    assert [wheel.name for wheel in found] == ["exporter", "runtime", "shared"]
    with pytest.raises(NoWheelError, match="enormous"):
        fetcher.fetch(["exporter"])


def test_minds_are_changed(house: Wheelhouse, tmp_path: Path) -> None:
    """A requirement deep down makes an earlier choice too new; what only that one needed goes with it."""
    house.add("a", "1", requires=["numpy"])
    house.add("b", "1", requires=["c"])
    house.add("c", "1", requires=["numpy<2"])
    house.add("numpy", "2.1", requires=["only-with-two"])
    house.add("numpy", "1.26")
    house.add("only-with-two", "1")
    assert names(WheelFetcher(PI, tmp_path / "kept"), "a", "b") == {"a": "1", "b": "1", "c": "1", "numpy": "1.26"}


def test_contradictions(house: Wheelhouse, tmp_path: Path) -> None:
    house.add("a", "1", requires=["numpy<2"])
    house.add("numpy", "2.1")
    house.add("numpy", "1.26")
    fetcher = WheelFetcher(PI, tmp_path / "kept")
    with pytest.raises(NoWheelError, match=r"no wheel of numpy.* for aarch64, Python 3\.11\.2, glibc 2\.36"):
        fetcher.fetch(["a", "numpy>=2"])
    assert names(fetcher, "numpy") == {"numpy": "2.1"}  # what had been chosen is forgotten


def test_circles(house: Wheelhouse, tmp_path: Path) -> None:
    house.add("a", "1", requires=["b"])
    house.add("b", "1", requires=["a[more]"])
    assert set(names(WheelFetcher(PI, tmp_path / "kept"), "a")) == {"a", "b"}


def test_what_was_fetched_once_is_there_without_a_connection(
    house: Wheelhouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.add("a", "1", requires=["b"])
    house.add("b", "1")
    first_time = names(WheelFetcher(PI, tmp_path / "kept"), "a")
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert names(WheelFetcher(PI, tmp_path / "kept"), "a") == first_time


def test_an_index_that_is_not_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(NoWheelError) as caught:
        WheelFetcher(PI, tmp_path / "kept").fetch(["onnxruntime"])
    assert caught.value.offline


def test_a_source_is_no_wheel(house: Wheelhouse, tmp_path: Path) -> None:
    """Nothing is built, so nothing of a package is run on this machine."""
    (house.folder / "evil-1.0.tar.gz").write_bytes(b"")
    with pytest.raises(NoWheelError) as caught:
        WheelFetcher(PI, tmp_path / "kept").fetch(["evil"])
    assert not caught.value.offline


def test_a_wheel_that_is_none(house: Wheelhouse, tmp_path: Path) -> None:
    house.add("broken", "1").write_bytes(b"PK")
    with pytest.raises(LatlabError, match="broken"):
        WheelFetcher(PI, tmp_path / "kept").fetch(["broken"])
    house.add("broken", "1")
    assert names(WheelFetcher(PI, tmp_path / "kept"), "broken")


def test_a_wheel_without_metadata(house: Wheelhouse, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(house.folder / "empty-1-py3-none-any.whl", "w") as archive:
        archive.writestr("empty.py", "")
    with pytest.raises((LatlabError, BadInputError), match="empty"):
        WheelFetcher(PI, tmp_path / "kept").fetch(["empty"])


def test_no_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(LatlabError, match="has no pip") as caught:
        WheelFetcher(PI, tmp_path / "kept").fetch(["onnxruntime"])
    assert "ensurepip" in (caught.value.hint or "")


def test_every_runtime_of_the_worker_can_be_set_up() -> None:
    assert set(INSTALLABLE) == {name for name, runtime in RUNTIMES.items() if runtime.in_worker} == set(runtimes.NAMES)
