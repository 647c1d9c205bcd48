"""Reads the kernels of a file that anybody may have made, in a process of its own.

ONNX Runtime and TorchScript load such a file to say what they execute, and a file can end the process that does so,
take all of its memory, or never come back.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from latlab.agents.protocol.load_request import InputRequest
from latlab.harness.errors import BadInputError
from latlab.harness.exporters.worker import end_with_parent
from latlab.harness.models.kernels import kernels_of
from latlab.predictors.graph import Work

__all__ = ["READING_S", "kernels_apart"]

READER = ("-m", "latlab.harness.models.kernels_apart")
"""Arguments of Python for the process that reads."""
READING_S = 180.0
"""Longest time in seconds that a file is read."""
MEMORY_BYTES = 16 << 30
"""Most memory that reading it may take."""


def kernels_apart(
    path: Path,
    inputs: Sequence[InputRequest] = (),
    only_shape: tuple[int, ...] | None = None,
    most_s: float = READING_S,
) -> Work:
    """Return the kernels of a model file, as `kernels_of`, whatever the file does to the process that reads it.

    Args:
        path: the file.
        inputs, only_shape: as for `kernels_of`.
        most_s: longest time in seconds that it is read. The reader ends with this process, however that ends.

    Raises:
        BadInputError: as `kernels_of`; or reading it ended a process, or took too long.
    """
    asked = {"path": str(path.absolute()), "inputs": [asdict(one) for one in inputs], "only_shape": only_shape}
    try:
        done = subprocess.run(
            [sys.executable, *READER],
            input=json.dumps(asked),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=most_s,
        )
        found = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise BadInputError(f"the operators of {path} are unknown: reading it took over {most_s:.0f} s") from error
    except ValueError as error:
        name = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
        raise BadInputError(
            f"the operators of {path} are unknown: reading it ended the process ({name})",
            "A runtime cannot load such a file: check it, or export it again.",
        ) from error
    if "error" in found:
        raise BadInputError(found["error"], found["hint"])
    return Work.from_json(found["kernels"]) if found["kernels"] else Work((), ())


def _read(asked: dict[str, Any]) -> dict[str, Any]:
    inputs = [
        InputRequest(**{**one, "shape": None if one["shape"] is None else tuple(one["shape"])})
        for one in asked["inputs"]
    ]
    try:
        only_shape = None if asked["only_shape"] is None else tuple(asked["only_shape"])
        return {"kernels": kernels_of(Path(asked["path"]), inputs, only_shape).to_json()}
    except BadInputError as error:
        return {"error": error.message, "hint": error.hint}


if __name__ == "__main__":
    end_with_parent()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    sys.stdout.write(json.dumps(_read(json.load(sys.stdin))))
