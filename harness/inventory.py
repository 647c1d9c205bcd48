"""The devices a user owns, from `inventory.yaml`. Without a file there is `local`, the machine in front of you."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from latlab.harness.errors import BadInputError

__all__ = ["Inventory", "LocalDevice", "load_inventory"]

DEFAULT_FILE = "inventory.yaml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LocalDevice(_Strict):
    """The machine that latlab runs on, driven through the same worker and protocol as any other."""

    transport: Literal["local"] = "local"
    description: str = ""
    python: Path | None = Field(default=None, description="Interpreter that runs the worker; default: latlab's own")
    work: Path | None = Field(default=None, description="The worker's folder; default: in the user's cache folder")
    affinity: list[Annotated[int, Field(ge=0)]] | None = Field(
        default=None, description="CPUs that time networks; default: the last ones, as many as threads"
    )


Device = LocalDevice
"""What stands under a device's name; further transports join as a union discriminated by `transport`."""


class Inventory(_Strict):
    """Every device by its name."""

    devices: dict[str, Device] = Field(default_factory=dict)

    def device(self, name: str) -> Device:
        """Raises `BadInputError` when the inventory has no such device."""
        if name in self.devices:
            return self.devices[name]
        if name == "local":
            return LocalDevice()
        known = sorted({*self.devices, "local"})
        raise BadInputError(
            f"device {name!r} is not in the inventory (it has: {', '.join(known)})",
            f"Add it to {DEFAULT_FILE} under `devices:`, or name another file with --inventory.",
        )


def load_inventory(path: Path | None = None) -> Inventory:
    """The inventory in `path`, else in $LATLAB_INVENTORY, else in ./inventory.yaml where that exists.

    Raises:
        BadInputError: naming file, line and field.
    """
    if path is None:
        named = os.environ.get("LATLAB_INVENTORY")
        path = Path(named or DEFAULT_FILE)
        if not named and not path.exists():
            return Inventory()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise BadInputError(f"cannot read the inventory {path}: {reason}") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise BadInputError(f"{path}{where}: {problem}") from error
    try:
        inventory = Inventory.model_validate({} if data is None else data)
    except ValidationError as error:
        raise BadInputError("\n".join(_explain(path, node, problem) for problem in error.errors())) from error
    for name in inventory.devices:
        if not _NAME.fullmatch(name):
            raise BadInputError(
                f"{path}, line {_line(node, ('devices', name))}: {name!r} cannot be a device's name",
                "Use letters, digits, '-', '_' and '.', beginning with a letter or digit.",
            )
    return inventory


def _explain(path: Path, node: yaml.Node | None, problem: object) -> str:
    assert isinstance(problem, dict)
    location = tuple(part for part in problem["loc"] if part != "[key]")
    field = ".".join(str(part) for part in location) or "the file"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    if problem["type"] == "extra_forbidden":
        message = "there is no such field"
    return f"{path}, line {_line(node, location)}: {field}: {message}"


def _line(node: yaml.Node | None, location: tuple[object, ...]) -> int:
    """Line (from 1) of the deepest node on the way to `location`."""
    line = 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line, node = key.start_mark.line + 1, value
                    break
            else:
                return line
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line
