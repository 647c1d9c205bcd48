"""ExecuTorch on the CPU: XNNPACK for what the exporter gave to it, ExecuTorch's own kernels for the rest."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Callable

from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.load_request import InputRequest
from latlab.agents.runtimes.base import Delegation, Session, check_accelerator, specify_inputs
from latlab.agents.runtimes.pte_file import Plan, read_plan

if TYPE_CHECKING:
    from latlab.agents.runtimes.base import Array

__all__ = ["ExecuTorchSession", "load", "open_session"]

_METHOD = "forward"
_DTYPES = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    7: "float64",
    11: "bool",
    15: "bfloat16",
}
"""The numpy names of ExecuTorch's scalar types."""
_CODE = re.compile(r"error:? 0x:?([0-9a-f]+)")
_KINDS = {
    0x10: "unsupported_op",  # NotSupported
    0x11: "unsupported_op",  # NotImplemented
    0x14: "unsupported_op",  # OperatorMissing
    0x20: "unsupported_op",  # NotFound: a backend
    0x21: "out_of_memory",  # MemoryAllocationFailed
    0x22: "corrupt_artifact",  # AccessFailed
    0x23: "corrupt_artifact",  # InvalidProgram
    0x24: "corrupt_artifact",  # InvalidExternalData
    0x25: "out_of_memory",  # OutOfResources
    0x30: "corrupt_artifact",  # DelegateInvalidCompatibility
    0x31: "out_of_memory",  # DelegateMemoryAllocationFailed
}
"""Failure kinds by ExecuTorch's error codes (runtime/core/error.h)."""
_SESSIONS: weakref.WeakSet[ExecuTorchSession] = weakref.WeakSet()
"""The open sessions: they share one pool of threads."""


def load() -> None:
    """Import ExecuTorch's bindings, and before them torch, whose libraries they need.

    The public module `executorch.runtime` also imports the exporter, which takes seconds, and packages that a device
    needs for nothing else.
    """
    import torch  # noqa: F401

    _bindings()


def _bindings() -> Any:
    from executorch.extension.pybindings import _C

    return _C


def open_session(
    path: str, version: str, threads: int, accelerator: str, inputs: Sequence[InputRequest]
) -> ExecuTorchSession:
    """Load an ExecuTorch file; the arguments are those of `runtimes.open`, and `version` is the package's."""
    check_accelerator("executorch", accelerator, ("cpu",))
    return ExecuTorchSession(path, version, threads, inputs)


class ExecuTorchSession(Session):
    """A session of a program's method `forward`.

    One timed inference is one `call`. It copies the inputs to where the program wants them: that place may be used for
    other values later in the inference, so a program cannot run twice on inputs that were set once.

    The pool of threads is process-wide, and XNNPACK keeps the pool that it was loaded with. So if another number of
    threads is wanted, all sessions free their methods, and load them again when they are about to run.
    """

    runtime = "executorch"

    def __init__(self, path: str, version: str, threads: int, inputs: Sequence[InputRequest]) -> None:
        self.version = version
        self._threads = threads
        runtime = _bindings()
        try:
            with open(path, "rb") as file:
                plan = read_plan(file.read(), _METHOD)
            self._program: Any = runtime._load_program(
                path, program_verification=runtime.Verification.InternalConsistency
            )
        except ValueError as error:
            raise AgentError("corrupt_artifact", f"the file cannot be read: {error}") from error
        except Exception as error:
            raise self.explain(error) from error
        _check_supported(plan, runtime)
        self.delegation = _delegation(plan)
        self.provider = ", ".join(dict.fromkeys(plan.delegates)) or "ExecuTorch kernels"
        self._method: Any = None
        self._arguments: list[Any] = []
        self._outputs: list[Any] = []
        _SESSIONS.add(self)
        self.inputs = specify_inputs(_declared(self._ready().method_meta()), inputs)

    def set_inputs(self, arrays: Sequence[Array]) -> None:
        import numpy as np
        import torch

        self._check(arrays)
        self._arguments = [torch.from_numpy(np.asarray(array, order="C")) for array in arrays]

    def invoke(self) -> None:
        try:
            self._outputs = self._ready().call(self._arguments)
        except Exception as error:
            raise self.explain(error) from error

    def outputs(self) -> list[Array]:
        return [output.numpy().copy() for output in self._outputs]

    @contextmanager
    def running(self) -> Iterator[Callable[[], object]]:
        yield partial(self._ready().call, self._arguments, clone_outputs=False)

    def explain(self, error: BaseException) -> AgentError:
        message = " ".join(str(error).split())
        code = _CODE.search(message)
        kind = "out_of_memory" if isinstance(error, MemoryError) or "bad_alloc" in message else "crash"
        return AgentError(_KINDS.get(int(code[1], 16), kind) if code else kind, message[:500])

    def close(self) -> None:
        _SESSIONS.discard(self)
        self._method = self._program = None
        self._arguments = []
        self._outputs = []

    def _ready(self) -> Any:
        """Return the method, loaded with a pool of this session's number of threads."""
        runtime = _bindings()
        if runtime._threadpool_get_thread_count() != self._threads:
            for session in _SESSIONS:
                session._method = None
            runtime._unsafe_reset_threadpool(self._threads)
        if self._method is None:
            try:
                self._method = self._program.load_method(_METHOD)
            except Exception as error:
                raise self.explain(error) from error
        return self._method


def _check_supported(plan: Plan, runtime: Any) -> None:
    """Raise `AgentError` if this build lacks an operator or a backend: ExecuTorch's own exception does not name it."""
    known = set(runtime._get_operator_names())
    missing = sorted(set(plan.calls) - known)
    missing += sorted(set(plan.delegates) - set(runtime._get_registered_backend_names()))
    if missing:
        raise AgentError("unsupported_op", f"this build of executorch lacks {', '.join(missing)}"[:500])


def _delegation(plan: Plan) -> Delegation | None:
    if plan.delegated is None:
        return None
    return Delegation(len(plan.calls) + len(plan.delegated), len(plan.delegated), len(plan.delegates))


def _declared(meta: Any) -> list[tuple[str, Sequence[int | None], str | None]]:
    """Return the inputs: named by their places, since a file has no names, in the largest shapes that it is made for.

    Raises:
        AgentError: "bad_request" if an input is no tensor.
    """
    found: list[tuple[str, Sequence[int | None], str | None]] = []
    count = meta.num_inputs()
    for index in range(count):
        try:
            tensor = meta.input_tensor_meta(index)
        except RuntimeError as error:
            raise AgentError("bad_request", f"input {index} is no tensor, which latlab cannot make up") from error
        kind = tensor.dtype()
        name = "input" if count == 1 else f"input_{index}"
        found.append((name, [int(side) for side in tensor.sizes()], _DTYPES.get(kind, f"type {kind}")))
    return found
