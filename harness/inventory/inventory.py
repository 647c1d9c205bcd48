"""The reader of `inventory.yaml`, which holds the user's devices and timing policies.

Without a file the only device is `local`, this machine.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Union, get_args

from pydantic import BaseModel, Discriminator, Field, Tag, ValidationError, create_model

from latlab.harness.errors import BadInputError
from latlab.harness.inventory.policies import PolicyConfig, policy_of
from latlab.harness.targets import Target
from latlab.harness.timing_policy import PRESETS, TimingPolicy
from latlab.harness.transports import DeviceConfig, UnknownTransportError, get, names
from latlab.harness.transports.config import Strict, TargetsConfig
from latlab.harness.transports.local.config import LocalDevice
from latlab.harness.yaml_reader import Document, Location, read_document

__all__ = ["Inventory", "LocalDevice", "load_inventory", "policy_named", "schema"]

DEFAULT_FILE = "inventory.yaml"
DEFAULT_TRANSPORT = "local"
SECTIONS = {"devices": "device", "policies": "policy"}
"""The sections of a file, and the word for one entry of each."""
MAX_PROBLEMS = 20
"""The most problems of one file that are reported at once."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_WANTED = {
    "too_short": "at least one is wanted here",
    "string_type": "text is wanted here: put it in quotes",
    "list_type": "a list is wanted here: [first, second]",
    "model_type": "`name: value` pairs are wanted here",
    "model_attributes_type": "`name: value` pairs are wanted here",
    "dict_type": "`name: value` pairs are wanted here",
    "bool_type": "true or false is wanted here",
    "int_type": "a whole number is wanted here",
    "int_from_float": "a whole number is wanted here",
    "int_parsing": "a whole number is wanted here",
    "int_parsing_size": "a whole number with fewer digits is wanted here",
    "float_type": "a number is wanted here",
    "float_parsing": "a number is wanted here",
    "finite_number": "a number is wanted here",
    "path_type": "the path of a file is wanted here",
    "string_too_short": "it is empty",
    "greater_than": "more than {gt:,g} is wanted here",
    "greater_than_equal": "at least {ge:,g} is wanted here",
    "less_than": "less than {lt:,g} is wanted here",
    "less_than_equal": "at most {le:,g} is wanted here",
    "value_error": "{error}",
}
"""Messages in place of those of pydantic, which are written for programmers and change between releases."""


class Inventory:
    """The devices by name, in the file's order. `local` always exists.

    Args:
        devices: the file's devices.
        path: the file, for messages.
        lacking: for devices that cannot be used (a key file is missing, say), the message that says why. The other
            devices can be used.
        policies: the file's timing policies by name, in addition to the presets.
    """

    def __init__(
        self,
        devices: Mapping[str, DeviceConfig] | None = None,
        path: Path | None = None,
        lacking: Mapping[str, str] | None = None,
        policies: Mapping[str, TimingPolicy] | None = None,
    ) -> None:
        self.devices = dict(devices or {})
        self.path = path or Path(DEFAULT_FILE)
        self.policies = dict(policies or {})
        self._lacking = dict(lacking or {})

    def device(self, name: str) -> DeviceConfig:
        """Return the device `name`.

        Raises:
            BadInputError: the inventory has no such device, or it lacks something.
        """
        if name in self._lacking:
            raise BadInputError(self._lacking[name])
        if name in self.devices:
            return self.devices[name]
        if name == "local":
            return LocalDevice()
        known = sorted({*self.devices, "local"})
        raise BadInputError(
            f"device {name!r} is not in the inventory (it has: {', '.join(known)})",
            f"Add it to {self.path} under `devices:`, or name another file with --inventory.",
        )

    @property
    def names(self) -> list[str]:
        """Names of all devices, sorted: those of the file, usable or not, and `local`."""
        return sorted({*self.devices, *self._lacking, "local"})

    def select(self, words: Sequence[str]) -> list[tuple[str, Target | None]]:
        """Return the devices that a command's words stand for: names, full targets, or `all` for those of the file.

        Returns:
            Pairs (device, target) in the given order; the target is None if the word names only the device.

        Raises:
            BadInputError: a device is unknown, or named twice.
        """
        chosen: list[tuple[str, Target | None]] = []
        for word in words:
            if word == "all":
                if not self.devices:
                    raise BadInputError(f"`all` means the devices of {self.path}, and there are none")
                chosen += [(name, None) for name in self.devices]
            elif "/" in word:
                target = Target.parse(word)
                chosen.append((target.device, target))
            else:
                chosen.append((word, None))
        for name, _ in chosen:
            self.device(name)
        twice = [one for one in dict.fromkeys(chosen) if chosen.count(one) > 1]
        if twice:
            raise BadInputError(f"{twice[0][1] or twice[0][0]} is named twice")
        return chosen


