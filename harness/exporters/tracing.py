"""Quicker tracing of modules and a quicker ONNX exporter. Both skip slow steps of torch that leave nothing in the file.

The files are identical to the byte (tests/harness/exporters/test_tracing.py compares them). All shortcuts replace
private parts of torch, so a shortcut is taken only if the installed torch has the part that it replaces.
"""

from __future__ import annotations

import _thread
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["onnx_shortcuts", "trace"]

_HOOKS = ("_backward_hooks", "_backward_pre_hooks", "_forward_hooks", "_forward_pre_hooks", "_compiled_call_impl")
_PATCHING = threading.Lock()


def trace(module: nn.Module, inputs: Sequence[Tensor], state: Sequence[Tensor] = (), **options: Any) -> tuple[Any, Any]:
    """Return the TorchScript graph of `module` without gradients, and the module's outputs for `inputs`.

    The tracer records the Python stack at every operation: each frame of the stack costs a network of NAS-Bench-201 0.8
    ms, of 39 ms. So the module runs in a new thread, whose stack is empty, and submodules are called in two frames
    where torch takes four.

    Args:
        module: the module to trace.
        inputs: example inputs.
        state: tensors of the module that become inputs of the graph, after `inputs`. Others become constants.
        options: further arguments of `torch._C._create_graph_by_tracing`.
    """
    import torch

    create: Any = torch._C._create_graph_by_tracing
    flatten: Any = torch._C._jit_flatten
    results: list[Any] = []

    def forward(*tensors: Tensor) -> Any:
        results.append(module(*tensors[: len(inputs)]))
        outputs = flatten(results)[0]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def run() -> Any:
        with torch.no_grad(), _short_calls(module):
            return create(forward, (*inputs, *state), lambda _: "", force_outplace=False, **options)[0]

    return _in_a_thread(run), results[0]


def _in_a_thread(function: Callable[[], Any]) -> Any:
    """Return or raise what `function` does, called in a new thread with an empty stack."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    _thread.start_new_thread(run, ())
    return future.result()


@contextmanager
def _short_calls(module: nn.Module) -> Iterator[None]:
    """Call traced modules directly meanwhile: the same as `nn.Module.__call__` does if no hook is registered."""
    import torch

    kind: Any = torch.nn.Module
    internals: Any = torch.nn.modules.module
    hooked = internals._has_any_global_hook() or any(
        isinstance(part, torch.jit.ScriptModule) or any(getattr(part, name, True) for name in _HOOKS)
        for part in module.modules()
    )
    if hooked:
        yield
        return
    tracing, scopes = torch._C._get_tracing_state, torch.jit._trace._trace_module_map or {}

    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        state: Any = tracing()
        if not state:  # another thread, which does not trace
            return original(self, *args, **kwargs)
        scope = scopes.get(self)
        if not scope:
            return self.forward(*args, **kwargs)
        state.push_scope(scope)
        try:
            return self.forward(*args, **kwargs)
        finally:
            state.pop_scope()

    with _PATCHING:
        original = kind.__call__
        kind.__call__ = call
        try:
            yield
        finally:
            kind.__call__ = original


@contextmanager
def onnx_shortcuts() -> Iterator[None]:
    """Make `torch.onnx.export(..., dynamo=False)` of a module take two thirds of its time, within the `with` block.

    Nor does it print the graph of a module that it cannot export.
    """
    import torch

    try:
        from torch.onnx._internal.torchscript_exporter import symbolic_helper, utils
    except ImportError:
        yield
        return
    passes: Any = torch._C
    replacements: list[tuple[Any, str, Callable[[Any], Any]]] = [
        (utils, "_trace_and_get_graph_from_model", lambda _: _traced),
        (utils, "_split_tensor_list_constants", lambda original: partial(_split_tensor_lists, original)),
        # The lint passes search for faults of the exporter itself, after each of its steps.
        (passes, "_jit_pass_lint", lambda _: lambda *_: None),
        (passes, "_jit_pass_onnx_lint", lambda _: lambda *_: None),
        (passes, "_jit_onnx_log", lambda _: lambda *_: None),
        # The exporter asks for the signature of the same few functions again and again.
        (symbolic_helper, "inspect", lambda _: SimpleNamespace(signature=cache(inspect.signature))),
    ]
    kept: list[tuple[Any, str, Any]] = []
    try:
        for holder, name, replacement in replacements:
            if hasattr(holder, name):
                kept.append((holder, name, getattr(holder, name)))
                setattr(holder, name, replacement(kept[-1][2]))
        yield
    finally:
        for holder, name, original in kept:
            setattr(holder, name, original)


def _traced(model: nn.Module, args: tuple[Tensor, ...]) -> tuple[Any, Any]:
    """Return the graph whose inputs are `args` and the state of `model`, in that order, and the outputs."""
    import torch

    unique: Any = torch.jit._unique_state_dict  # type: ignore[attr-defined]
    return trace(model, args, tuple(unique(model, keep_vars=True).values()), strict=False)


def _split_tensor_lists(original: Callable[[Any, Any], None], graph: Any, block: Any) -> None:
    """Run torch's function only if some constant is a tensor list.

    torch's function checks the type of every constant slowly, and hardly any is a tensor list.
    """
    if any(_is_tensor_list(node.output().type()) for node in graph.findAllNodes("prim::Constant", True)):
        original(graph, block)


def _is_tensor_list(kind: Any) -> bool:
    return kind.kind() == "ListType" and kind.getElementType().kind() in ("TensorType", "OptionalType")
