"""Tests of the folder of pushed networks: a file whose content does not match its name is neither adopted nor used."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from latlab.agents.protocol.errors import AgentError
from latlab.agents.workspace.model_store import STALE_S, ModelFolder

ROOM = 1 << 20


def bring(root: Path, content: bytes, name: str | None = None) -> tuple[str, int]:
    """Put bytes where a transport puts them."""
    sha256 = hashlib.sha256(content).hexdigest()
    (root / "incoming" / (name or sha256)).write_bytes(content)
    return sha256, len(content)


def tamper(path: str) -> None:
    Path(path).write_bytes(b"netwirk")
    os.utime(path, ns=(1, 1))  # older kernels' clocks tick so slowly that the write alone may not show


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return ModelFolder(str(tmp_path), ROOM)


def test_asks_adopts_and_remembers(folder: ModelFolder, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(b"net").hexdigest()
    assert not folder.put(sha256, 3, ".onnx")
    bring(tmp_path, b"net")
    assert folder.put(sha256, 3, ".onnx")
    assert folder.put(sha256, 3, ".onnx")
    assert Path(folder.path(sha256, ".onnx")).read_bytes() == b"net"
    assert not list((tmp_path / "incoming").iterdir())
    assert ModelFolder(str(tmp_path), ROOM).put(sha256, 3, ".onnx")


def test_half_a_file_is_asked_for_again(folder: ModelFolder, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(b"network").hexdigest()
    bring(tmp_path, b"netw", sha256)
    assert not folder.put(sha256, 7, ".onnx")
    bring(tmp_path, b"network")
    assert folder.put(sha256, 7, ".onnx")


@pytest.mark.parametrize("content", [b"netwirk", b"networks"])
def test_something_else_is_refused_and_removed(folder: ModelFolder, tmp_path: Path, content: bytes) -> None:
    sha256 = hashlib.sha256(b"network").hexdigest()
    bring(tmp_path, content, sha256)
    with pytest.raises(AgentError) as caught:
        folder.put(sha256, 7, ".onnx")
    assert caught.value.kind == "corrupt_artifact"
    assert not folder.put(sha256, 7, ".onnx")


def test_a_network_that_changed_is_refused_and_removed(folder: ModelFolder, tmp_path: Path) -> None:
    sha256, size = bring(tmp_path, b"network")
    folder.put(sha256, size, ".onnx")
    tamper(folder.path(sha256, ".onnx"))
    with pytest.raises(AgentError, match="has changed") as caught:
        folder.path(sha256, ".onnx")
    assert caught.value.kind == "corrupt_artifact"
    assert not folder.put(sha256, size, ".onnx")


def test_put_notices_a_change_too(folder: ModelFolder, tmp_path: Path) -> None:
    sha256, size = bring(tmp_path, b"network")
    folder.put(sha256, size, ".onnx")
    tamper(folder.path(sha256, ".onnx"))
    assert not folder.put(sha256, size, ".onnx")


def test_a_network_that_was_never_put(folder: ModelFolder) -> None:
    with pytest.raises(AgentError, match="put it first") as caught:
        folder.path("0" * 64, ".onnx")
    assert caught.value.kind == "missing_artifact"


def test_it_is_hashed_once_as_long_as_it_stays(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256, size = bring(tmp_path, b"network")
    folder.put(sha256, size, ".onnx")

    def hashed_again(path: str) -> str:
        raise AssertionError(path)

    monkeypatch.setattr("latlab.agents.workspace.model_store._sha256", hashed_again)
    folder.path(sha256, ".onnx")
    folder.put(sha256, size, ".onnx")


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    folder = ModelFolder(str(tmp_path), 250)
    first, second, third = (bring(tmp_path, bytes([n]) * 100)[0] for n in range(3))
    folder.put(first, 100, ".onnx")
    folder.put(second, 100, ".onnx")
    folder.path(first, ".onnx")
    folder.put(third, 100, ".onnx")
    assert {path.stem for path in (tmp_path / "models").iterdir()} == {first, third}


def test_one_that_is_too_large_for_the_room_stays(tmp_path: Path) -> None:
    folder = ModelFolder(str(tmp_path), 10)
    sha256, size = bring(tmp_path, b"x" * 100)
    assert folder.put(sha256, size, ".onnx")
    assert folder.path(sha256, ".onnx")


def test_what_was_cut_off_long_ago_is_swept_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ModelFolder(str(tmp_path), ROOM)
    bring(tmp_path, b"half", "0" * 64)
    ModelFolder(str(tmp_path), ROOM)
    assert os.listdir(tmp_path / "incoming")
    later = __import__("time").time() + STALE_S + 60
    monkeypatch.setattr("latlab.agents.workspace.model_store.time.time", lambda: later)
    ModelFolder(str(tmp_path), ROOM)
    assert not os.listdir(tmp_path / "incoming")