def schema() -> dict[str, Any]:
    """Return the JSON Schema of an inventory file, which editors use."""
    made = _file_model().model_json_schema()
    for name in _usable_transports():
        if name != DEFAULT_TRANSPORT:  # without the field a device matches the default transport only
            made["$defs"][get(name).__name__].setdefault("required", []).append("transport")
    properties, nothing = made["properties"], {"type": "null"}
    devices = properties["devices"]
    devices["additionalProperties"] = {"anyOf": [devices["additionalProperties"], nothing]}
    for name in SECTIONS:
        properties[name] = {"anyOf": [properties[name], nothing]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "latlab inventory"}


@cache
def _file_model() -> type[BaseModel]:
    """Return the model of a file. A device's `transport` (default `local`) selects the model of the device."""
    configs = [Annotated[get(name), Tag(name)] for name in _usable_transports()]
    device = Annotated[Union[tuple(configs)], Discriminator(_transport_of)]  # type: ignore[valid-type]  # noqa: UP007
    fields: dict[str, Any] = {
        "devices": (dict[str, device], Field(default_factory=dict)),  # type: ignore[valid-type]
        "policies": (dict[str, PolicyConfig], Field(default_factory=dict)),
    }
    return create_model("Inventory", __base__=Strict, **fields)


def _usable_transports() -> tuple[str, ...]:
    """Return the transports that can be loaded: a broken package of somebody else must not break the other devices."""
    usable = []
    for name in names():
        with suppress(UnknownTransportError):
            get(name)
            usable.append(name)
    return tuple(usable)


def _why_broken(name: str) -> str:
    """Return why a transport cannot be loaded."""
    try:
        get(name)
    except UnknownTransportError as error:
        return str(error)
    return "it cannot be used"


def _transport_of(value: object) -> str | None:
    name = value.get("transport", DEFAULT_TRANSPORT) if isinstance(value, dict) else getattr(value, "transport", None)
    return name if isinstance(name, str) else None


def load_inventory(path: str | Path | None = None) -> Inventory:
    """Return the inventory in `path`, else in $LATLAB_INVENTORY, else in ./inventory.yaml if that exists.

    Raises:
        BadInputError: naming file, line and field of everything that is wrong.
    """
    if path is None:
        named = os.environ.get("LATLAB_INVENTORY")
        path = Path(named or DEFAULT_FILE)
        if not named and not path.exists():
            return Inventory(path=path)
    path = Path(path)
    document = read_document(path)
    value = _with_empty_sections(document.value)
    devices: dict[str, DeviceConfig] = {}
    policies: dict[str, PolicyConfig] = {}
    try:
        parsed: Any = _file_model().model_validate(value)
        devices, policies = dict(parsed.devices), dict(parsed.policies)
    except ValidationError as error:
        for location, problem in _problems(value, error.errors(include_url=False)):
            document.complain(location, problem)
    for section in SECTIONS:
        names_given = value.get(section) if isinstance(value, dict) else None
        for name in names_given if isinstance(names_given, dict) else ():
            _check_name(document, section, name)
    for name, device in devices.items():
        _check_device(document, name, device)
    for name, policy in policies.items():
        for location, problem in policy.problems(name):
            document.complain(("policies", name, *location), problem)
    if document.problems:
        more = len(document.problems) - MAX_PROBLEMS
        shown = [*document.problems[:MAX_PROBLEMS], *([f"... and {more} more"] if more > 0 else [])]
        raise BadInputError("\n".join(shown))
    lacking = {}
    for name, device in devices.items():
        for location, problem in device.missing_files():
            document.complain(("devices", name, *location), problem)
            lacking[name] = "\n".join(document.problems)
        document.forget()
    return Inventory(devices, path, lacking, {name: policy_of(name, policy) for name, policy in policies.items()})


