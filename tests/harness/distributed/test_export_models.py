"""`latlab export-models`, here and on a real Ray cluster of two nodes, with everything killed that can be."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from peers.ray_cluster import Cluster
from waiting import wait_until

from latlab.harness import Lab
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.exporters import ArtifactCache, ExportRequest

COMMAND = (sys.executable, "-m", "latlab.harness", "export-models", "--space", "nasbench201", "--format")
NETWORKS = 12


def check(folder: Path, networks: int, formats: tuple[str, ...]) -> list[dict[str, str]]:
    """Assert that a folder has each network once in each format, whole, and return its index."""
    with (folder / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({(row["arch"], row["format"]) for row in rows}) == len(rows) == networks * len(formats)
    assert {row["status"] for row in rows} == {"ok"}
    for row in rows:
        content = (folder / row["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row["sha256"]
        assert len(content) == int(row["size_bytes"])
    names = {path.name for path in (folder / "files").iterdir()}
    killed = {name for name in names if name.startswith("tmp-")}  # what a process had written when it was killed
    assert names - killed == {Path(row["file"]).name for row in rows}
    return rows


def test_a_folder_of_networks(tmp_path: Path) -> None:
    lab, to = Lab(tmp_path / "latlab.db"), tmp_path / "networks"
    first = lab.export_models("nasbench201", str(to), count=3, formats=("onnx", "torchscript"))
    assert (first.networks, first.new, first.failed) == (6, 6, 0)
    rows = check(to, 3, ("onnx", "torchscript"))
    again = lab.export_models("nasbench201", str(to), count=4, formats=("onnx",))
    assert (again.networks, again.new) == (4, 1)
    with (to / "index.csv").open() as file:  # what an earlier command exported stays in the index
        assert len(list(csv.DictReader(file))) == 7
    # It serves as a cache of exported networks.
    assert ArtifactCache(to).get(ExportRequest("nasbench201", rows[0]["arch"], "onnx")) is not None


def test_a_folder_in_object_storage() -> None:
    to = f"memory://bucket-{secrets.token_hex(4)}/networks"
    lab = Lab()
    assert lab.export_models("nasbench201", to, count=2).new == 2
    assert lab.export_models("nasbench201", to, count=2).new == 0
    files = fsspec.filesystem("memory")
    (first, second) = files.ls(f"{to.removeprefix('memory:/')}/files", detail=False)
    content = files.cat_file(first)
    assert hashlib.sha256(content).hexdigest() == Path(first).stem
    files.pipe_file(first, content[:-1])  # half a file is exported again
    files.rm(second)
    assert lab.export_models("nasbench201", to, count=2).new == 2


def test_a_network_that_cannot_be_exported(tmp_path: Path) -> None:
    """Others are, and the index says what is wrong."""
    found = Lab().export_models("hat-decoder", str(tmp_path / "to"), count=1, formats=("onnx", "tflite"))
    assert (found.networks, found.failed) == (1, 1)
    assert next(iter(found.failures)).startswith("tflite: ")
    with (tmp_path / "to" / "index.csv").open() as file:
        assert {row["format"]: row["status"] == "ok" for row in csv.DictReader(file)} == {"onnx": True, "tflite": False}


def test_what_cannot_be(tmp_path: Path) -> None:
    lab = Lab()
    with pytest.raises(BadInputError, match="no format 'onx'"):
        lab.export_models("nasbench201", str(tmp_path / "to"), count=1, formats=("onx",))
    with pytest.raises(BadInputError, match="tflite is not written in bf16"):
        lab.export_models("nasbench201", str(tmp_path / "to"), count=1, formats=("tflite",), precision="bf16")
    with pytest.raises(BadInputError, match=r"cannot open the storage nowhere://\.\.\.") as failure:
        lab.export_models("nasbench201", "nowhere://user:secret@host/to", count=1)
    assert "secret" not in str(failure.value)
    with pytest.raises(LatlabError, match=r"cannot write /proc/to: "):
        lab.export_models("nasbench201", "/proc/to", count=1)
    with pytest.raises(BadInputError, match="has no name"):
        lab.export_models("nasbench201", "", count=1)
    (tmp_path / "taken" / "files").parent.mkdir()
    (tmp_path / "taken" / "files").touch()
    with pytest.raises(LatlabError, match=r"cannot write .*taken/files: ") as failure:
        lab.export_models("nasbench201", tmp_path / "taken", count=1)
    assert "remove it" in (failure.value.hint or "")
    with pytest.raises(BadInputError, match=r"cannot open the storage ftp://\.\.\.: .*refused") as failure:
        lab.export_models("nasbench201", "ftp://user:secret@127.0.0.1:9/to", count=1)
    assert "secret" not in str(failure.value)
    assert not (tmp_path / "to").exists()


# A cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if importlib.util.find_spec("ray") is None:
        if os.environ.get("LATLAB_REQUIRE_PEERS"):
            pytest.fail("ray is not installed")
        pytest.skip("needs ray")
    found = Cluster.on_loopback(tmp_path_factory.mktemp("cluster"))
    try:
        found.start_nodes()
        yield found
    finally:
        found.stop()


@pytest.mark.slow
def test_a_cluster_without_its_token(cluster: Cluster, tmp_path: Path) -> None:
    command = [*COMMAND, "onnx", "--count", "1", "--to", str(tmp_path / "to"), "--engine", "ray"]
    environment = cluster.environment | {"RAY_AUTH_TOKEN": "wrong", "RAY_NUM_REDIS_GET_RETRIES": "2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "the cluster of the engine ray cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("engine", ["ray", "ray://127.0.0.1:1"])
def test_a_cluster_that_does_not_answer(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(BadInputError, match=r"no cluster answers at (ray://)?127\.0\.0\.1:1"):
        Lab().export_models("nasbench201", tmp_path / "to", count=1, engine=engine)


@pytest.mark.slow
def test_on_a_cluster_of_which_parts_die(cluster: Cluster, tmp_path: Path) -> None:
    to, formats = tmp_path / "networks", ("onnx", "torchscript")
    command = [*COMMAND, ",".join(formats), "--count", str(NETWORKS), "--to", str(to), "--engine", "ray", "--json"]

    def start() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=cluster.environment, stdout=pipe, stderr=pipe, text=True)

    def exported() -> int:
        return len(list((to / "entries").glob("[!t]*.json"))) if to.exists() else 0

    first = subprocess.Popen(
        command, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: exported() >= 1 or first.poll() is not None, "nothing is exported", 60)
    wait_until(lambda: cluster.processes("ray::_call") or first.poll() is not None, "no worker is busy", 30)
    os.kill(cluster.processes("ray::_call")[0], signal.SIGKILL)
    wait_until(lambda: exported() >= 5 or first.poll() is not None, "nothing more is exported", 60)
    first.kill()
    said = first.communicate()[1]
    assert first.returncode == -signal.SIGKILL, said
    kept = exported()
    second = subprocess.Popen(
        command, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: exported() > kept or second.poll() is not None, "nothing more is exported", 60)
    # The node that is not the head's dies: its raylet is the one that was started last.
    os.kill(max(cluster.processes("raylet/raylet ")), signal.SIGKILL)
    out, said = second.communicate(timeout=120)
    if second.returncode:  # both nodes have the address of this machine, so this command may have stood on that node
        assert "the cluster could not compute item" in said
        assert "Traceback" not in said
        kept, again = exported(), start()
        out, said = again.communicate(timeout=120)
        assert again.returncode == 0, said
    found = json.loads(out)
    assert found["networks"] == NETWORKS * len(formats)
    assert 0 < found["new"] <= NETWORKS * len(formats) - kept
    check(to, NETWORKS, formats)
