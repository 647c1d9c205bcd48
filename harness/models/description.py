"""What a model file says about itself, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["FLOATS", "ModelDescription", "PrecisionShares", "Sidecar", "TensorInfo", "shape_text", "target_precision"]

Side: TypeAlias = int | str | None
"""One dimension: its length, the name of an open one, or None for an open one without a name."""
FLOATS = {"float32": "fp32", "float64": "fp64", "float16": "fp16", "bfloat16": "bf16"}
"""The short names of the number formats that numpy and ONNX name so."""
MINORITY = 0.05
"""Least share of the arithmetic that is mentioned beside the main precision."""


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a model, as its file declares it."""

    name: str
    sides: tuple[Side, ...] | None
    """Its shape; None if the file does not keep it."""
    dtype: str | None
    """The numpy name of its type; None if the file does not keep it."""
    optional: bool = False
    """Whether the model runs without it."""
    high: int | None = None
    """Greatest value of an integer input, where the file shows it: it indexes a table of `high` + 1 rows."""
    kind: str = "tensor"
    """`tensor`, or what else it is in the format's own words, e.g. `seq(tensor(float))`."""

    @property
    def shape_text(self) -> str:
        """The shape as text, e.g. `?x3x224x224`."""
        return shape_text(self.sides)


@dataclass(frozen=True)
class Sidecar:
    """A file beside the model's own that holds some of its weights."""

    path: Path
    size_bytes: int


@dataclass(frozen=True)
class ModelDescription:
    """What a model file says about itself."""

    path: Path
    format: str
    """The format by latlab's name, e.g. `onnx`."""
    version: str
    """Version of the format, e.g. `opset 17, IR 8`, and the program that wrote the file, where it is known."""
    size_bytes: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    operators: Mapping[str, int]
    """Number of each operator, by the format's own names."""
    parameters: int | None
    """Number of weights; None if the file does not show them."""
    macs: int | None
    """Multiplications with addition of one inference; None if a shape they depend on is open or unknown."""
    precision: str
    """The precision of most of the arithmetic, as a target names it: `fp32`, `fp16`, `bf16` or `int8`."""
    precision_detail: str
    """The same in words, e.g. `int8 QDQ`, or `fp16 92 %, fp32 8 %`."""
    sidecars: Sequence[Sidecar] = ()
    notes: Sequence[str] = ()
    """Further facts in words: what could not be found out, and what stands in the way of measuring."""

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON types."""
        return {
            **asdict(self),
            "path": str(self.path),
            "sidecars": [{"path": str(one.path), "size_bytes": one.size_bytes} for one in self.sidecars],
        }


def target_precision(kind: str) -> str:
    """Return how a target names a floating-point format: by its short name, but for fp64, which targets lack, fp32."""
    return "fp32" if kind == "fp64" else kind


@dataclass
class PrecisionShares:
    """Adds up which arithmetic is done in which precision."""

    amounts: dict[tuple[str, str], float] = field(default_factory=dict)
    """Multiplications (or weights, where those are unknown), by the precision as a target and as people name it."""

    def add(self, precision: str, detail: str, amount: float) -> None:
        """Add an amount of arithmetic."""
        key = (precision, detail)
        self.amounts[key] = self.amounts.get(key, 0.0) + amount

    def conclusion(self, usual: str = "fp32") -> tuple[str, str]:
        """Return the main precision as a target names it, and the shares in words.

        Args:
            usual: the precision of a model without arithmetic.
        """
        total = sum(self.amounts.values())
        if total <= 0:
            return usual, usual
        by_target: dict[str, float] = {}
        for (precision, _), amount in self.amounts.items():
            by_target[precision] = by_target.get(precision, 0.0) + amount
        main = max(by_target, key=lambda name: by_target[name])
        parts = sorted(self.amounts.items(), key=lambda item: -item[1])
        parts = [part for part in parts if part[1] >= MINORITY * total] or parts[:1]
        if len(parts) == 1:
            return main, parts[0][0][1]
        return main, "mixed: " + ", ".join(f"{detail} {amount / total:.0%}" for (_, detail), amount in parts)


def shape_text(sides: Sequence[Side] | None) -> str:
    """Return a shape as text: `1x3x224x224`, `?x3`, with names `[batch, seq]`, `scalar` for no sides."""
    if sides is None:
        return "unknown"
    if any(isinstance(side, str) for side in sides):
        return f"[{', '.join('?' if side is None else str(side) for side in sides)}]"
    return "x".join("?" if side is None else str(side) for side in sides) if sides else "scalar"