def _with_empty_sections(value: Any) -> Any:
    """Return the content with empty dicts for empty sections and for devices that are only a name."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        return value
    value = {key: {} if key in SECTIONS and part is None else part for key, part in value.items()}
    if isinstance(devices := value.get("devices"), dict):
        value["devices"] = {name: {} if device is None else device for name, device in devices.items()}
    return value


def _check_name(document: Document, section: str, name: str) -> None:
    if name == "all" and section == "devices":
        document.complain((section, name), "`all` means every device: name this one otherwise")
    elif not _NAME.fullmatch(name):
        document.complain(
            (section, name),
            f"{name!r:.80} cannot be a {SECTIONS[section]}'s name: use letters, digits, '-', '_' and '.', "
            "beginning with a letter or digit, at most 64",
        )


def _check_device(document: Document, name: str, device: DeviceConfig) -> None:
    for number, one in enumerate(device.targets):
        try:
            one.targets(name)
        except BadInputError as error:
            hint = f" ({error.hint})" if error.hint else ""
            document.complain(("devices", name, "targets", number), f"{error.message}{hint}")
    for location, problem in device.problems():
        document.complain(("devices", name, *location), problem)


def _problems(value: Any, errors: Iterable[Any]) -> list[tuple[Location, str]]:
    """Return the places that are wrong, and how.

    If a field may be a list or a single value, pydantic tries both; only the problems of the form that was given count.
    """
    found: dict[tuple[Location, str], None] = {}
    for error in errors:
        location, inside, branch = _locate(value, error["loc"])
        if branch is None or branch.startswith("list[") == isinstance(inside, list):
            found[explain(value, location, error)] = None
    return list(found)


def _locate(value: Any, loc: Sequence[str | int]) -> tuple[Location, Any, str | None]:
    """Translate pydantic's location to one in the file, which lacks the names of transports and types.

    Returns:
        The location, the field's value, and the name of the type that pydantic tried on it if it tried several.
    """
    if loc[:1] == ("devices",) and len(loc) > 2:
        loc = (*loc[:2], *loc[3:])
    location: Location = ()
    field, branch = value, None
    for part in loc:
        if (isinstance(value, dict) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        ):
            value = value[part]  # type: ignore[index]
            field = value if branch is None else field
            location = (*location, part)
        elif part == loc[-1] and isinstance(value, dict) and branch is None:
            location = (*location, part)  # a field that is missing
        else:
            branch = branch or str(part)
    return location, field, branch


def _model_of_field(model: type[BaseModel], name: str | int) -> type[BaseModel] | None:
    """Return the model of a field that is a group of fields, such as `cooldown`, or None."""
    field = model.model_fields.get(str(name))
    kinds = get_args(field.annotation) or (field.annotation,) if field else ()
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def explain(value: Any, location: Location, error: Any) -> tuple[Location, str]:
    """Return where a file is wrong and how, in latlab's words.

    Args:
        value: the values of the file.
        location: what pydantic's location of the error means in the file.
        error: one of the errors of a pydantic `ValidationError`.
    """
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        return location, f"there is no such field{_instead(value, location)}"
    if kind.startswith("union_tag") and isinstance(given, dict):
        name = given.get("transport")
        if name in names():
            return (*location, "transport"), _why_broken(str(name))
        offered = _usable_transports()
        close = difflib.get_close_matches(str(given.get("transport")), offered, 1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        return (*location, "transport"), f"choose one of: {', '.join(offered)}{meant}"
    if kind.startswith("union_tag"):
        kind = "model_type"
    if kind == "missing":
        return location, "it is missing"
    if kind == "literal_error":
        problem = f"choose {error['ctx']['expected']}"
    elif kind in _WANTED:
        problem = _WANTED[kind].format_map(error.get("ctx", {}))
    else:
        problem = f"it is not valid: {error['msg']}"
    if isinstance(given, str | int | float):
        problem += f", not {given!r:.60}"
    return location, problem


def _instead(value: Any, location: Location) -> str:
    """Return the most similar field, or all that exist, as the end of a sentence."""
    model: type[BaseModel] | None = None
    if len(location) == 1:
        model = _file_model()
    elif len(location) == 3 and location[0] == "policies":
        model = PolicyConfig
    elif len(location) == 3:
        model = get(_transport_of(value["devices"][location[1]]) or DEFAULT_TRANSPORT)
    elif len(location) == 5 and location[2] == "targets":
        model = TargetsConfig
    elif len(location) == 4 and location[0] == "devices":
        model = _model_of_field(get(_transport_of(value["devices"][location[1]]) or DEFAULT_TRANSPORT), location[2])
    if model is None:
        return ""
    close = difflib.get_close_matches(str(location[-1]), model.model_fields, 1)
    return f": did you mean {close[0]}?" if close else f"; there are: {', '.join(model.model_fields)}"


def policy_named(name: str, inventory: Inventory | None = None) -> TimingPolicy:
    """Return a preset, or one of the inventory's policies.

    Raises:
        BadInputError: there is none of that name.
    """
    known = {**PRESETS, **(inventory.policies if inventory else {})}
    if name not in known:
        own = f" Your own belong into {inventory.path}, under `policies:`." if inventory else ""
        raise BadInputError(f"unknown policy {name!r:.60}", f"Choose one of: {', '.join(known)}.{own}")
    return known[name]
