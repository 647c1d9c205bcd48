"""The inference runtimes, all behind one small contract: `Session`.

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
from latlab.agents.protocol.load_request import InputRequest
from latlab.agents.runtimes.base import Delegation, DeviceClock, Session, TensorSpec

__all__ = [
    "NAMES",
    "Delegation",
    "DeviceClock",
    "Found",
    "InputRequest",
    "Session",
    "TensorSpec",
    "find",
    "load_runtime",
    "open",
]


class _Package(NamedTuple):
    module: str
    """The name to import."""
    distributions: tuple[str, ...]
    """The names on PyPI of the distributions that may have installed it."""


class _Runtime(NamedTuple):
    packages: tuple[_Package, ...]
    """The packages that provide it, in order of preference."""
    install: str
    """How a person installs it, for messages."""


_RUNTIMES = {
    "onnxruntime": _Runtime(
        (_Package("onnxruntime", ("onnxruntime", "onnxruntime-gpu")),),
        "pip install onnxruntime",
    ),
    "tflite": _Runtime(
        (_Package("ai_edge_litert", ("ai-edge-litert",)), _Package("tflite_runtime", ("tflite-runtime",))),
        "pip install ai-edge-litert (or, on older devices, pip install tflite-runtime 'numpy<2')",
    ),
    "torchscript": _Runtime(
        (_Package("torch", ("torch",)),),
        "pip install torch --index-url https://download.pytorch.org/whl/cpu",
    ),
    "openvino": _Runtime(
        (_Package("openvino", ("openvino",)),),
        "pip install openvino",
    ),
    "executorch": _Runtime(
        (_Package("executorch", ("executorch",)),),
        "pip install executorch 'torch==2.13.*'",
    ),
}
"""The runtimes that a worker can run; each has a module of its name in this package."""
NAMES = tuple(_RUNTIMES)
"""The names of the runtimes that latlab knows."""


class Found(NamedTuple):
    """An installed runtime. It may still fail to run a network: finding a package is not a health check."""

    module: str
    distribution: str
    version: str


@cache
def find(name: str) -> Found:
    """Return the installed package that provides runtime `name`, without importing it.

    If several packages provide it, the first one on `sys.path` is returned: latlab's own environment on the device
    comes before the system's packages.

    Raises:
        AgentError: "runtime_missing", naming what to install; "bad_request" for a name not in `NAMES`.
    """
    if name not in _RUNTIMES:
        raise AgentError("bad_request", f"unknown runtime {name!r}; latlab knows {', '.join(NAMES)}")
    path = [os.path.realpath(entry) for entry in sys.path]
    found: list[tuple[int, Found]] = []
    for package in _RUNTIMES[name].packages:
        spec = util.find_spec(package.module)
        if spec is None:
            continue
        folders = spec.submodule_search_locations or [""]  # executorch has no __init__.py that `origin` could name
        home = os.path.realpath(os.path.dirname(next(iter(folders), "")))
        place = path.index(home) if home in path else len(path)
        found.append((place, _found(package, home)))
    if not found:
        raise AgentError("runtime_missing", f"{name} is not installed for {sys.executable}: {_RUNTIMES[name].install}")
    return min(found, key=lambda one: one[0])[1]


def _found(package: _Package, home: str) -> Found:
    """Return the package with the version of the distribution that installed it.

    If two distributions in different places provide the module, the one counts from whose place `import` takes it.
    """
    installed = [(name, one) for name in package.distributions for one in metadata.distributions(name=name)]
    if not installed:
        return Found(package.module, package.module, "unknown")  # e.g. built from source
    here = [one for one in installed if os.path.realpath(str(one[1].locate_file(""))) == home]
    name, distribution = (here or installed)[0]
    return Found(package.module, name, distribution.version)


def load_runtime(name: str) -> None:
    """Import the runtime's package ahead of time, so that the import does not count as the network's loading time.

    Raises:
        AgentError: "runtime_missing" if the package is not installed or its import fails; "bad_request" for a name
            not in `NAMES`.
    """
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
    inputs: Sequence[InputRequest] = (),
) -> Session:
    """Load a network.

    Args:
        name: one of `NAMES`.
        path: the network's file, in the runtime's own format.
        threads: number of threads within one operator. Operators run one after another.
        accelerator: `cpu`; for onnxruntime and torchscript also `cuda`, the first GPU that CUDA shows; for openvino
            also `gpu`, the first of Intel's.
        inputs: what the file leaves open of its inputs: dimensions, and ranges of integers. It must agree with what
            the file fixes. A TorchScript file stores neither shapes nor types: without `inputs` such a session has no
            `inputs` and no `random_inputs`, and `set_inputs` accepts arrays of any shape.

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
        os.fspath(path), find(name).version, threads, accelerator, inputs
    )
    return session
