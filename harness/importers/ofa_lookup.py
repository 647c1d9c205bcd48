"""Lookup tables of Once-for-all: the latency of every block on a device, in one YAML file per resolution.

A layer-wise table contains no whole network, but predicts each one: the sum of its blocks. So it becomes a source
device with those sums for a sample of the space. The blocks show which of the space's two widths the table is of.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from latlab.harness.errors import BadInputError
from latlab.harness.importers.source_table import Floats, Rows, rows_of
from latlab.harness.yaml_reader import Document, read_document
from latlab.search_spaces import Architecture, get, names
from latlab.search_spaces.ofa_mobilenetv3.skeleton import (
    EXPANSIONS,
    KERNELS,
    MAX_DEPTH,
    RESOLUTIONS,
    STAGES,
    Block,
    blocks_of,
    stages,
    widths,
)
from latlab.search_spaces.ofa_mobilenetv3.space import OFAMobileNetV3

__all__ = ["CITATION", "Lookup", "device_of", "is_lookup", "read_lookup", "summed"]

CITATION = "lookup tables of Once-for-all (Cai et al., ICLR 2020) and CompOFA (Sahni et al., ICLR 2021), Apache-2.0"
_TABLE = re.compile(r"[_-]?[0-9]{3}[_-]?lookup[_-]?table$", re.IGNORECASE)
SUMS = 2000
"""The number of sampled architectures whose sums are computed."""


@dataclass(frozen=True)
class Lookup:
    """The blocks of one file: their mean latencies by name, in the file's unit."""

    path: Path
    space: OFAMobileNetV3
    resolution: int
    latency: Mapping[str, float]
    variance: Mapping[str, float]
    """The variance of each block's mean latency over the counted runs."""


def is_lookup(value: Any) -> bool:
    """Return whether `value` is the content of a lookup table."""
    return isinstance(value, dict) and any(str(key).startswith("expanded_conv-input:") for key in value)


def read_lookup(path: Path, given: str | None) -> Lookup:
    """Read a lookup table.

    Args:
        path: the YAML file.
        given: the space, or None to find it by the stem.

    Raises:
        BadInputError: naming file, line and block of what is wrong.
    """
    document = read_document(path, "the lookup table")
    if document.problems:
        raise BadInputError(document.problems[0])
    if not is_lookup(document.value):
        raise BadInputError(
            f"{path}: not a lookup table of Once-for-all",
            "Its entries read `expanded_conv-input:...: {count: 9, mean: 1.2, std: 0.1}`.",
        )
    latency, variance = {}, {}
    for block, facts in document.value.items():
        latency[block] = _number(document, block, facts, "mean")
        variance[block] = 0.0
        if isinstance(facts, dict) and "std" in facts and "count" in facts:
            runs = max(_number(document, block, facts, "count"), 1.0)
            variance[block] = _number(document, block, facts, "std") ** 2 / runs
    space, resolution = _space_of(path, latency, given)
    missing = sorted(_all_blocks(space, resolution) - set(latency))
    if missing:
        raise BadInputError(
            f"{path}: {len(missing)} blocks of {space.name} at {resolution} px are missing, the first: {missing[0]}"
        )
    return Lookup(path, space, resolution, latency, variance)


