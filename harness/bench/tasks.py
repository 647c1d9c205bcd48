"""Tasks: which devices are known (sources), and which are new (targets).

The splits are from HELP (Lee et al., NeurIPS 2021) for ND, FD and OFA, and from NASFLAT (Akhauri and Abdelfattah, MLSys
2024), which found them by bisection, for the others. HAT (Wang et al., ACL 2020) has no split: each of its sets is a
target once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from latlab.harness.bench.tables import LatencyTable, read_table
from latlab.harness.errors import BadInputError
from latlab.harness.paths import whole_file

__all__ = ["PUBLISHED", "Split", "Task", "published_task", "read_tasks", "write_tasks"]


@dataclass(frozen=True)
class Split:
    """Source devices, and the target devices that are predicted from them."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """One column of the comparison: splits of a table's devices. Scores are averaged over all targets."""

    name: str
    space: str
    tables: tuple[Path, ...]
    """Files with the same architectures in the same order. Their devices are joined."""
    splits: tuple[Split, ...]

    def table(self) -> LatencyTable:
        """Return the latencies.

        Raises:
            BadInputError: a table cannot be read, or a device of the task has no column.
        """
        table = _joined(self.tables, self.space)
        for split in self.splits:
            for device in (*split.sources, *split.targets):
                table.column(device)
        return table


@lru_cache(4)
def _joined(paths: tuple[Path, ...], space: str) -> LatencyTable:
    first, *others = (read_table(path, space) for path in paths)
    for other in others:
        if not np.array_equal(first.genes, other.genes):
            raise BadInputError(f"{other.name} does not have the architectures of {first.name}, in the same order")
        first = LatencyTable(first.name, first.space, first.genes, {**first.latency_ms, **other.latency_ms})
    return first


_Tables = tuple[str, tuple[str, ...]]
"""The space, and the files' names."""
_NB201: _Tables = ("nasbench201", ("nasbench201_latency_ms.parquet", "nasbench201_eagle_latency_ms.parquet"))
_FBNET: _Tables = ("fbnet", ("fbnet_latency_ms.parquet",))
_OFA: _Tables = ("ofa-mobilenetv3", ("ofa_mobilenetv3_latency_ms.parquet",))
_HAT: _Tables = ("hat-decoder", ("hat_latency.parquet",))
_ND_SOURCES = "silver_4114 silver_4210r samsung_a50 pixel3 essential_ph_1 samsung_s7"
_GPUS = " ".join(
    f"{name}_{batch}" for name in ("1080ti", "2080ti", "titan_rtx", "titanx", "titanxp") for batch in (1, 32, 64)
)

