"""A factory: Python code of the user's that makes a module, which is exported here."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from threading import Timer, current_thread, main_thread
from typing import Any, NoReturn

from latlab.agents.protocol.load_request import InputRequest
from latlab.harness.errors import BadInputError
from latlab.harness.models.description import FLOATS, ModelDescription, PrecisionShares, TensorInfo, target_precision

__all__ = [
    "call_factory",
    "describe_factory",
    "first_of_module",
    "is_factory",
    "likely_shapes",
    "named_object",
    "running_user_code",
    "tables_of",
]

SLOW_S = 5.0
"""Seconds after which it is said that the user's code still runs."""
MOST_LAYERS = 40
"""Most parts of a module that are looked at to guess the shape of its input."""

_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_factory(model: str) -> bool:
    """Return whether a text has the form `package.module:factory`, and names no file."""
    return bool(_FACTORY.fullmatch(model)) and not Path(model).exists()


def call_factory(model: str) -> Any:
    """Return the module that the factory makes, or that the name stands for, in eval mode.

    This runs the user's code, as they asked.

    Raises:
        BadInputError: if that fails, or gives no `torch.nn.Module`.
    """
    from torch import nn

    with running_user_code(model, "instead of making a module"):
        try:
            module = named_object(model)
            if not isinstance(module, nn.Module):
                module = module()
            if isinstance(module, nn.Module):
                module.eval()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the user's code may raise anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".removesuffix(": ")
            raise BadInputError(f"{model} failed: {reason}") from error
    if not isinstance(module, nn.Module):
        raise BadInputError(f"{model} gave a {type(module).__name__}, not a torch.nn.Module")
    return module


def named_object(name: str) -> Any:
    """Return what `package.module:attribute` names; the current folder is searched, too. Importing runs its code."""
    package, _, attribute = name.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a console script's path lacks the current folder, where users keep code
    found: Any = importlib.import_module(package)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


@contextmanager
def running_user_code(model: str, when: str) -> Iterator[None]:
    """Run code of the user's within the `with` block: nothing that it does ends latlab without a word.

    What it prints goes to stderr, because it is no part of latlab's own output. After `SLOW_S` seconds it is said what
    latlab waits for.

    Args:
        model: the factory.
        when: what the code was asked for, in words.

    Raises:
        BadInputError: it wanted to end the program.
    """
    waiting = Timer(SLOW_S, _say_what_runs, [model])
    waiting.daemon = True
    waiting.start()
    try:
        with _stdout_to_stderr(), _exits_raise():
            yield
    except SystemExit as error:
        code = error.code or 0
        said = f"exit code {code}" if isinstance(code, int) else f"it said: {' '.join(str(code).split())[:300]}"
        raise BadInputError(f"{model} ended the program ({said}) {when}") from error
    except KeyboardInterrupt as error:
        if current_thread() is main_thread():  # which gets signals
            raise
        raise BadInputError(f"{model} raised a KeyboardInterrupt {when}") from error
    finally:
        waiting.cancel()


