"""The request to load a model, and the limits that both sides check."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from latlab.agents.protocol.messages import SHA256, SUFFIX, Fields

__all__ = ["MAX_CPUS", "LoadRequest"]

MAX_SIZE = 1 << 16
"""Greatest length of one dimension of an input."""
MAX_SIDES = 8
"""Most dimensions of an input."""
MAX_CPUS = 4096
"""Highest number of threads, and of a CPU."""
MAX_SEED = 1 << 32
MAX_NAME = 4096
"""Most characters of a network's name."""
_NAME = re.compile(r"[a-z0-9_-]{1,32}")


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
    input_shape: list[int] | None
    """Shape of the input, where the file leaves it open; None for the shape that the file declares."""
    seed: int
    """Seed of the random input values."""
    network: str = ""
    """The controller's name of the network, for messages; may be empty."""

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
            input_shape=fields.optional_integers("input_shape", 1, MAX_SIZE, MAX_SIDES) or None,
            seed=fields.integer("seed", 0, MAX_SEED),
            network="".join(character if character.isprintable() else " " for character in name),
        )

    def to_fields(self) -> dict[str, Any]:
        """Return the fields of the message."""
        return dict(vars(self))
