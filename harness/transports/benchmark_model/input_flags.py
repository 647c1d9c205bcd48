"""The flags with which `benchmark_model` is told what a model's file leaves open of its inputs."""

from __future__ import annotations

from collections.abc import Sequence

from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.load_request import InputRequest

__all__ = ["input_flags"]


def input_flags(inputs: Sequence[InputRequest]) -> list[str]:
    """Return the program's flags for the shapes and ranges of inputs; none for inputs without names.

    Without these flags the program runs a model with the shapes that its file declares.

    Raises:
        AgentError: "bad_request" if a name holds a character with which the program separates its lists.
    """
    named = [one for one in inputs if one.name is not None and one.shape is not None]
    if not named:
        return []
    for one in named:
        if set(one.name or "") & set(",;\n"):
            raise AgentError("bad_request", f"benchmark_model takes no input with the name {one.name!r}")
    shapes = ":".join(",".join(map(str, one.shape or (1,))) for one in named)
    flags = [f"--input_layer={','.join(str(one.name) for one in named)}", f"--input_layer_shape={shapes}"]
    # In a list of ranges a colon ends an entry: the range of an input with one in its name cannot be said.
    ranges = [one for one in named if one.low is not None and one.high is not None and ":" not in (one.name or "")]
    if ranges:
        flags.append(f"--input_layer_value_range={':'.join(f'{one.name},{one.low},{one.high}' for one in ranges)}")
    return flags
