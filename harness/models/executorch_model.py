"""Reads ExecuTorch programs, where that runtime is installed."""

from __future__ import annotations

from pathlib import Path

from latlab.agents import runtimes
from latlab.agents.protocol.errors import AgentError
from latlab.harness.errors import BadInputError
from latlab.harness.exporters.executorch import operators
from latlab.harness.models.description import ModelDescription, TensorInfo

__all__ = ["describe_executorch"]


def describe_executorch(path: Path) -> ModelDescription:
    """Return what an ExecuTorch program says of its inputs and operators. Its weights stay unknown.

    Raises:
        BadInputError: if the runtime is not installed here, or does not load the program.
    """
    try:
        with runtimes.open("executorch", path) as session:
            inputs, version, delegation = session.inputs, session.version, session.delegation
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
        operators=operators(path.read_bytes()),
        parameters=None,
        macs=None,
        precision="fp32",
        precision_detail="fp32",
        notes=["weights of an ExecuTorch program cannot be read", _share(delegation)],
    )


def _share(delegation: runtimes.Delegation | None) -> str:
    if delegation is None:
        return "operators of backends other than XNNPACK cannot be read"
    done, of, parts = delegation.delegated, delegation.operators, delegation.partitions
    return f"{done} of {of} operators run on XNNPACK, in {parts} {'part' if parts == 1 else 'parts'}"
