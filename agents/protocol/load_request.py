"""The request to load a model, and the limits that both sides check."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.messages import SHA256, SUFFIX, Fields

__all__ = [
    "INPUT_DATA",
    "MAX_CPUS",
    "MAX_ELEMENTS",
    "MAX_INPUTS",
    "MAX_INPUT_NAME",
    "MAX_SIDES",
    "MAX_SIZE",
    "InputRequest",
    "LoadRequest",
]

INPUT_DATA = ".npz"
"""Suffix of a pushed file with the values of inputs."""
MAX_SIZE = 1 << 31
"""Greatest length of one dimension of an input."""
MAX_ELEMENTS = 1 << 31
"""Most elements of one input."""
MAX_SIDES = 16
"""Most dimensions of an input."""
MAX_INPUTS = 1024
"""Most inputs of a model. A language model with a cache has two for each of its layers."""
MAX_INPUT_NAME = 1024
"""Most characters of an input's name."""
MAX_CPUS = 4096
"""Highest number of threads, and of a CPU."""
MAX_SEED = 1 << 32
MAX_NAME = 4096
"""Most characters of a network's name."""
_NAME = re.compile(r"[a-z0-9_-]{1,32}")
_DTYPE = re.compile(r"[a-z0-9]{1,16}")
_INT64 = 1 << 63


@dataclass(frozen=True)
class InputRequest:
    """How one input of a model is to be filled. What is None, the model's file decides."""

    name: str | None = None
    """Its name in the file; None for the input at this place in the file's order."""
    shape: tuple[int, ...] | None = None
    """Its shape with the batch."""
    dtype: str | None = None
    """The numpy name of its type, e.g. `int64`."""
    low: int | None = None
    """Least of the random values of an integer input."""
    high: int | None = None
    """Greatest of them."""

    @classmethod
    def read(cls, table: dict[str, Any]) -> InputRequest:
        """Return the input that an object of a message describes.

        Raises:
            AgentError: "bad_request" if a field is out of its limits.
        """
        fields = Fields(table)
        shape = fields.optional_integers("shape", 1, MAX_SIZE, MAX_SIDES)
        elements = 1
        for side in shape or ():
            elements *= side
        if elements > MAX_ELEMENTS:
            raise AgentError("bad_request", f"an input of {elements} elements; at most {MAX_ELEMENTS} are allowed")
        return cls(
            name=fields.optional_string("name", MAX_INPUT_NAME),
            shape=None if shape is None else tuple(shape),
            dtype=fields.optional_text("dtype", _DTYPE),
            low=fields.optional_integer("low", -_INT64, _INT64 - 1),
            high=fields.optional_integer("high", -_INT64, _INT64 - 1),
        )


@dataclass(frozen=True)
class LoadRequest:
    """The fields of `load`: which pushed file to open, in which runtime, and how to run it."""

    sha256: str
    """Hash of the file, which was pushed before."""
    suffix: str
    """Suffix of the file's name, e.g. `.onnx`."""
    runtime: str
    """Name of the runtime, e.g. `onnxruntime`."""
    accelerator: str
    """`cpu`, or what runs the network instead, e.g. `cuda`."""
    threads: int
    """Number of CPU threads of the runtime."""
    affinity: list[int] | None
    """CPUs that run the network; None for all."""
    inputs: Sequence[InputRequest]
    """The inputs; empty if the file says all."""
    seed: int
    """Seed of the random input values."""
    network: str = ""
    """The controller's name of the network, for messages; may be empty."""
    data: str | None = None
    """Hash of a pushed `.npz` file with the values of the inputs, by name; None for random values."""

    @classmethod
    def read(cls, fields: Fields) -> LoadRequest:
        """Return the request that a message holds.

        Raises:
            AgentError: "bad_request" if a field is missing, or out of its limits.
        """
        name = fields.optional_string("network", MAX_NAME) or ""
        return cls(
            sha256=fields.text("sha256", SHA256),
            suffix=fields.text("suffix", SUFFIX),
            runtime=fields.text("runtime", _NAME),
            accelerator=fields.text("accelerator", _NAME),
            threads=fields.integer("threads", 1, MAX_CPUS),
            affinity=fields.optional_integers("affinity", 0, MAX_CPUS, MAX_CPUS),
            inputs=[InputRequest.read(one) for one in fields.tables("inputs", MAX_INPUTS)]
            if "inputs" in fields
            else [],
            seed=fields.integer("seed", 0, MAX_SEED),
            network="".join(character if character.isprintable() else " " for character in name),
            data=fields.optional_text("data", SHA256),
        )

    def to_fields(self) -> dict[str, Any]:
        """Return the fields of the message."""
        inputs = [{name: value for name, value in asdict(one).items() if value is not None} for one in self.inputs]
        return {**vars(self), "inputs": inputs}
