"""Reads the kernels of a file that anybody may have made, in a process of its own.

ONNX Runtime and TorchScript load such a file to say what they execute, and a file can end the process that does so,
take all of its memory, or never come back. A reader is a process that has imported what reading takes, and forks itself
for each file; it stays a while for the next one, as importing PyTorch takes longer than reading most files.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from latlab.agents.protocol.load_request import InputRequest
from latlab.harness.distributed.parent_death import end_with_parent
from latlab.harness.errors import BadInputError
from latlab.harness.models.kernels import kernels_of
from latlab.harness.models.read import format_of
from latlab.predictors.graph import Work

__all__ = ["READING_S", "kernels_apart"]

READER = ("-m", "latlab.harness.models.kernels_apart")
"""Arguments of Python for a reader."""
READING_S = 180.0
"""Longest time in seconds that a file is read."""
MEMORY_BYTES = 16 << 30
"""Most memory that reading it may take."""
HEAVY = {"onnx": "latlab.harness.models.onnx_kernels", "torchscript": "latlab.harness.models.torch_kernels"}
"""Modules that a reader imports before it forks itself, by the format of the file."""
IDLE_S = 60.0
"""Time in seconds after which a reader ends that nobody asks."""
_idle: list[_Reader] = []


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
    asked = {
        "format": format_of(path),
        "path": str(path.absolute()),
        "inputs": [asdict(one) for one in inputs],
        "only_shape": only_shape,
    }
    try:
        answer, reader = _asked(json.dumps(asked), most_s)
    except TimeoutError as error:
        raise BadInputError(f"the operators of {path} are unknown: reading it took over {most_s:.0f} s") from error
    try:
        found = json.loads(answer)
    except ValueError as error:
        raise BadInputError(
            f"the operators of {path} are unknown: reading it ended the process ({answer})",
            "A runtime cannot load such a file: check it, or export it again.",
        ) from error
    _idle.append(reader)
    if "error" in found:
        raise BadInputError(found["error"], found["hint"])
    return Work.from_json(found["kernels"]) if found["kernels"] else Work((), ())


def _asked(request: str, most_s: float) -> tuple[str, _Reader]:
    """Return a reader's answer, and the reader."""
    while _idle:
        reader = _idle.pop()  # each thread has its own: taking one out of the list is atomic
        if answer := reader.ask(request, most_s):
            return answer, reader
        reader.end()  # it had waited long enough
    reader = _Reader()
    return reader.ask(request, most_s) or reader.end(), reader


class _Reader:
    """A process that reads files. It ends with its standard input, and so with this process, too."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *READER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def ask(self, request: str, most_s: float) -> str:
        """Return the answer: JSON, or how the process of this file ended; nothing if the reader itself has ended.

        Raises:
            TimeoutError: it did not come in time.
        """
        asking, answering = self._process.stdin, self._process.stdout
        assert asking is not None
        assert answering is not None
        with suppress(BrokenPipeError):
            asking.write(request.encode() + b"\n")
            asking.flush()
        if not select.select([answering], [], [], most_s)[0]:
            self.end(0.0)
            raise TimeoutError
        return answering.readline().decode().strip()

    def end(self, within_s: float = 5.0) -> str:
        """End it, by force if it has not ended `within_s`, and return how it ended."""
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)  # the process that reads the file, too
        with suppress(BrokenPipeError):
            self._process.communicate()
        return _how_it_ended(self._process.returncode)


def _how_it_ended(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


# In the reader


def _serve() -> None:
    """Answer requests until there are no more."""
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what runtimes print must not mix with the answers
    while select.select([0], [], [], IDLE_S)[0] and (line := sys.stdin.buffer.readline()):
        asked = json.loads(line)
        if asked["format"] in HEAVY:
            importlib.import_module(HEAVY[asked["format"]])
        with os.fdopen(os.dup(answers), "wb") as file:
            file.write(_forked(asked) + b"\n")


def _forked(asked: dict[str, Any]) -> bytes:
    """Return the answer of a process that reads one file, or how it ended."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            end_with_parent()
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
            with os.fdopen(sending, "wb") as file:
                file.write(json.dumps(_read(asked)).encode())
            code = 0
        finally:
            os._exit(code)  # whatever was raised: nothing of the reader is to be finished here
    os.close(sending)
    events = select.poll()
    events.register(receiving, select.POLLIN)
    events.register(0, 0)  # tells that nobody waits any more
    answer = b""
    with os.fdopen(receiving, "rb", buffering=0) as file:
        while True:
            ready = dict(events.poll())
            if 0 in ready:
                os.kill(child, signal.SIGKILL)
                break
            part = file.read(1 << 16)
            if not part:
                break
            answer += part
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return answer if code == 0 else _how_it_ended(code).encode()


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
    _serve()
