"""Tests of the pool of export workers: they export ahead, can be paused, and may die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from peers.processes import descendants
from test_cache import SMALL, digest
from waiting import wait_until

from latlab.harness.exporters import (
    ArtifactCache,
    ExportError,
    ExportPool,
    ExportRequest,
    UnknownFormatError,
)
from latlab.search_spaces import ArchitectureError, UnknownSpaceError, get

REQUEST = ExportRequest("nasbench201", SMALL, "tflite")
SLOW = ExportRequest("fbnet-imagenet", get("fbnet-imagenet").sample(1)[0].text, "onnx", batch_size=32)
"""An export that takes seconds: long enough for a test to act during it."""


@pytest.fixture
def cache(tmp_path: Path) -> ArtifactCache:
    return ArtifactCache(tmp_path)


def children() -> set[int]:
    """Return the ids of the live children of this process."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # gone meanwhile
            continue
        # A killed process is a zombie before the last of its threads has ended.
        if int(parent) == os.getpid() and (state != "Z" or len(list(stat.parent.glob("task/*"))) > 1):
            found.add(int(stat.parent.name))
    return found


def whole(cache: ArtifactCache) -> bool:
    """Return whether the content of every file that has its final name matches that name."""
    files = [path for path in (cache.folder / "files").iterdir() if not path.name.startswith("tmp-")]
    return all(digest(path) == path.stem for path in files)


def test_a_killed_worker_fails_its_own_request_only(cache: ArtifactCache) -> None:
    before = children()
    with ExportPool(cache) as pool:
        assert pool.submit(REQUEST).result(timeout=120).parity.passed
        (worker,) = children() - before
        doomed = pool.submit(SLOW)
        others = [pool.submit(ExportRequest("nasbench201", SMALL, "onnx", seed=seed)) for seed in (0, 1)]
        wait_until(doomed.running, "the export does not begin")
        begun = _cpu_ticks(worker)
        wait_until(lambda: _cpu_ticks(worker) > begun + 10, "the worker does not compute")  # 0.1 s
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(ExportError, match="SIGKILL") as failure:
            doomed.result(timeout=120)
        assert failure.value.kind == "crash"
        assert all(future.result(timeout=120).parity.passed for future in others)
        (replacement,) = children() - before
        assert replacement != worker
        # Killed while idle, it is simply replaced.
        os.kill(replacement, signal.SIGKILL)
        wait_until(lambda: children() == before, "the killed worker is still there")
        assert pool.submit(ExportRequest("nasbench201", SMALL, "onnx", seed=2)).result(timeout=120).parity.passed
    assert children() == before
    assert whole(cache)


def test_two_workers_may_export_the_same(cache: ArtifactCache) -> None:
    with ExportPool(cache, workers=2, cpus=os.sched_getaffinity(0)) as pool:
        requests = [ExportRequest("nasbench201", SMALL, "torchscript", seed=seed) for seed in (0, 0, 1, 1, 2, 2)]
        artifacts = [future.result(timeout=120) for future in [pool.submit(request) for request in requests]]
    assert len({artifact.sha256 for artifact in artifacts}) == 3
    assert all(cache.get(request) is not None for request in requests)
    assert whole(cache)
    assert not list((cache.folder / "files").glob("tmp-*"))


def test_what_the_cache_has_needs_no_worker(cache: ArtifactCache) -> None:
    artifact = cache.ensure(REQUEST)
    before = children()
    with ExportPool(cache, workers=2) as pool:
        assert pool.submit(REQUEST).result(timeout=10) == artifact
        assert children() == before


def test_workers_are_nice_and_pinned(cache: ArtifactCache) -> None:
    core = max(os.sched_getaffinity(0))
    before = children()
    with ExportPool(cache, cpus={core}) as pool:
        pool.submit(REQUEST).result(timeout=120)
        (worker,) = children() - before
        assert os.sched_getaffinity(worker) == {core}
        assert os.getpriority(os.PRIO_PROCESS, worker) > os.getpriority(os.PRIO_PROCESS, 0)


def test_requests_that_nobody_can_serve_are_refused_at_once(cache: ArtifactCache) -> None:
    with ExportPool(cache) as pool:
        with pytest.raises(UnknownSpaceError):
            pool.submit(ExportRequest("nosuch", SMALL, "onnx"))
        with pytest.raises(ArchitectureError):
            pool.submit(ExportRequest("nasbench201", "nosuch", "onnx"))
        with pytest.raises(UnknownFormatError):
            pool.submit(ExportRequest("nasbench201", SMALL, "nosuch"))
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(REQUEST)
    with pytest.raises(ValueError, match="at least 1 worker"):
        ExportPool(cache, workers=0)


def test_closing_ends_everything_soon(cache: ArtifactCache) -> None:
    before = children()
    pool = ExportPool(cache)
    running, waiting = pool.submit(SLOW), pool.submit(REQUEST)
    wait_until(lambda: children() - before, "no worker starts")
    start = time.monotonic()
    pool.close()
    assert time.monotonic() - start < 10
    assert children() == before
    assert waiting.cancelled()
    with pytest.raises(ExportError, match="closed"):
        running.result(timeout=1)


