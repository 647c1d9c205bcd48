"""HW-NAS-Bench's own pickle: measured NAS-Bench-201 cells, and tables of FBNet's blocks, of six devices.

The pickle is a dict: `nasbench201` -> data set -> `DEVICE_latency`, `DEVICE_energy` (lists in the official order) and
`config` (with `arch_str`); `fbnet` -> `DEVICE_latency`, `DEVICE_energy` -> block -> value. Latencies are milliseconds.
FBNet's networks are sums of their blocks (`fbnet_get_metrics` of the publishers' `hw_nas_bench_api.py`), so a sample of
each of the two spaces is summed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latlab.harness.architectures import space_named
from latlab.harness.errors import BadInputError
from latlab.harness.importers.help_eagle import latencies
from latlab.harness.importers.source_table import rows_of
from latlab.harness.importers.table_files import Column
from latlab.search_spaces import ArchitectureError
from latlab.search_spaces.fbnet.skeleton import CIFAR100, IMAGENET, OPS, STEM_CHANNELS, Setting, positions

__all__ = ["CITATION", "MARK", "block_names", "hw_nas_bench_columns", "is_hw_nas_bench"]

CITATION = "HW-NAS-Bench (Li et al., ICLR 2021), MIT licence"
MARK = b"_latency"
"""Bytes by which a pickle may be HW-NAS-Bench's, whose numbers are numpy's."""
NASBENCH201, DATA_SET = "nasbench201", "cifar10"
"""The space, and the data set whose networks are the space's (ten classes, 32 px)."""
SETTINGS = {"fbnet": CIFAR100, "fbnet-imagenet": IMAGENET}
LATENCY = "_latency"
SUMS = 2000
"""Sampled architectures of FBNet whose sums are computed."""


def is_hw_nas_bench(value: Any) -> bool:
    """Return whether `value` is the content of HW-NAS-Bench's pickle."""
    if not isinstance(value, dict):
        return False
    cells = value.get(NASBENCH201)
    tables = [cells.get(DATA_SET) if isinstance(cells, dict) else None, value.get("fbnet")]
    return any(isinstance(one, dict) and any(str(key).endswith(LATENCY) for key in one) for one in tables)


def hw_nas_bench_columns(
    value: Mapping[str, Any], name: str, given: str | None = None, device: str | None = None
) -> list[Column]:
    """Return the latencies of every device in every space that latlab has: `nasbench201`, `fbnet`, `fbnet-imagenet`.

    Energies are no latencies and are left out.

    Args:
        value: the pickle's content.
        name: the file's name in errors.
        given: only this space; None for all.
        device: only this device; None for all.

    Raises:
        BadInputError: naming the device and the architecture or block that is wrong.
    """
    if given is not None and given not in (NASBENCH201, *SETTINGS):
        raise BadInputError(f"{name}: HW-NAS-Bench is of {', '.join((NASBENCH201, *SETTINGS))}, not of {given}")
    found = []
    cells, blocks = value.get(NASBENCH201), value.get("fbnet")
    if given in (None, NASBENCH201) and isinstance(cells, dict) and isinstance(cells.get(DATA_SET), dict):
        found += _cells(cells[DATA_SET], name, device)
    if isinstance(blocks, dict):
        for space in SETTINGS:
            if given in (None, space):
                found += _sums(blocks, space, name, device)
    if not found:
        known = sorted({key.removesuffix(LATENCY) for part in (cells or {}, blocks or {}) for key in _devices(part)})
        raise BadInputError(f"{name}: {device} is not among its devices: {', '.join(known)}")
    return found


def _devices(table: Any) -> list[str]:
    """Return the names of the columns of latencies in a table, or in the data set of NAS-Bench-201's."""
    if isinstance(table, dict) and DATA_SET in table:
        table = table[DATA_SET]
    return [str(key) for key in table if str(key).endswith(LATENCY)] if isinstance(table, dict) else []


