"""Tests of the cache of artifacts: it never gives a wrong file, whatever happened to the folder."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from operators import SHAPE, Net, network

from latlab.agents.protocol.load_request import InputRequest
from latlab.harness.exporters import (
    Artifact,
    ArtifactCache,
    CacheError,
    ExportError,
    ExportRequest,
    export_module,
    get_exporter,
)
from latlab.search_spaces import ArchitectureError, UnknownSpaceError

SMALL = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
REQUEST = ExportRequest("nasbench201", SMALL, "tflite")


@pytest.fixture
def cache(tmp_path: Path) -> ArtifactCache:
    return ArtifactCache(tmp_path / "cache")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def entry(cache: ArtifactCache) -> Path:
    (found,) = (cache.folder / "entries").iterdir()
    return found


def age(cache: ArtifactCache, hours: float) -> None:
    """Make everything in the cache look as if it was last used `hours` ago."""
    then = time.time() - hours * 3600
    for path in cache.folder.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def test_what_ensure_made_get_finds(cache: ArtifactCache) -> None:
    assert cache.get(REQUEST) is None
    artifact = cache.ensure(REQUEST)
    assert cache.get(REQUEST) == artifact
    assert ArtifactCache(cache.folder).get(REQUEST) == artifact
    assert digest(artifact.path) == artifact.sha256
    assert artifact.path.stat().st_size == artifact.size_bytes
    assert artifact.path.suffix == ".tflite"
    assert artifact.input_shape == (1, 32, 32, 3)
    assert artifact.parity.passed
    assert artifact.operators["CONV_2D"] > 0
    assert min(artifact.build_s, artifact.export_s, artifact.parity_s) > 0


def test_ensure_exports_once(cache: ArtifactCache) -> None:
    first = cache.ensure(REQUEST)
    changed = first.path.stat().st_ctime_ns
    assert cache.ensure(REQUEST) == first  # timings and all
    assert first.path.stat().st_ino == cache.ensure(REQUEST).path.stat().st_ino
    assert changed <= first.path.stat().st_ctime_ns


def test_the_key_covers_everything() -> None:
    other = {
        "space": "fbnet",
        "arch": "0",
        "format": "onnx",
        "batch_size": 2,
        "precision": "int8",
        "seed": 1,
        "as_written": True,
    }
    varied = [replace(REQUEST, **{name: value}) for name, value in other.items()]
    assert {field.name for field in fields(ExportRequest)} == set(other)
    keys = [request.key("1") for request in (REQUEST, *varied)] + [REQUEST.key("2")]
    assert len(set(keys)) == len(keys)
    assert REQUEST.key("1") == replace(REQUEST).key("1")


def test_keys_are_the_same_in_every_process(cache: ArtifactCache) -> None:
    code = f"from latlab.harness.exporters import *; print(ArtifactCache({str(cache.folder)!r}).key({REQUEST!r}))"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == cache.key(REQUEST)


@pytest.mark.parametrize("request_", [{"batch_size": 0}, {"precision": "int4"}])
def test_impossible_requests_are_refused(request_: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"batch size|precision"):
        replace(REQUEST, **request_)  # type: ignore[arg-type]


def test_unknown_space_and_architecture_are_no_rows(cache: ArtifactCache) -> None:
    with pytest.raises(UnknownSpaceError):
        cache.ensure(replace(REQUEST, space="nosuch"))
    with pytest.raises(ArchitectureError):
        cache.ensure(replace(REQUEST, arch="nosuch"))


def damage_truncated(artifact: Artifact, cache: ArtifactCache) -> None:
    os.truncate(artifact.path, artifact.size_bytes // 2)


def damage_one_byte(artifact: Artifact, cache: ArtifactCache) -> None:
    content = bytearray(artifact.path.read_bytes())
    content[len(content) // 2] ^= 1
    artifact.path.write_bytes(content)


def damage_file_gone(artifact: Artifact, cache: ArtifactCache) -> None:
    artifact.path.unlink()


def damage_entry_gone(artifact: Artifact, cache: ArtifactCache) -> None:
    entry(cache).unlink()


def damage_entry_empty(artifact: Artifact, cache: ArtifactCache) -> None:
    entry(cache).write_text("")


def damage_entry_of_another_version(artifact: Artifact, cache: ArtifactCache) -> None:
    data = json.loads(entry(cache).read_text())
    del data["parity"]
    entry(cache).write_text(json.dumps(data))


@pytest.mark.parametrize(
    "damage",
    [
        damage_truncated,
        damage_one_byte,
        damage_file_gone,
        damage_entry_gone,
        damage_entry_empty,
        damage_entry_of_another_version,
    ],
)
def test_damage_is_noticed_and_mended(cache: ArtifactCache, damage: object) -> None:
    artifact = cache.ensure(REQUEST)
    damage(artifact, cache)  # type: ignore[operator]
    assert cache.get(REQUEST) is None
    assert cache.ensure(REQUEST).sha256 == artifact.sha256
    assert digest(artifact.path) == artifact.sha256


def test_the_folder_may_move(cache: ArtifactCache, tmp_path: Path) -> None:
    artifact = cache.ensure(REQUEST)
    cache.folder.rename(tmp_path / "moved")
    found = ArtifactCache(tmp_path / "moved").get(REQUEST)
    assert found is not None
    assert found.sha256 == artifact.sha256
    assert found.path.is_file()


def test_the_same_graph_is_stored_once(cache: ArtifactCache) -> None:
    dead_edge = SMALL.replace("none~2", "nor_conv_3x3~2")
    first, second = cache.ensure(REQUEST), cache.ensure(replace(REQUEST, arch=dead_edge))
    assert first.key != second.key
    assert first.path == second.path
    assert len(list((cache.folder / "files").iterdir())) == 1


def image(batch: int) -> list[InputRequest]:
    """Return the input of a module that takes images."""
    return [InputRequest(shape=(batch, *SHAPE))]


def test_a_failed_export_leaves_nothing(cache: ArtifactCache) -> None:
    with pytest.raises(ExportError) as failure:
        export_module(Net(lambda _, x: x.cumsum(1)), "tflite", image(1), cache.folder)
    assert failure.value.kind == "unsupported_op"
    assert not [path for path in cache.folder.rglob("*") if path.is_file()]


def test_eviction_drops_the_least_recently_used(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path)
    requests = [replace(REQUEST, seed=seed) for seed in range(5)]
    artifacts = [cache.ensure(request) for request in requests[:4]]
    age(cache, hours=3)
    for hours, artifact in zip((7, 6, 5, 4), artifacts, strict=True):
        os.utime(artifact.path, (then := time.time() - hours * 3600, then))
    assert cache.get(requests[0]) is not None  # used just now
    small = ArtifactCache(tmp_path, max_bytes=int(3.5 * artifacts[0].size_bytes))
    small.ensure(requests[4])
    assert [small.get(request) is not None for request in requests] == [True, False, False, True, True]
    assert len(list((tmp_path / "files").iterdir())) == 3
    assert len(list((tmp_path / "entries").iterdir())) == 3


def test_eviction_spares_what_may_be_on_its_way_to_a_device(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path, max_bytes=1)
    requests = [replace(REQUEST, seed=seed) for seed in range(3)]
    for request in requests:
        cache.ensure(request)
    assert all(cache.get(request) for request in requests)


def test_leftovers_of_killed_workers_go(cache: ArtifactCache) -> None:
    leftover = cache.folder / "files" / "tmp-killed.tflite"
    leftover.write_bytes(b"half")
    age(cache, hours=3)
    cache.ensure(REQUEST)
    assert not leftover.exists()


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"cannot keep exported networks in .*file.*Not a directory"):
        ArtifactCache(tmp_path / "file" / "cache")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(CacheError, match="Permission denied"):
        ArtifactCache(tmp_path / "cache")


DISK_FULL = """
import resource, sys
from pathlib import Path
from latlab.harness.exporters import *
cache, request = ArtifactCache(Path(sys.argv[1])), ExportRequest("nasbench201", sys.argv[2], "tflite")
# The kernel refuses to let any file grow beyond this, as a full disk would; workers inherit it.
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    if sys.argv[3] == "here":
        cache.ensure(request)
    else:
        with ExportPool(cache) as pool:
            pool.submit(request).result()