# Tables, sources, targets.
_TASKS: dict[str, tuple[_Tables, str, str]] = {
    "ND": (
        _NB201,
        f"1080ti_1 1080ti_32 1080ti_256 {_ND_SOURCES}",
        "titan_rtx_256 gold_6226 fpga pixel2 raspi4 eyeriss",
    ),
    "N1": (
        _NB201,
        "embedded_tpu_edge_tpu_int8 eyeriss mobile_gpu_snapdragon_675_adreno_612_int8 "
        "mobile_gpu_snapdragon_855_adreno_640_int8 pixel3",
        "1080ti_1 titan_rtx_32 titanxp_1 titan_rtx_1",
    ),
    "N2": (
        _NB201,
        "1080ti_1 1080ti_32 titanx_32 titanxp_1 titanxp_32",
        "embedded_gpu_jetson_nano_fp16 embedded_tpu_edge_tpu_int8 mobile_dsp_snapdragon_675_hexagon_685_int8 "
        "mobile_dsp_snapdragon_855_hexagon_690_int8 pixel3",
    ),
    "N3": (
        _NB201,
        "desktop_gpu_gtx_1080ti_fp32 embedded_gpu_jetson_nano_fp16 eyeriss mobile_dsp_snapdragon_675_hexagon_685_int8 "
        "mobile_gpu_snapdragon_855_adreno_640_int8",
        "1080ti_1 titanxp_1 titanxp_32",
    ),
    "N4": (
        _NB201,
        "desktop_cpu_core_i7_7820x_fp32 embedded_gpu_jetson_nano_fp32 embedded_tpu_edge_tpu_int8 eyeriss "
        "mobile_cpu_snapdragon_855_kryo_485_int8 mobile_dsp_snapdragon_675_hexagon_685_int8 "
        "mobile_dsp_snapdragon_855_hexagon_690_int8 mobile_gpu_snapdragon_675_adreno_612_int8 "
        "mobile_gpu_snapdragon_855_adreno_640_int8 pixel2",
        "1080ti_1 titan_rtx_1",
    ),
    "NA": (
        _NB201,
        "titan_rtx_1 titan_rtx_32 titanxp_1 titanx_1 1080ti_1 titanx_32 titanxp_32 1080ti_32 gold_6226 samsung_s7 "
        "silver_4114 gold_6240 silver_4210r samsung_a50 pixel2",
        "eyeriss desktop_gpu_gtx_1080ti_fp32 embedded_tpu_edge_tpu_int8",
    ),
    "FD": (_FBNET, f"1080ti_1 1080ti_32 1080ti_64 {_ND_SOURCES}", "fpga raspi4 eyeriss"),
    "F1": (
        _FBNET,
        "2080ti_1 essential_ph_1 silver_4114 titan_rtx_1 titan_rtx_32",
        "eyeriss fpga raspi4 samsung_a50 samsung_s7",
    ),
    "F2": (
        _FBNET,
        "essential_ph_1 gold_6226 gold_6240 pixel3 raspi4",
        "1080ti_1 1080ti_32 2080ti_32 titan_rtx_1 titanxp_1",
    ),
    "F3": (
        _FBNET,
        "essential_ph_1 pixel2 pixel3 raspi4 samsung_s7",
        "1080ti_1 1080ti_32 2080ti_1 titan_rtx_1 titan_rtx_32",
    ),
    "F4": (
        _FBNET,
        "1080ti_64 2080ti_1 eyeriss gold_6226 gold_6240 raspi4 samsung_s7 silver_4210r titan_rtx_1 titan_rtx_32",
        "1080ti_1 pixel2 essential_ph_1",
    ),
    "FA": (_FBNET, _GPUS, "gold_6226 essential_ph_1 samsung_s7 pixel2"),
    "OFA": (
        _OFA,
        "2080ti_1 2080ti_32 2080ti_64 titan_xp_1 titan_xp_32 titan_xp_64 v100_1 v100_32 v100_64",
        "titan_rtx_1 titan_rtx_32 titan_rtx_64",
    ),
    "OFA-V100": (_OFA, "2080ti_1 2080ti_32 2080ti_64", "v100_1 v100_32 v100_64"),
}
_HAT_SETS = (
    "iwslt14deen_gpu_titanxp",
    *(
        f"{task}_{device}"
        for task in ("wmt14ende", "wmt14enfr")
        for device in ("cpu_raspberrypi", "cpu_xeon", "gpu_titanxp")
    ),
    "wmt19ende_gpu_titanxp",
)
PUBLISHED = (*_TASKS, "HAT")
"""Names of the published tasks."""


def published_task(name: str, folder: Path) -> Task:
    """Return a task on the published tables in `folder`.

    Raises:
        BadInputError: there is no such task, or a table is missing.
    """
    if name not in PUBLISHED:
        raise BadInputError(
            f"unknown task {name!r}",
            f"The published ones are: {', '.join(PUBLISHED)}; a file of your own tasks ends in .json.",
        )
    if name == "HAT":
        (space, files), pairs = (
            _HAT,
            [(" ".join(other for other in _HAT_SETS if other != one), one) for one in _HAT_SETS],
        )
    else:
        (space, files), *pair = _TASKS[name]
        pairs = [(pair[0], pair[1])]
    splits = tuple(Split(tuple(sources.split()), tuple(targets.split())) for sources, targets in pairs)
    paths = tuple(folder / file for file in files)
    for path in paths:
        if not path.is_file():
            raise BadInputError(
                f"task {name} needs the table {path}, which is not there",
                "--data (or LATLAB_DATA) names the folder of the published tables.",
            )
    return Task(name, space, paths, splits)


def read_tasks(path: Path) -> list[Task]:
    """Return the tasks in a file of `write_tasks`. The table's path in it is relative to the file.

    Raises:
        BadInputError: the file cannot be read, or is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        table = path.parent / content["table"]
        return [
            Task(one["name"], content["space"], (table,), (Split(tuple(one["source"]), tuple(one["target"])),))
            for one in content["tasks"]
        ]
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(
            f"{path} is no file of tasks: {error!r}", "`latlab bench tasks` writes one; it has table, space and tasks."
        ) from error


def write_tasks(path: Path, tasks: Sequence[Task]) -> None:
    """Write `tasks`, which share one table and have one split each, for `read_tasks`.

    Raises:
        BadInputError: the file cannot be written.
    """
    content = {
        "table": os.path.relpath(tasks[0].tables[0].absolute(), path.absolute().parent),
        "space": tasks[0].space,
        "tasks": [
            {"name": task.name, "source": list(task.splits[0].sources), "target": list(task.splits[0].targets)}
            for task in tasks
        ],
    }
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
