"""Reads TFLite files: inputs, operators, weights and precision."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latlab.harness.errors import BadInputError
from latlab.harness.models.description import ModelDescription, PrecisionShares, TensorInfo

__all__ = ["TFLiteReader", "describe_tflite", "is_tflite"]

IDENTIFIER = b"TFL3"
"""What stands at bytes 4 to 8 of a TFLite file."""
WEIGHTED = {
    "CONV_2D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "CONV_3D": 1,
    "TRANSPOSE_CONV": 1,
    "FULLY_CONNECTED": 1,
    "BATCH_MATMUL": 1,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": 1,
    "SVDF": 1,
}
"""Operators that multiply and add, and which of their inputs is the weight."""
TABLES = {"GATHER": (1, 0), "EMBEDDING_LOOKUP": (0, 1)}
"""Operators that look values up: which input is the index, and which the table."""
SAME_VALUES = {"CAST", "RESHAPE", "EXPAND_DIMS", "SQUEEZE", "SLICE", "STRIDED_SLICE", "TRANSPOSE", "CONCATENATION"}


def is_tflite(head: bytes) -> bool:
    """Return whether a file that begins with `head` is a TFLite file."""
    return head[4:8] == IDENTIFIER


def describe_tflite(path: Path) -> ModelDescription:
    """Return what a TFLite file says.

    Raises:
        BadInputError: if the file is damaged.
    """
    try:
        return TFLiteReader(path).describe()
    except OSError as error:
        raise BadInputError(f"cannot read the model {path}: {error.strerror}") from error
    except BadInputError:
        raise
    except Exception as error:  # the generated reader follows any offset; a damaged file ends in many kinds of errors
        raise BadInputError(f"{path} is not a TFLite file, or is damaged") from error


class TFLiteReader:
    """A TFLite file, read whole. Reading a damaged one may raise anything."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._schema = schema
        self._path = path
        content = path.read_bytes()
        self._size = len(content)
        self._model: Any = schema.ModelT.InitFromPackedBuf(content, 0)
        self._graph: Any = self._model.subgraphs[0]
        kinds = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
        self._codes = [self._operator_name(code, kinds) for code in self._model.operatorCodes]
        types = {value: name for name, value in vars(schema.TensorType).items() if not name.startswith("_")}
        self._types = {value: name.lower() for value, name in types.items()}

    @staticmethod
    def _operator_name(code: Any, kinds: dict[int, str]) -> str:
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        if code.customCode:
            return f"custom {_text(code.customCode)}"
        return kinds.get(number, f"operator {number}")

    def describe(self) -> ModelDescription:
        """Return what the file says."""
        version = f"schema {self._model.version}"
        description = _text(self._model.description)
        operators = Counter(kind for graph in self._model.subgraphs for kind, _ in self._operators(graph))
        precision, detail = self._precision()
        custom = [name for name in operators if name.startswith(("custom ", "FLEX"))]
        macs = self._macs()
        notes = [f"{', '.join(custom)}: the runtime must have been built with it"] if custom else []
        return ModelDescription(
            path=self._path,
            format="tflite",
            version=f"{version}, {description}" if description else version,
            size_bytes=self._size,
            inputs=tuple(self._tensor(int(number), True) for number in self._graph.inputs),
            outputs=tuple(self._tensor(int(number), False) for number in self._graph.outputs),
            operators=dict(sorted(operators.items())),
            parameters=self._parameters(),
            macs=macs,
            precision=precision,
            precision_detail=detail,
            notes=notes,
        )

    def main_operators(self) -> Iterator[tuple[str, Any]]:
        """Yield the operators of the main graph: the name of each, and the operator itself."""
        return self._operators(self._graph)

    def _operators(self, graph: Any) -> Iterator[tuple[str, Any]]:
        for operator in graph.operators or ():
            yield self._codes[operator.opcodeIndex], operator

    def _tensor(self, number: int, is_input: bool) -> TensorInfo:
        tensor = self._graph.tensors[number]
        signature = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
        sides = tuple(int(side) if side > 0 else None for side in (signature if signature is not None else ()))
        return TensorInfo(
            _text(tensor.name),
            sides,
            self.dtype(number),
            high=self._highest(number) if is_input else None,
        )

    def dtype(self, number: int) -> str:
        """Return the numpy name of a tensor's type."""
        return str(self._types.get(self._graph.tensors[number].type, "unknown"))

    def shape(self, number: int) -> tuple[int, ...]:
        """Return the shape of a tensor; open sides are 1."""
        shape = self._graph.tensors[number].shape
        return () if shape is None else tuple(int(side) for side in shape)

    def is_constant(self, number: int) -> bool:
        """Return whether the file holds the tensor's values."""
        return self._model.buffers[self._graph.tensors[number].buffer].data is not None

    def _parameters(self) -> int:
        return sum(
            math.prod(() if tensor.shape is None else (int(side) for side in tensor.shape))
            for graph in self._model.subgraphs
            for tensor in graph.tensors or ()
            if self._model.buffers[tensor.buffer].data is not None
        )

    def _macs(self) -> int | None:
        if any(side is None for number in self._graph.inputs for side in self._tensor(int(number), False).sides or ()):
            open_batch = all(
                None not in (self._tensor(int(number), False).sides or ())[1:] for number in self._graph.inputs
            )
            if not open_batch:  # the file's own shapes are those of batch 1
                return None
        return sum(self.macs_of(kind, operator) for kind, operator in self._operators(self._graph))

    def macs_of(self, kind: str, operator: Any) -> int:
        """Return the multiply-accumulates of an operator; 0 where it has none."""
        if kind not in WEIGHTED:
            return 0
        weight, result = self.shape(operator.inputs[WEIGHTED[kind]]), self.shape(operator.outputs[0])
        if kind == "DEPTHWISE_CONV_2D":  # weight 1 x height x width x channels
            return math.prod(result) * math.prod(weight[1:3])
        if kind == "TRANSPOSE_CONV":  # its data is the third input
            return math.prod(self.shape(operator.inputs[2])) * math.prod(weight[:3])
        if kind == "BATCH_MATMUL":
            adjoint = bool(getattr(operator.builtinOptions, "adjX", False))
            return math.prod(result) * self.shape(operator.inputs[0])[-2 if adjoint else -1]
        if kind == "CONV_3D":  # weight depth x height x width x in x out
            return math.prod(result) * math.prod(weight[:4])
        return math.prod(result) * math.prod(weight[1:])

    def _precision(self) -> tuple[str, str]:
        shares = PrecisionShares()
        producers = {
            int(output): (kind, operator)
            for kind, operator in self._operators(self._graph)
            for output in operator.outputs
        }
        for kind, operator in self._operators(self._graph):
            if kind in WEIGHTED:
                shares.add(
                    *self._precision_of(operator, WEIGHTED[kind], producers), max(1, self.macs_of(kind, operator))
                )
        if not shares.amounts:
            kinds = Counter(self.dtype(int(o)) for _, op in self._operators(self._graph) for o in op.outputs)
            usual = max(("int8", "float16", "float32"), key=lambda kind: kinds[kind] + (kind == "float32"))
            return shares.conclusion({"int8": "int8", "float16": "fp16"}.get(usual, "fp32"))
        return shares.conclusion()

    def _precision_of(self, operator: Any, weight_at: int, producers: dict[int, Any]) -> tuple[str, str]:
        data, weight = int(operator.inputs[0]), int(operator.inputs[weight_at])
        computed, kept = self.dtype(data), self.dtype(weight)
        if computed in ("int8", "uint8", "int16"):
            bits = {"int16": "int16 activations, int8 weights", "uint8": "uint8"}.get(computed, "int8")
            return "int8", bits if kept != "int4" else "int8, 4-bit weights"
        if computed == "float16":
            return "fp16", "fp16"
        source = producers.get(weight)
        if source is not None and source[0] == "DEQUANTIZE":
            stored = self.dtype(int(source[1].inputs[0]))
            # The usual float16 quantisation: a processor without fp16 arithmetic computes in fp32 all the same.
            return ("fp16", "fp16 weights") if stored == "float16" else ("fp32", f"fp32 with {stored} weights")
        if kept in ("int8", "int4", "uint8"):
            return "int8", f"{'int8' if kept != 'int4' else '4-bit'} dynamic"
        if computed == "bfloat16":
            return "bf16", "bf16"
        return "fp32", "fp32"

    def _highest(self, number: int) -> int | None:
        """Return the greatest value of an integer input that indexes a table; None if it indexes none."""
        if not self.dtype(number).startswith(("int32", "int64")):
            return None
        seen, waiting, limits = {number}, [number], []
        while waiting:
            value = waiting.pop()
            for kind, operator in self._operators(self._graph):
                inputs = [int(one) for one in operator.inputs]
                if value not in inputs:
                    continue
                if kind in TABLES and inputs[TABLES[kind][0]] == value:
                    axis = max(0, int(getattr(operator.builtinOptions, "axis", 0) or 0)) if kind == "GATHER" else 0
                    limits.append(self.shape(inputs[TABLES[kind][1]])[axis])
                elif kind in SAME_VALUES and (inputs[0] == value or kind == "CONCATENATION"):
                    fresh = [int(one) for one in operator.outputs if int(one) not in seen]
                    seen.update(fresh)
                    waiting.extend(fresh)
        return min(limits) - 1 if limits else None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
