"""The look-up of search spaces and architectures that the user names. Whatever does not exist is a `BadInputError`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from latlab import search_spaces
from latlab.harness.errors import BadInputError
from latlab.search_spaces import Architecture, ArchitectureError, BlockSpace, SearchSpace, UnknownSpaceError, get, names
from latlab.search_spaces.block_space import SUFFIX

__all__ = [
    "blocks_of",
    "is_block_space",
    "parse_archs",
    "read_archs",
    "sample_space",
    "some_blocks",
    "space_named",
    "space_to_measure",
]


def space_named(name: str) -> SearchSpace:
    """Return the search space with this name. Raises `BadInputError` if there is none."""
    try:
        return get(name)
    except UnknownSpaceError as error:
        raise BadInputError(str(error), "`latlab spaces` describes them.") from error


def space_to_measure(name: str) -> SearchSpace:
    """Return a search space whose networks can be built. Raises `BadInputError` if there is none with this name."""
    space = space_named(name)
    if not space.buildable:
        raise BadInputError(
            f"{name} cannot be measured: it has no networks to build, only architectures to predict",
            f"Compare or use predictions from published tables, or measure one of: {', '.join(names(buildable=True))}.",
        )
    return space


def parse_archs(space: SearchSpace, archs: Iterable[str | Architecture]) -> list[Architecture]:
    """Return architectures of a space from their strings, or from architectures.

    Raises:
        BadInputError: naming the string that is wrong, or the architecture that is of another space.
    """
    if isinstance(archs, str | Architecture):
        raise BadInputError("architectures are a list, also if there is one", f"Write [{str(archs)!r}].")
    return [_of_space(space, arch) if isinstance(arch, Architecture) else _parsed(space, arch) for arch in archs]


def _parsed(space: SearchSpace, text: str) -> Architecture:
    try:
        return space.parse(text)
    except ArchitectureError as error:
        raise BadInputError(str(error), _other_form(space, text)) from error


def _other_form(space: SearchSpace, text: object) -> str | None:
    """Return what to write for an architecture that is given as genes or as a number in a list; None for others."""
    if not isinstance(text, str) or not re.fullmatch(r"[\s\d,;\[\]()-]{1,999}", text):
        return None
    genes = [int(number) for number in re.findall(r"-?\d{1,9}", text)]
    if len(genes) > 1:
        with suppress(ArchitectureError, ValueError):
            return f"These are genes. As a string: {space.from_genes(genes).text}"
    return "Write the architecture's string. Only `latlab import` reads genes and numbers (--arch-format)."


def _of_space(space: SearchSpace, arch: Architecture) -> Architecture:
    if arch.space != space.name:
        raise BadInputError(f"{arch} is an architecture of {arch.space}, not of {space.name}")
    return arch


def read_archs(space: SearchSpace, path: str | Path) -> list[Architecture]:
    """Return the architectures of a file with one string per line; lines that begin with `#` are comments.

    Raises:
        BadInputError: if the file cannot be read, or holds a wrong string or none.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise BadInputError(f"cannot read {path}: {reason}") from error
    archs = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            archs.append(space.parse(line))
        except ArchitectureError as error:
            raise BadInputError(f"{path}, line {number}: {error}") from error
    if not archs:
        raise BadInputError(f"{path} holds no architecture", "Write one architecture's string per line.")
    return archs


def sample_space(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Return `count` random architectures. A longer sample with the same seed begins with the shorter one.

    Raises:
        BadInputError: if the space has fewer, or `count` is less than 1.
    """
    if not 1 <= count <= space.size:
        raise BadInputError(f"{space.name} has {space.size} architectures: the count must be between 1 and that")
    return space.sample(count, seed)


def is_block_space(name: str) -> bool:
    """Return whether a name is that of a space of blocks, e.g. `fbnet-blocks`."""
    return name.endswith(SUFFIX)


def blocks_of(name: str) -> BlockSpace:
    """Return the space of the blocks that networks of the space `name` are made of.

    Raises:
        BadInputError: if the space cannot be measured, or is not made of blocks.
    """
    blocks = search_spaces.blocks_of(space_to_measure(name))
    if blocks is None:
        raise BadInputError(f"{name} is not made of blocks that could be measured alone", "Leave out --blocks.")
    return blocks


def some_blocks(blocks: BlockSpace, count: int | None, seed: int, as_written: bool) -> list[Architecture]:
    """Return `count` random blocks in random order, without blocks that execute nothing.

    Args:
        count: None for all.
        as_written: whether dead edges count as executed.

    Raises:
        BadInputError: if there are fewer blocks, or `count` is less than 1.
    """
    drawn = blocks.sample(blocks.size, seed)
    executed = [block for block in drawn if blocks.layers(block, live=not as_written)]
    if count is not None and not 1 <= count <= len(executed):
        raise BadInputError(f"{blocks.whole.name} has {len(executed)} blocks: the count must be between 1 and that")
    return executed[:count]
