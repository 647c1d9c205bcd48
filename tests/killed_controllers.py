"""Controllers that are killed while their worker is in native code, and how soon their device is free again.

The tests kill a few, benchmarks/kills.py kills in every way.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from waiting import wait_until

__all__ = ["BUSY_CPU_S", "SLOW_MODELS", "Controller", "is_free", "stuck_package"]

ENDLESS = 1 << 40
"""Turns of a loop that nobody waits for."""
SIDE = 4096
"""Of matrices whose product takes seconds."""
BUSY_CPU_S = {"onnxruntime": 2.5, "openvino": 4.0, "tflite": 2.5, "torchscript": 7.0, "executorch": 10.0}
"""Seconds of processor time after which a worker has imported its runtime, and is in its first inference."""


def slow_onnx(folder: Path) -> Path:
    """Write a network whose one inference takes hours: matrix products in a loop."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def tensor(name: str, kind: int, shape: list[int]) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    square = [256, 256]
    body = helper.make_graph(
        [helper.make_node("MatMul", ["before", "w"], ["after"]), helper.make_node("Identity", ["go"], ["go_on"])],
        "body",
        [tensor("turn", TensorProto.INT64, []), tensor("go", TensorProto.BOOL, []), tensor("before", 1, square)],
        [tensor("go_on", TensorProto.BOOL, []), tensor("after", 1, square)],
    )
    constants = [
        numpy_helper.from_array(np.eye(256, dtype=np.float32), "w"),
        numpy_helper.from_array(np.array(ENDLESS), "turns"),
        numpy_helper.from_array(np.array(True), "yes"),
    ]
    loop = helper.make_node("Loop", ["turns", "yes", "x"], ["y"], body=body)
    graph = helper.make_graph([loop], "slow", [tensor("x", 1, square)], [tensor("y", 1, square)], constants)
    path = folder / "slow.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def slow_torchscript(folder: Path) -> Path:
    """Write a network as `slow_onnx` does."""
    import torch

    class Loop(torch.nn.Module):
        def __init__(self, turns: int) -> None:
            super().__init__()
            self.turns = turns

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(self.turns):
                x = torch.mm(x, x) * 0.0 + 1.0
            return x

    path = folder / "slow.pt"
    torch.jit.save(torch.jit.script(Loop(ENDLESS).eval()), path)
    return path


