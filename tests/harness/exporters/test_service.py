"""Tests of exports that several callers share: each network is exported once, and callers give up independently."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from random import Random

import pytest

from latlab.harness.exporters import ArtifactCache, ExportError, ExportRequest
from latlab.harness.exporters.service import Exports
from latlab.harness.measurement.contention import exports_change_latency

CELLS = [f"|{op}~0|+|{op}~0|{op}~1|+|{op}~0|{op}~1|{op}~2|" for op in ("nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")]


def request(number: int, seed: int = 0) -> ExportRequest:
    return ExportRequest("nasbench201", CELLS[number], "onnx", seed=seed)


@pytest.fixture
def exports(tmp_path: Path) -> Iterator[Exports]:
    with Exports(ArtifactCache(tmp_path / "artifacts")) as exports:
        yield exports


def test_many_who_want_one_network_get_one_export(exports: Exports, tmp_path: Path) -> None:
    futures = [exports.submit(request(0)) for _ in range(20)]
    artifacts = [future.result(120) for future in futures]
    assert len({artifact.path for artifact in artifacts}) == 1
    assert len(list((tmp_path / "artifacts").rglob("*.onnx"))) == 1
    # Its cost is in one row alone.
    assert sorted(artifact.export_s > 0 for artifact in artifacts) == [False] * 19 + [True]
    again = exports.submit(request(0))
    assert again.done()
    assert again.result().export_s == 0


def test_one_who_leaves_does_not_take_it_from_the_others(exports: Exports) -> None:
    first = exports.submit(request(0))  # keeps the worker busy, so that the next one can still be cancelled
    one, other = exports.submit(request(1)), exports.submit(request(1))
    assert one.cancel()
    assert other.result(120).sha256
    assert first.result(120).sha256
    assert one.cancelled()


def test_when_all_leave_it_is_not_made_and_can_be_asked_for_again(exports: Exports) -> None:
    exports.submit(request(0))
    futures = [exports.submit(request(2)) for _ in range(3)]
    assert all(future.cancel() for future in futures)
    assert exports.submit(request(2)).result(120).sha256


def test_an_evicted_file_is_made_again(exports: Exports) -> None:
    artifact = exports.submit(request(0)).result(120)
    artifact.path.unlink()
    assert exports.submit(request(0)).result(120).path.is_file()


def test_everybody_learns_of_a_failure(tmp_path: Path) -> None:
    exports = Exports(ArtifactCache(tmp_path / "artifacts"))
    futures = [exports.submit(request(0, seed=seed)) for seed in (1, 2, 2)]
    exports.close()
    wait(futures, 60)
    for future in futures:
        assert future.cancelled() or isinstance(future.exception(), ExportError)


def test_pausing_costs_little(exports: Exports) -> None:
    exports.submit(request(0)).result(120)
    taken = []
    for _ in range(20):
        start = time.perf_counter()
        with exports.paused():
            pass
        taken.append(time.perf_counter() - start)
    assert sorted(taken)[10] < 1e-3


def test_what_shows_is_told_from_noise() -> None:
    def ratios(bias: float, count: int, seed: int) -> list[float]:
        rng = Random(seed)
        bursts = [rng.choice((1.0, 1.0, 1.0, 1.5, 0.7)) for _ in range(count)]
        return [(1 + bias) * rng.gauss(1.0, 0.01) * burst for burst in bursts]

    assert sum(exports_change_latency(ratios(0.0, 30, seed)) for seed in range(100)) <= 2
    assert sum(exports_change_latency(ratios(0.03, 30, seed)) for seed in range(100)) >= 85
    assert sum(exports_change_latency(ratios(-0.03, 30, seed)) for seed in range(100)) >= 85
    assert exports_change_latency([1.02] * 6)
    assert not exports_change_latency([1.02] * 5)
    assert not exports_change_latency([])