def _cells(table: Mapping[str, Any], name: str, device: str | None) -> list[Column]:
    """Return the columns of NAS-Bench-201, by the strings in `config`, or in the official order without it."""
    space = space_named(NASBENCH201)
    config = table.get("config")
    if isinstance(config, list) and config:
        archs = []
        for place, one in enumerate(config):
            try:
                archs.append(space.parse(str(one.get("arch_str") if isinstance(one, dict) else one)))
            except ArchitectureError as error:
                raise BadInputError(f"{name}, {DATA_SET}, index {place}: {error}") from error
    else:
        archs = list(space.enumerate())
    rows = rows_of(space, archs, [f"{DATA_SET}, index {place}" for place in range(len(archs))])
    found = []
    for key in _devices(table):
        whose = key.removesuffix(LATENCY)
        if device not in (None, whose):
            continue
        values = table[key]
        if not isinstance(values, list) or len(values) != len(archs):
            size = len(values) if isinstance(values, list) else "no list of"
            raise BadInputError(f"{name}: {key} has {size} latencies, for {len(archs):,} architectures")
        found.append(Column(whose, rows, _floats(values, key, name), None, "ms", key=key))
    return found


def _floats(values: Sequence[Any], key: str, name: str) -> np.ndarray:
    for place, one in enumerate(values):
        if type(one) not in (int, float):
            raise BadInputError(f"{name}: {key}, index {place} is {one!r:.60}, which is no latency")
    return latencies(values)


def _sums(tables: Mapping[str, Any], space_name: str, name: str, device: str | None) -> list[Column]:
    """Return the sums of blocks of a sample of one of FBNet's spaces."""
    space, setting = space_named(space_name), SETTINGS[space_name]
    archs = space.sample(SUMS)
    rows = rows_of(space, archs, [f"architecture {arch.text}" for arch in archs])
    names = [block_names(setting, arch.genes) for arch in archs]
    note = f"sums of the latencies of its blocks, for {SUMS:,} sampled architectures, not measured whole"
    found = []
    for key in _devices(tables):
        whose, table = key.removesuffix(LATENCY), tables[key]
        if device not in (None, whose):
            continue
        if not isinstance(table, dict):
            raise BadInputError(f"{name}: {key} of fbnet is no table of blocks")
        wanted = {block for one in names for block in one}
        for block in sorted(wanted):
            if type(table.get(block)) not in (int, float):
                raise BadInputError(f"{name}: {key} of fbnet has no latency of the block {block}")
        sums = np.array([sum(float(table[block]) for block in one) for one in names])
        found.append(Column(whose, rows, sums, None, "ms", (note,), key))
    return found


def block_names(setting: Setting, genes: Sequence[int]) -> list[str]:
    """Return the names of the blocks whose latencies add up to a network's, in HW-NAS-Bench's spelling."""
    size, head = setting.size, setting.head_channels
    found = [f"ConvNorm_H{size}_W{size}_Cin3_Cout{STEM_CHANNELS}_kernel3_stride{setting.stem_stride}_group1"]
    for at, gene in zip(positions(setting), genes, strict=True):
        shape = f"H{at.size}_W{at.size}_Cin{at.in_channels}_Cout{at.out_channels}"
        op = OPS[gene]
        found.append(
            f"Skip_{shape}_stride{at.stride}" if op is None else
            f"ConvBlock_{shape}_exp{op.expansion}_kernel{op.kernel}_stride{at.stride}_group{op.groups}"
        )  # fmt: skip
        last = at
    small, wide = last.out_size, last.out_channels
    return [
        *found,
        f"ConvNorm_H{small}_W{small}_Cin{wide}_Cout{head}_kernel1_stride1_group1",
        f"AvgP_H{small}_W{small}_Cin{head}_Cout{head}_kernel{small}_stride1",
        f"FC_Cin{head}_Cout{setting.num_classes}",
    ]
