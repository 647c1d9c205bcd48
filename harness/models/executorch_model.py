"""Reads ExecuTorch programs, where that runtime is installed."""

from __future__ import annotations

from pathlib import Path

from latlab.agents import runtimes
from latlab.agents.protocol.errors import AgentError
from latlab.harness.errors import BadInputError
from latlab.harness.models.description import ModelDescription, TensorInfo

__all__ = ["describe_executorch"]


def describe_executorch(path: Path) -> ModelDescription:
    """Return what an ExecuTorch program says of its inputs. Its operators and weights stay unknown.

    Raises:
        BadInputError: if the runtime is not installed here, or does not load the program.
    """
    try:
        with runtimes.open("executorch", path) as session:
            inputs, version = session.inputs, session.version
    except AgentError as error:
        hint = "Install it: pip install 'latlab[executorch]'." if error.kind == "runtime_missing" else None
        raise BadInputError(f"cannot read the model {path}: {error.message}", hint) from error
    return ModelDescription(
        path=path,
        format="pte",
        version=f"ExecuTorch, read by {version}",
        size_bytes=path.stat().st_size,
        inputs=tuple(TensorInfo(one.name, one.shape, one.dtype) for one in inputs),
        outputs=(),
        operators={},
        parameters=None,
        macs=None,
        precision="fp32",
        precision_detail="fp32",
        notes=["operators and weights of an ExecuTorch program cannot be read"],
    )
