"""Tests of the private environment on a device: real wheels, malicious ones, and what the worker then imports."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import warnings
import zipfile
from collections import namedtuple
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from latlab.agents.protocol.errors import AgentError
from latlab.agents.workspace import wheel_unpack as unpacking
from latlab.agents.workspace.environments import Environments
from latlab.agents.workspace.model_store import ModelFolder
from latlab.agents.workspace.wheel_unpack import Wheel, unpack
from latlab.harness.transports import WorkerError
from latlab.harness.transports.local.transport import LocalTransport

S = 20.0
FIRST, SECOND = "1" * 32, "2" * 32
METADATA = "Metadata-Version: 2.1\nName: onnxruntime\nVersion: 77.7\n"
Usage = namedtuple("Usage", "total used free")


def make_wheel(path: Path, entries: dict[str, str], *, modes: dict[str, int] | None = None) -> Wheel:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.filename = info.orig_filename = name  # as it is, with a NUL in it, too
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (modes or {}).get(name, stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)
    return Wheel(path.name, str(path))


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "outside" / "env"
    folder.mkdir(parents=True)
    return folder


def refused(target: Path, *wheels: Wheel) -> AgentError:
    """Return the error of unpacking a wheel; assert that nothing was written inside or outside of the folder."""
    with pytest.raises(AgentError) as caught:
        unpack(wheels, str(target))
    assert everything_in(target.parent) == set()
    return caught.value


# What is right


def test_packages_and_data_go_where_they_belong(tmp_path: Path, target: Path) -> None:
    first = make_wheel(
        tmp_path / "first.whl",
        {
            "first/__init__.py": "x = 1",
            "first/deep/lib.so": "native",
            "first-1.0.data/purelib/first/pure.py": "",
            "first-1.0.data/platlib/first_native.so": "",
            "first-1.0.data/scripts/first": "#!python\nraise SystemExit",
            "first-1.0.data/data/etc/passwd": "",
            "first-1.0.data/headers/first.h": "",
            "first-1.0.dist-info/METADATA": METADATA,
            "shared/__init__.py": "",
        },
    )
    second = make_wheel(tmp_path / "second.whl", {"shared/__init__.py": "", "shared/second.py": "", "folder/": ""})
    unpack([first, second], str(target))
    assert everything_in(target) == {
        "first/__init__.py",
        "first/deep/lib.so",
        "first/pure.py",
        "first_native.so",
        "first-1.0.dist-info/METADATA",
        "shared/__init__.py",
        "shared/second.py",
    }
    assert (target / "first" / "__init__.py").read_text() == "x = 1"


def test_the_one_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environments = Environments(str(tmp_path))
    assert environments.current() is None
    environments.install(FIRST, [make_wheel(tmp_path / "a.whl", {"a.py": ""})])
    assert environments.current() == FIRST
    assert (environments.holds("a"), environments.holds("b")) == (True, False)
    environments.install(SECOND, [make_wheel(tmp_path / "b.whl", {"b/__init__.py": ""})])
    assert environments.current() == SECOND
    assert (environments.holds("a"), environments.holds("b")) == (False, True)
    assert everything_in(tmp_path / "env") == {"current", f"{SECOND}/b/__init__.py"}
    monkeypatch.setattr(sys, "path", ["program", "system"])
    environments.activate()
    assert sys.path == ["program", str(tmp_path / "env" / SECOND), "system"]


def test_the_same_one_again_is_made_anew(tmp_path: Path) -> None:
    """Its files may be what is wrong with it."""
    environments, wheel = Environments(str(tmp_path)), make_wheel(tmp_path / "a.whl", {"a.py": "right"})
    environments.install(FIRST, [wheel])
    (tmp_path / "env" / FIRST / "a.py").write_text("damaged")
    environments.install(FIRST, [wheel])
    assert (tmp_path / "env" / FIRST / "a.py").read_text() == "right"


@pytest.mark.parametrize("content", ["", "../../etc", "/etc", FIRST + "/..", "\xff", SECOND, "z" * 32])
def test_a_pointer_that_leads_nowhere(tmp_path: Path, content: str) -> None:
    (tmp_path / "env" / FIRST).mkdir(parents=True)
    (tmp_path / "env" / "current").write_text(content, encoding="latin-1")
    assert Environments(str(tmp_path)).current() is None


# What is wrong


@pytest.mark.parametrize(
    "name",
    [
        "../evil.py",
        "../../../../../../tmp/latlab-evil.py",
        "a/../../evil.py",
        "/tmp/latlab-evil.py",
        "//tmp/latlab-evil.py",
        "a//b.py",
        "./a.py",
        "a/./b.py",
        "..",
        "a\\..\\..\\evil.py",
        "C:/evil.py",
        "a\0b.py",
        "../folder/",
        "x-1.data/purelib/../../../evil.py",
        "x-1.data/../../evil.py",
        "a" * 300,
    ],
)
def test_names_that_lead_elsewhere(tmp_path: Path, target: Path, name: str) -> None:
    error = refused(target, make_wheel(tmp_path / "evil-1.whl", {"good.py": "", name: "evil"}))
    assert error.kind == "corrupt_artifact"
    assert "evil-1.whl is refused" in error.message
    assert len(error.message) < 400
    assert not Path("/tmp/latlab-evil.py").exists()


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_devices(tmp_path: Path, target: Path, mode: int) -> None:
    entries = {"link": "/etc", "link/passwd": "evil"}
    error = refused(target, make_wheel(tmp_path / "evil.whl", entries, modes={"link": mode | 0o777}))
    assert "neither a file nor a folder" in error.message


def test_one_bad_wheel_spoils_all(tmp_path: Path, target: Path) -> None:
    good = make_wheel(tmp_path / "good.whl", {"good.py": ""})
    refused(target, good, make_wheel(tmp_path / "evil.whl", {"../evil.py": ""}))


def test_more_than_the_disk_has(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(1 << 30, 0, 65 << 20))
    error = refused(target, make_wheel(tmp_path / "big.whl", {"zeros": "\0" * (2 << 20)}))
    assert error.kind == "no_space"
    assert "2 MB unpacked" in error.message
    assert "68 MB free" in error.message


@pytest.mark.parametrize(
    ("limit", "words"), [("MAX_FILE", "1000 bytes"), ("MAX_FILES", "files"), ("MAX_TOTAL", "1000")]
)
def test_limits(tmp_path: Path, target: Path, limit: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, limit, 0)
    assert words in refused(target, make_wheel(tmp_path / "big.whl", {"zeros": "0" * 1000})).message


def test_the_same_name_twice(tmp_path: Path, target: Path) -> None:
    with zipfile.ZipFile(tmp_path / "twice.whl", "w") as archive:
        archive.writestr("a.py", "looked at")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile's of the name
            archive.writestr("a.py", "unpacked")
    assert "twice" in refused(target, Wheel("twice.whl", str(tmp_path / "twice.whl"))).message


def test_a_file_that_is_a_folder(tmp_path: Path, target: Path) -> None:
    wheel = make_wheel(tmp_path / "odd.whl", {"a": "", "a/b": ""})
    with pytest.raises(AgentError, match="a file and a folder at once") as caught:
        unpack([wheel], str(target))
    assert caught.value.kind == "corrupt_artifact"


def patched(path: Path, old: bytes, new: bytes) -> Wheel:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    return Wheel(path.name, str(path))


@pytest.mark.parametrize("announced", [10, 100_000])
def test_sizes_that_are_not_true(tmp_path: Path, target: Path, announced: int) -> None:
    """What is announced is what room was found for: more is never written."""
    make_wheel(tmp_path / "bomb.whl", {"zeros": "0" * 50_000})
    wheel = patched(tmp_path / "bomb.whl", (50_000).to_bytes(4, "little"), announced.to_bytes(4, "little"))
    with pytest.raises(AgentError, match="damaged") as caught:
        unpack([wheel], str(target))
    assert caught.value.kind == "corrupt_artifact"
    assert sum(path.stat().st_size for path in target.rglob("*")) <= announced


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x05\x06" + bytes(18) + b"x", b"\x7fELF" * 100])
def test_what_is_no_wheel(tmp_path: Path, target: Path, content: bytes) -> None:
    (tmp_path / "no.whl").write_bytes(content)
    wheel = Wheel("no.whl", str(tmp_path / "no.whl"))
    if zipfile.is_zipfile(wheel.path):  # an empty archive with something behind it: nothing to unpack
        unpack([wheel], str(target))
        assert everything_in(target) == set()
    else:
        assert "no zip archive" in refused(target, wheel).message


def test_every_byte_may_be_damaged(tmp_path: Path) -> None:
    """One clear refusal, or files as they were: never a traceback."""
    good = make_wheel(tmp_path / "good.whl", {"a/b.py": "print(1)\n" * 30, "c.py": "x"})
    data = Path(good.path).read_bytes()
    for position in range(len(data)):
        (tmp_path / "bad.whl").write_bytes(data[:position] + bytes([data[position] ^ 0x41]) + data[position + 1 :])
        folder = tmp_path / "outside" / str(position)
        folder.mkdir(parents=True)
        try:
            unpack([Wheel("bad.whl", str(tmp_path / "bad.whl"))], str(folder))
        except AgentError as error:
            assert error.kind in ("corrupt_artifact", "no_space")  # noqa: PT017
    inside = {name.split("/")[0] for name in everything_in(tmp_path / "outside")}
    assert all(name.isdigit() for name in inside)


def test_what_was_in_use_stays(tmp_path: Path) -> None:
    environments = Environments(str(tmp_path))
    environments.install(FIRST, [make_wheel(tmp_path / "a.whl", {"a.py": ""})])
    with pytest.raises(AgentError):
        environments.install(SECOND, [make_wheel(tmp_path / "b.whl", {"b.py": "", "../b.py": ""})])
    assert environments.current() == FIRST
    assert everything_in(tmp_path / "env") == {"current", f"{FIRST}/a.py"}


# Through a worker


def push(transport: LocalTransport, wheel: Wheel) -> dict[str, Any]:
    sha256 = hashlib.sha256(Path(wheel.path).read_bytes()).hexdigest()
    transport.push(Path(wheel.path), sha256, ".whl")
    return {"sha256": sha256, "name": wheel.name}


def test_a_worker_finds_what_was_installed(tmp_path: Path) -> None:
    """Before what the system has: a module of ours stands in for onnxruntime's, and says so."""
    wheel = make_wheel(
        tmp_path / "onnxruntime-77.7-py3-none-any.whl",
        {"onnxruntime/__init__.py": "raise ImportError('ours')", "onnxruntime-77.7.dist-info/METADATA": METADATA},
    )
    with LocalTransport(work=tmp_path / "work") as transport:
        before = transport.request("hello", S, protocol=1)
        assert before["environment"] is None
        assert before["runtimes"]["onnxruntime"]["version"] != "77.7"
        listing = [push(transport, wheel)]
        assert transport.request("install", S, environment=FIRST, wheels=listing) == {"environment": FIRST}
        assert not list((tmp_path / "work" / "models").iterdir())
    with LocalTransport(work=tmp_path / "work") as transport:
        after = transport.request("hello", S, protocol=1)
    assert after["environment"] == {"id": FIRST, "runtimes": ["onnxruntime"]}
    assert after["runtimes"]["onnxruntime"]["version"] == "77.7"
    assert after["runtimes"]["tflite"] == before["runtimes"]["tflite"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"environment": "../x", "wheels": []}, "environment"),
        ({"environment": FIRST, "wheels": {}}, "wheels"),
        ({"environment": FIRST, "wheels": [{"name": "x"}]}, "sha256"),
        ({"environment": FIRST, "wheels": [{"name": "x", "sha256": "../../etc/passwd"}]}, "sha256"),
        ({"environment": FIRST, "wheels": [{"name": "x", "sha256": "f" * 64}]}, "put it first"),
        ({"environment": FIRST, "wheels": [{"name": "x" * 999, "sha256": "f" * 64}]}, "name"),
    ],
)
def test_requests_that_make_no_sense(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    with LocalTransport(work=tmp_path / "work") as transport:
        transport.request("hello", S, protocol=1)
        with pytest.raises(WorkerError, match=words) as caught:
            transport.request("install", S, **fields)
        assert caught.value.kind == ("missing_artifact" if words == "put it first" else "bad_request")
        transport.request("telemetry", S)


def test_a_malicious_wheel_over_the_wire(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "evil.whl", {"../../../evil.py": ""})
    with LocalTransport(work=tmp_path / "work") as transport:
        transport.request("hello", S, protocol=1)
        listing = [push(transport, wheel)]
        with pytest.raises(WorkerError, match=r"evil\.whl is refused") as caught:
            transport.request("install", S, environment=FIRST, wheels=listing)
        assert caught.value.kind == "corrupt_artifact"
        assert transport.request("hello", S, protocol=1)["environment"] is None
    assert not list(tmp_path.rglob("evil.py"))


def test_wheels_do_not_displace_networks(tmp_path: Path) -> None:
    """They are larger than everything else together, and gone soon; those of an installation cut off go, too."""
    folder = ModelFolder(str(tmp_path), max_bytes=100)
    for number, suffix in ((1, ".onnx"), (2, ".whl"), (3, ".whl"), (4, ".onnx")):
        content = bytes([number]) * 45
        sha256 = hashlib.sha256(content).hexdigest()
        (tmp_path / "incoming" / sha256).write_bytes(content)
        assert folder.put(sha256, 45, suffix)
    assert sorted(path.suffix for path in (tmp_path / "models").iterdir()) == [".onnx", ".onnx", ".whl", ".whl"]


def fill(folder: Path) -> None:
    with suppress(OSError), (folder / "filler").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to mount a small disk")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", work], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("cannot mount here")
    try:
        with LocalTransport(work=work) as transport:
            transport.request("hello", S, protocol=1)
            sha256 = hashlib.sha256(b"whatever").hexdigest()
            (work / "incoming" / sha256).write_bytes(b"whatever")
            room = transport.request("hello", S, protocol=1)["work"]
            assert room["total_bytes"] == 1 << 20
            fill(work)
            with pytest.raises(WorkerError, match="unpacked") as caught:
                transport.request("install", S, environment=FIRST, wheels=[])
            assert caught.value.kind == "no_space"
        (work / "lock").unlink()
        fill(work)
        with LocalTransport(work=work) as transport:
            with pytest.raises(WorkerError, match=r"disk is full.*No space left") as caught:
                transport.request("hello", S, protocol=1)
            assert caught.value.kind == "no_space"
            (work / "filler").unlink()
            transport.request("hello", S, protocol=1)
    finally:
        subprocess.run(["umount", "-l", work], check=True)