except CacheError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("where", ["here", "pool"])
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(cache: ArtifactCache, where: str) -> None:
    command = [sys.executable, "-c", DISK_FULL, str(cache.folder), SMALL, where]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stderr
    assert "Traceback" not in run.stderr
    assert "cannot keep exported networks in" in run.stderr.splitlines()[-1]
    assert not [path for path in cache.folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("format", ["onnx", "tflite", "torchscript"])
def test_a_module_of_the_users_own(format: str, tmp_path: Path) -> None:
    module = network("residual").train().requires_grad_(True)
    artifact = export_module(module, format, image(2), tmp_path)
    assert artifact.parity.passed
    assert artifact.batch_size == 2
    assert artifact.input_shape == get_exporter(format).file_shape((2, *SHAPE))
    assert artifact.key == artifact.sha256 == digest(artifact.path)
    assert export_module(module, format, image(2), tmp_path).path == artifact.path


def test_a_users_module_may_mix_its_batch(tmp_path: Path) -> None:
    module = Net(lambda _, x: (x - x.mean(0, keepdim=True)).mean((2, 3)))
    assert export_module(module, "onnx", image(3), tmp_path).parity.passed


def test_artifacts_survive_json(cache: ArtifactCache) -> None:
    artifact = cache.ensure(REQUEST)
    assert Artifact.from_json(json.loads(json.dumps(artifact.to_json()))) == artifact


def test_importing_exporters_does_not_import_torch() -> None:
    code = (
        "import sys, latlab.harness.exporters as e; [e.get_exporter(name).version for name in e.names()]; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_torch_is_left_with_its_threads(cache: ArtifactCache) -> None:
    before = torch.get_num_threads()
    cache.ensure(replace(REQUEST, format="torchscript"))
    assert torch.get_num_threads() == before