def test_workers_end_with_a_killed_controller(cache: ArtifactCache) -> None:
    code = (
        "import sys; from pathlib import Path; from latlab.harness.exporters import *;"
        "pool = ExportPool(ArtifactCache(Path(sys.argv[1])));"
        "pool.submit(ExportRequest('nasbench201', sys.argv[2], 'tflite')).result();"
        "print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(cache.folder), SMALL]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as controller:
        assert controller.stdout is not None
        assert controller.stdout.readline() == "ready\n"
        (worker,) = descendants(controller.pid)
        controller.kill()
    wait_until(lambda: _state(worker) == "Z", "the worker lives on")


def test_paused_workers_compute_nothing_and_go_on_afterwards(cache: ArtifactCache) -> None:
    before = children()
    with ExportPool(cache) as pool:
        with pool.paused():
            doing = pool.submit(REQUEST)
            wait_until(lambda: children() - before, "no worker starts")  # started in a pause: stopped at once
            (worker,) = children() - before
            wait_until(lambda: _state(worker) == "T", "the worker is not stopped")
            assert pool.busy
        assert doing.result(timeout=120).parity.passed
        assert not pool.busy
        doing = pool.submit(SLOW)
        wait_until(lambda: pool.busy, "the export does not begin")
        with pool.paused(), pool.paused():
            wait_until(lambda: _state(worker) == "T", "the worker is not stopped")
            used = _cpu_ticks(worker)
            time.sleep(0.2)
            assert _cpu_ticks(worker) == used
            assert not doing.done()
        assert _state(worker) != "T"
        assert doing.result(timeout=120).parity.passed
    assert children() == before


def test_a_pause_ends_only_when_the_last_who_asked_has_left(cache: ArtifactCache) -> None:
    before = children()
    with ExportPool(cache) as pool:
        pool.submit(REQUEST).result(timeout=120)
        (worker,) = children() - before
        with pool.paused():
            with pool.paused():
                wait_until(lambda: _state(worker) == "T", "the worker is not stopped")
            time.sleep(0.05)
            assert _state(worker) == "T"
        wait_until(lambda: _state(worker) == "S", "the worker stays stopped")


def test_a_worker_may_die_while_it_is_paused(cache: ArtifactCache) -> None:
    before = children()
    with ExportPool(cache) as pool:
        pool.submit(REQUEST).result(timeout=120)
        (worker,) = children() - before
        doomed = pool.submit(SLOW)
        wait_until(lambda: pool.busy, "the export does not begin")
        with pool.paused():
            os.kill(worker, signal.SIGKILL)
            with pytest.raises(ExportError, match="SIGKILL"):
                doomed.result(timeout=60)
        with pool.paused():
            pass
        assert pool.submit(ExportRequest("nasbench201", SMALL, "tflite", seed=1)).result(timeout=120).parity.passed


def test_a_paused_pool_can_be_closed(cache: ArtifactCache) -> None:
    before = children()
    pool = ExportPool(cache)
    with pool.paused():
        running = pool.submit(REQUEST)
        wait_until(lambda: children() - before, "no worker starts")
        pool.close()
        assert children() == before
        with pytest.raises(ExportError, match="closed"):
            running.result(timeout=1)


def test_pauses_are_no_part_of_the_time_that_an_export_may_take(
    cache: ArtifactCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExportPool(cache) as pool:
        pool.submit(REQUEST).result(timeout=120)
        monkeypatch.setattr("latlab.harness.exporters.pool.TIMEOUT_S", 0.5)
        with pool.paused():
            paused = pool.submit(ExportRequest("nasbench201", SMALL, "tflite", seed=1))
            time.sleep(1)  # twice as long as the export may take
        assert paused.result(timeout=120).parity.passed
        with pytest.raises(ExportError, match=r"longer than 0\.5 s"):
            pool.submit(SLOW).result(timeout=60)


def test_a_killed_controller_leaves_no_stopped_worker_behind(cache: ArtifactCache) -> None:
    code = (
        "import sys; from pathlib import Path; from latlab.harness.exporters import *;"
        "pool = ExportPool(ArtifactCache(Path(sys.argv[1])));"
        "pool.submit(ExportRequest('nasbench201', sys.argv[2], 'tflite')).result();"
        "pause = pool.paused(); pause.__enter__();"
        "print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(cache.folder), SMALL]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as controller:
        assert controller.stdout is not None
        assert controller.stdout.readline() == "ready\n"
        (worker,) = descendants(controller.pid)
        try:
            wait_until(lambda: _state(worker) == "T", "the worker is not stopped")
        finally:
            controller.kill()
    wait_until(lambda: _state(worker) == "Z", "the worker lives on")


def _cpu_ticks(process: int) -> int:
    return sum(map(int, Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]))


def _state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