def _say_what_runs(model: str) -> None:
    print(f"latlab: {model} has been running for {SLOW_S:g} s; Ctrl-C ends it", file=sys.stderr, flush=True)


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Send to stderr what this process prints, and what its libraries and children write to the same descriptor."""
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(real, 1)
        os.close(real)


@contextmanager
def _exits_raise() -> Iterator[None]:
    """Have `os._exit` and `os.abort` raise `SystemExit` in this process: they would end latlab without a word."""
    here, real = os.getpid(), (os._exit, os.abort)

    def leave(code: int = 1) -> NoReturn:
        if os.getpid() != here:  # a process that the user's code has forked
            real[0](code)
        raise SystemExit(code)

    os._exit, os.abort = leave, leave  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit, os.abort = real


def describe_factory(model: str, module: Any) -> ModelDescription:
    """Return what can be said of a module: its inputs by the signature of `forward`, and its weights.

    Raises:
        BadInputError: if the module does not know its own weights yet (a lazy one), or fails to tell them.
    """
    try:
        with running_user_code(model, "when its weights were read"):
            return _describe(model, module)
    except BadInputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise BadInputError(
            f"{model} gave a module whose weights cannot be read: {type(error).__name__}: {reason}",
            "A lazy module has to be run once before the factory returns it.",
        ) from error


def _describe(model: str, module: Any) -> ModelDescription:
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    variadic = [one for one in parameters if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    named = [one for one in parameters if one not in variadic]
    tensors = [*module.parameters(), *module.buffers()]
    floating = [tensor for tensor in tensors if tensor.is_floating_point()]
    shares = PrecisionShares()
    for tensor in floating:
        kind = FLOATS.get(str(tensor.dtype).removeprefix("torch."), "fp32")
        shares.add(target_precision(kind), kind, tensor.numel())
    precision, detail = shares.conclusion()
    kinds: dict[str, int] = {}
    for part in module.modules():
        if not list(part.children()):
            kinds[type(part).__name__] = kinds.get(type(part).__name__, 0) + 1
    return ModelDescription(
        path=Path(model),
        format="module",
        version=type(module).__name__,
        size_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        inputs=tuple(TensorInfo(one.name, None, None, optional=one.default is not one.empty) for one in named)
        or (TensorInfo("input", None, None),),
        outputs=(),
        operators=dict(sorted(kinds.items())),
        parameters=sum(tensor.numel() for tensor in module.parameters()),
        macs=None,
        precision=precision,
        precision_detail=detail,
        notes=["a factory: the module keeps no shapes of its inputs"],
    )


def likely_shapes(module: Any) -> list[str]:
    """Return shapes that fit the first layers of a module, as `--input` takes them."""
    from torch import nn

    shapes: list[str] = []
    for part in list(module.modules())[:MOST_LAYERS]:
        if isinstance(part, nn.Conv2d):
            shapes += [f"1x{part.in_channels}x{side}x{side}" for side in (224, 32)]
        elif isinstance(part, nn.Conv1d):
            shapes.append(f"1x{part.in_channels}x1000")
        elif isinstance(part, nn.Embedding):
            shapes.append("1x128:int64")
        elif isinstance(part, nn.MultiheadAttention):
            shapes.append(f"1x16x{part.embed_dim}")
        elif isinstance(part, nn.Linear):
            shapes += [f"1x{part.in_features}", f"1x16x{part.in_features}"]
        elif isinstance(part, nn.RNNBase):
            shapes.append(f"1x16x{part.input_size}")
    return list(dict.fromkeys(shapes))


def first_of_module(module: Any, attempts: Sequence[Sequence[InputRequest]]) -> int:
    """Return the number of the first inputs with which a module runs; -1 if there are none."""
    from latlab.harness.exporters.parity import random_tensors

    for number, inputs in enumerate(attempts):
        with suppress(Exception, SystemExit):  # whatever the user's code raises for a shape that it does not take
            _run(module, random_tensors(inputs, 0))
            return number
    return -1


def tables_of(module: Any, inputs: Sequence[InputRequest]) -> dict[str, int]:
    """Return the greatest value of each integer input that indexes a table of embeddings, by name."""
    from torch import nn

    from latlab.harness.exporters.parity import random_tensors

    tables = [part for part in module.modules() if isinstance(part, (nn.Embedding, nn.EmbeddingBag))]
    if not tables:
        return {}
    seen: list[tuple[int, Any]] = []
    hooks = [
        part.register_forward_pre_hook(lambda part, values: seen.append((part.num_embeddings, values[0])))
        for part in tables
    ]
    try:
        tensors = random_tensors(inputs, 0)
        with suppress(Exception, SystemExit):  # the export reports it
            _run(module, tensors)
    finally:
        for hook in hooks:
            hook.remove()
    found: dict[str, int] = {}
    for rows, values in seen:
        for one, tensor in zip(inputs, tensors, strict=True):
            if one.name is not None and values.data_ptr() == tensor.data_ptr():  # the input itself, or a view of it
                found[one.name] = min(found.get(one.name, rows - 1), rows - 1)
    return found


def _run(module: Any, tensors: Sequence[Any]) -> None:
    import torch

    with torch.inference_mode():
        module(*tensors)