def _number(document: Document, block: str, facts: Any, field: str) -> float:
    value = facts.get(field) if isinstance(facts, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or value < 0 or (field == "mean" and not value):
        line = document.line((block, field))
        raise BadInputError(f"{document.path}, line {line}: {field} of {block} is {value!r:.40}, not a positive number")
    return float(value)


def _space_of(path: Path, blocks: Mapping[str, Any], given: str | None) -> tuple[OFAMobileNetV3, int]:
    """Return the space and the resolution whose stem is in the table."""
    fitting = []
    for space in map(get, names()):
        if isinstance(space, OFAMobileNetV3) and given in (None, space.name):
            fitting += [(space, one) for one in RESOLUTIONS if _stem(one, space.width) in blocks]
    if len(fitting) != 1:
        stems = [block for block in blocks if block.startswith("Conv-input:")]
        expected = _stem(RESOLUTIONS[0], _width_of(given))
        raise BadInputError(
            f"{path}: its first convolution ({stems[0] if stems else 'there is none'}) is not of "
            f"{given or 'an OFA-MobileNetV3 space'}",
            f"It would read like {expected}, the resolution a multiple of 4 from 128 to 224.",
        )
    return fitting[0]


def _width_of(given: str | None) -> float:
    space = get(given) if given in names() else None
    return space.width if isinstance(space, OFAMobileNetV3) else 1.0


def _stem(resolution: int, width: float) -> str:
    return f"Conv-input:{_shape(resolution, 3)}-output:{_shape(-(-resolution // 2), widths(width)[0])}"


def _shape(size: int, channels: int) -> str:
    return f"{size}x{size}x{channels}"


def _name(block: Block) -> str:
    return (
        f"expanded_conv-input:{_shape(block.size, block.in_channels)}"
        f"-output:{_shape(block.out_size, block.out_channels)}"
        f"-expand:{block.middle_channels}-kernel:{block.kernel}-stride:{block.stride}"
        f"-idskip:{int(block.has_identity)}-se:{int(block.has_se)}-hs:{int(block.has_hswish)}"
    )


def _names(space: OFAMobileNetV3, resolution: int, choices: Sequence[Sequence[tuple[int, int]]]) -> list[str]:
    """Return the table's entries whose sum is the network's latency."""
    blocks = blocks_of(resolution, choices, space.width)
    *_, last, final, mixed = widths(space.width)
    small = blocks[-1].out_size
    return [
        _stem(resolution, space.width),
        *map(_name, blocks),
        f"Conv_1-input:{_shape(small, last)}-output:{_shape(small, final)}",
        f"AvgPool2D-input:{_shape(small, final)}-output:{_shape(1, final)}",
        f"Conv_2-input:{_shape(1, final)}-output:{_shape(1, mixed)}",
        f"Logits-input:{_shape(1, mixed)}-output:{space.num_classes}",
    ]


def _all_blocks(space: OFAMobileNetV3, resolution: int) -> set[str]:
    every = ([[(kernel, expansion)] * MAX_DEPTH] * STAGES for kernel in KERNELS for expansion in EXPANSIONS)
    return {name for choices in every for name in _names(space, resolution, choices)}


def device_of(paths: Sequence[Path]) -> str:
    """Return the device that these tables belong to.

    It is what the files' names share, without `160_lookup_table`, else the name of their folder.
    """
    names = {_TABLE.sub("", path.stem).strip("_-. ") for path in paths}
    return names.pop() or paths[0].absolute().parent.name if len(names) == 1 else paths[0].absolute().parent.name


def summed(tables: Sequence[Lookup]) -> tuple[Rows, Floats, Floats]:
    """Sample architectures at the resolutions of `tables`, and return their rows, latencies and standard errors.

    Raises:
        BadInputError: the tables differ in space, or share a resolution.
    """
    by_resolution = {table.resolution: table for table in tables}
    space = tables[0].space
    for table in tables:
        if table.space.name != space.name or by_resolution[table.resolution] is not table:
            raise BadInputError(
                f"{table.path}: {table.space.name} at {table.resolution} px cannot stand beside {tables[0].path}",
                "Import one device at a time: its tables are of one space and different resolutions.",
            )
    rng, offered = random.Random(0), sorted(by_resolution)
    drawn: dict[Architecture, list[str]] = {}
    while len(drawn) < SUMS:
        genes = list(space.random(rng).genes)
        genes[0] = rng.choice(offered)
        arch = space.from_genes(genes)
        drawn[arch] = _names(space, arch.genes[0], stages(arch.genes))
    latency = [sum(by_resolution[arch.genes[0]].latency[name] for name in parts) for arch, parts in drawn.items()]
    variance = [sum(by_resolution[arch.genes[0]].variance[name] for name in parts) for arch, parts in drawn.items()]
    archs = list(drawn)
    rows = rows_of(space, archs, [f"architecture {arch.text}" for arch in archs])
    return rows, np.array(latency), np.array([sqrt(one) for one in variance])