def slow_tflite(folder: Path) -> Path:
    """Write a network as `slow_onnx` does."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    kinds, square = schema.BuiltinOperator, (256, 256)
    contents = [np.zeros((), np.int32), np.ones((), np.int32), np.int32(2**31 - 1), np.eye(256, dtype=np.float32)]
    model = schema.ModelT()
    model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [], [schema.BufferT()], []
    for content in contents:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.asarray(content).tobytes(), np.uint8)
        model.buffers.append(buffer)
    zero, one, limit, weights = range(1, 5)

    def operator(kind: int, inputs: list[int], outputs: list[int], name: str) -> Any:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = kind
        found = schema.OperatorT()
        found.opcodeIndex = len(model.operatorCodes)
        model.operatorCodes.append(code)
        found.inputs, found.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        found.builtinOptions = getattr(schema, f"{name}T")()
        found.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        return found

    def graph(tensors: list[tuple[Any, int, int]], inputs: list[int], outputs: list[int], operators: list[Any]) -> None:
        made = schema.SubGraphT()
        made.tensors, made.operators = [], operators
        for place, (shape, kind, content) in enumerate(tensors):
            tensor = schema.TensorT()
            tensor.name, tensor.shape, tensor.buffer = f"t{place}", np.array(shape, np.int32), content
            tensor.type = kind
            made.tensors.append(tensor)
        made.inputs, made.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        model.subgraphs.append(made)

    real, whole, truth = schema.TensorType.FLOAT32, schema.TensorType.INT32, schema.TensorType.BOOL
    number, matrix = ((), whole, 0), (square, real, 0)
    loop = operator(kinds.WHILE, [1, 0], [2, 3], "WhileOptions")
    loop.builtinOptions.condSubgraphIndex, loop.builtinOptions.bodySubgraphIndex = 1, 2
    graph([matrix, ((), whole, zero), number, matrix], [0], [3], [loop])
    less = operator(kinds.LESS, [0, 2], [3], "LessOptions")
    graph([number, matrix, ((), whole, limit), ((), truth, 0)], [0, 1], [3], [less])
    add = operator(kinds.ADD, [0, 2], [3], "AddOptions")
    product = operator(kinds.FULLY_CONNECTED, [1, 4, -1], [5], "FullyConnectedOptions")
    graph([number, matrix, ((), whole, one), number, (square, real, weights), matrix], [0, 1], [3, 5], [add, product])
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = folder / "slow.tflite"
    path.write_bytes(bytes(builder.Output()))
    return path


def slow_executorch(folder: Path) -> Path:
    """Write a network whose one inference takes minutes: matrix products, one after another."""
    import torch

    from latlab.harness.exporters import get_exporter

    class Products(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(100):
                x = torch.mm(x, x)
            return x

    path = folder / "slow.pte"
    get_exporter("pte").export(Products().eval(), torch.zeros(SIDE, SIDE), path)
    return path


SLOW_MODELS = {
    "onnxruntime": slow_onnx,
    "openvino": slow_onnx,
    "tflite": slow_tflite,
    "torchscript": slow_torchscript,
    "executorch": slow_executorch,
}
"""By runtime."""


def stuck_package(folder: Path, python: str, seen_as: str = "", package: str = "onnxruntime") -> tuple[str, Path]:
    """Make an interpreter for whom the import of a runtime never ends, in native code that holds Python's lock.

    Args:
        folder: an empty folder that the worker may write to.
        python: the genuine interpreter.
        seen_as: the folder's path on the device, where that is another.
        package: the runtime's package.

    Returns:
        The interpreter's path on the device, and a file that appears here when the import has begun.
    """
    there = seen_as or str(folder)
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text(
        f"import ctypes\nopen({f'{there}/importing'!r}, 'w').close()\nctypes.PyDLL(None).sleep(3600)\n"
    )
    interpreter = folder / "python"
    interpreter.write_text(f'#!/bin/sh\nPYTHONPATH={there} exec {python} "$@"\n')
    interpreter.chmod(0o755)
    return f"{there}/python", folder / "importing"


def is_free(lock: Path) -> bool:
    """Return whether no worker has the lock of a work folder."""
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


@dataclass
class Killed:
    """What a signal did."""

    free_s: float
    """Seconds from the signal until the device was free."""
    exit_code: int
    said: str
    """What the controller wrote to stderr."""


class Controller:
    """A `latlab` command on the one device of an inventory.

    Args:
        words: the command line, without `latlab`.
        folder: a folder with nothing that concerns others: it becomes the current one.
        entry: the device's entry in the inventory; its name is `device`.
        lock: the lock in its work folder, as this machine reaches it.
        environment: further variables.
    """

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        entry: Mapping[str, Any],
        lock: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._lock, self._said = lock, folder / "said"
        (folder / "inventory.yaml").write_text(json.dumps({"devices": {"device": dict(entry)}}, default=str))
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "latlab.harness", *words],
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self._said.read_text(errors="replace")

    def wait_for_file(self, path: Path) -> None:
        """Return when a file is there."""
        self._wait(path.exists, f"there is no {path.name}")

    def wait_for_work(self, cpu_s: float) -> None:
        """Return when the worker, a process of this machine, has used so many seconds of a processor."""
        self._wait(lambda: self._cpu_s() > cpu_s, f"it does not work for {cpu_s:g} s")

    def kill(self, number: signal.Signals, patience_s: float = 60, free: Callable[[], bool] | None = None) -> Killed:
        """Send a signal, and wait until the device is free, and for the controller's end.

        Args:
            number: the signal.
            patience_s: seconds after which both must have happened.
            free: whether the device is free; default: whether its lock is.
        """
        free = free or (lambda: is_free(self._lock))
        assert not free()
        began = time.monotonic()
        self._process.send_signal(number)
        wait_until(free, f"the device is not free after {number.name}", patience_s)
        free_s = time.monotonic() - began
        return Killed(free_s, self._process.wait(patience_s), self.said)

    def close(self) -> None:
        """End what a failure has left."""
        self._process.kill()
        self._process.wait()

    def _wait(self, true: Any, what: str) -> None:
        wait_until(lambda: true() or self._process.poll() is not None, f"{what}: {self.said}", 120)
        assert self._process.poll() is None, self.said

    def _cpu_s(self) -> float:
        if is_free(self._lock):
            return 0.0  # what is in the file is of an earlier worker
        try:
            pid = json.loads(self._lock.read_text())["pid"]
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError, KeyError):
            return 0.0
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
