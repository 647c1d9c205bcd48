"""Inference runtimes behind one small contract, `Session`.

>>> from latlab.agents import runtimes
>>> with runtimes.open("onnxruntime", "net.onnx") as session:
...     session.set_inputs(session.random_inputs(seed=0))
...     session.invoke()
...     logits = session.outputs()[0]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module, metadata, util
from typing import NamedTuple

from latlab.agents.protocol.errors import AgentError
from latlab.agents.runtimes.base import Delegation, DeviceClock, Session, TensorSpec

__all__ = ["NAMES", "Delegation", "DeviceClock", "Found", "Session", "TensorSpec", "find", "load_runtime", "open"]


class _Package(NamedTuple):
    module: str
    """What to import."""
    distributions: tuple[str, ...]
    """Who may have installed it."""


# In order of preference. The packages' own names: what `import` takes, and what `pip install` takes.
_PACKAGES: dict[str, tuple[_Package, ...]] = {
    "onnxruntime": (_Package("onnxruntime", ("onnxruntime", "onnxruntime-gpu")),),
    "tflite": (
        _Package("ai_edge_litert", ("ai-edge-litert",)),
        _Package("tflite_runtime", ("tflite-runtime",)),
    ),
    "torchscript": (_Package("torch", ("torch",)),),
}
NAMES = tuple(_PACKAGES)
"""The runtimes that latlab knows."""

_INSTALL = {
    "onnxruntime": "pip install onnxruntime",
    "tflite": "pip install ai-edge-litert (or, on older devices, pip install tflite-runtime 'numpy<2')",
    "torchscript": "pip install torch --index-url https://download.pytorch.org/whl/cpu",
}


class Found(NamedTuple):
    """An installed runtime. It may still fail to run a network: an import is not a health check."""

    module: str
    distribution: str
    version: str


@cache
def find(name: str) -> Found:
    """The installed package that provides runtime `name`, found without importing it.

    Of several, the one that comes first on the path: what was set up for latlab goes before the system's own.

    Raises:
        AgentError: "runtime_missing", naming what to install; "bad_request" for a name not in `NAMES`.
    """
    if name not in _PACKAGES:
        raise AgentError("bad_request", f"unknown runtime {name!r}; latlab knows {', '.join(NAMES)}")
    path = [os.path.realpath(entry) for entry in sys.path]
    found: list[tuple[int, Found]] = []
    for package in _PACKAGES[name]:
        spec = util.find_spec(package.module)
        if spec is None:
            continue
        home = os.path.realpath(os.path.dirname(os.path.dirname(spec.origin or "")))
        place = path.index(home) if home in path else len(path)
        found.append((place, _found(package, home)))
    if not found:
        raise AgentError("runtime_missing", f"{name} is not installed for {sys.executable}: {_INSTALL[name]}")
    return min(found, key=lambda one: one[0])[1]


def _found(package: _Package, home: str) -> Found:
    """Who installed it: of two distributions in different places, the one where `import` finds the module."""
    installed = [(name, one) for name in package.distributions for one in metadata.distributions(name=name)]
    if not installed:
        return Found(package.module, package.module, "unknown")  # e.g. built from source
    here = [one for one in installed if os.path.realpath(str(one[1].locate_file(""))) == home]
    name, distribution = (here or installed)[0]
    return Found(package.module, name, distribution.version)


def load_runtime(name: str) -> None:
    """Imports the runtime's package, so that this is not taken for the network's loading time."""
    found = find(name)
    try:
        import_module(f".{name}", __name__).load()
    except (ImportError, AttributeError, OSError) as error:  # what broken or mismatched wheels raise
        raise AgentError(
            "runtime_missing",
            f"{found.distribution} {found.version} is installed but does not import: {error}",
        ) from error


def open(
    name: str,
    path: str | os.PathLike[str],
    threads: int = 1,
    accelerator: str = "cpu",
    input_shape: Sequence[int] | None = None,
) -> Session:
    """Loads a network.

    Args:
        name: one of `NAMES`.
        path: the network, in the runtime's own format.
        threads: threads within one operator; operators run one after another.
        accelerator: `cpu`; for onnxruntime and torchscript also `cuda`, the first GPU that CUDA shows.
        input_shape: with the batch, in the layout of the file. Needed where the file leaves it open, and must
            agree where it does not. TorchScript files keep no shape at all: without `input_shape` such a
            session has no `inputs` and no `random_inputs`, but takes whatever `set_inputs` gives.

    Raises:
        AgentError: kinds `bad_request`, `runtime_missing`, `unsupported_op`, `corrupt_artifact`,
            `out_of_memory`, `crash`.
    """
    if threads < 1:
        raise AgentError("bad_request", f"threads must be at least 1, not {threads}")
    if not os.path.isfile(path):
        raise AgentError("bad_request", f"there is no file {os.fspath(path)!r}")
    load_runtime(name)
    session: Session = import_module(f".{name}", __name__).open_session(
        os.fspath(path), find(name).version, threads, accelerator, input_shape
    )
    return session
