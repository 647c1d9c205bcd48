"""The kernels of an ONNX file: the nodes of the graph as ONNX Runtime optimises it, with their shapes."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlab.harness.errors import BadInputError
from latlab.harness.models.onnx_graph import OnnxGraph, drop_weights
from latlab.harness.models.onnx_shapes import complete_shapes
from latlab.predictors.graph import Kernel, convolution_kind

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["onnx_kernels"]

_NAMES = {
    "pool": "MaxPool AveragePool LpPool QLinearAveragePool",
    "reduce": "GlobalAveragePool GlobalMaxPool ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL2 ArgMax "
    "ArgMin TopK CumSum QLinearGlobalAveragePool ReduceSumSquare ReduceL1 ReduceLogSumExp",
    "elementwise": "Add Sub Mul Div Max Min Pow Where Neg Abs Sqrt Reciprocal Equal Less Greater LessOrEqual "
    "GreaterOrEqual And Or Not Xor Mod Floor Ceil Round Sign Sum Mean QLinearAdd QLinearMul BiasAdd IsNaN",
    "clip": "Relu Clip LeakyRelu PRelu HardSigmoid HardSwish ThresholdedRelu QLinearLeakyRelu",
    "exponential": "Sigmoid Tanh Exp Log Erf Gelu FastGelu BiasGelu QuickGelu Softplus Softsign Mish Elu Selu Celu Sin "
    "Cos Tan Atan Acos Asin QLinearSigmoid Swish",
    "softmax": "Softmax LogSoftmax Hardmax QLinearSoftmax BiasSoftmax",
    "norm": "LayerNormalization SkipLayerNormalization SimplifiedLayerNormalization SkipSimplifiedLayerNormalization "
    "InstanceNormalization GroupNormalization GroupNorm BatchNormalization LpNormalization LRN RMSNormalization "
    "EmbedLayerNormalization MeanVarianceNormalization",
    "move": "Transpose Concat Slice Split Pad Tile Expand Gather GatherElements GatherND Scatter ScatterElements "
    "ScatterND DepthToSpace SpaceToDepth ReverseSequence Compress Trilu Range OneHot NonZero QLinearConcat Col2Im "
    "EyeLike",
    "resize": "Resize Upsample GridSample RoiAlign AffineGrid",
    "cast": "Cast QuantizeLinear DequantizeLinear DynamicQuantizeLinear",
    "view": "Reshape Identity Squeeze Unsqueeze Flatten Shape Size Constant ConstantOfShape Dropout",
}
KIND_OF = {operator: kind for kind, operators in _NAMES.items() for operator in operators.split()}
CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "QLinearConv": 3, "ConvInteger": 1, "NhwcFusedConv": 1, "NhwcConv": 1}
"""Convolutions, and which of their inputs is the weight."""
PRODUCTS = {
    "MatMul": 1, "FusedMatMul": 1, "Gemm": 1, "FusedGemm": 1, "QLinearMatMul": 3, "QGemm": 3, "MatMulInteger": 1,
    "MatMulIntegerToFloat": 1, "DynamicQuantizeMatMul": 1,
}  # fmt: skip
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1, "DynamicQuantizeLSTM": 4}
INT8 = ("int8", "uint8")


def onnx_kernels(
    path: Path, shapes: Mapping[str, tuple[int, ...]], only_shape: tuple[int, ...] | None = None
) -> list[Kernel]:
    """Return the kernels that ONNX Runtime executes on a CPU, in the order of the graph.

    Fusions are ONNX Runtime's own (its extended optimisations: the later change of layout keeps them). Shapes are those
    that it infers, those that follow from them behind fused operators, and by their names those of the graph as
    written. A loop's body counts once, and each branch.

    Args:
        path: an ONNX file.
        shapes: shapes of inputs, by name; those that are left out are as the file declares them.
        only_shape: instead, the shape of the only input.

    Raises:
        BadInputError: the file cannot be read, or ONNX Runtime does not take it.
    """
    import onnx

    try:
        model = onnx.load(path)
        constants = {tensor.name for tensor in model.graph.initializer}
        free = [value.name for value in model.graph.input if value.name not in constants]
        if only_shape is not None and len(free) == 1:
            shapes = {free[0]: only_shape}
        optimised = _optimised(model, shapes)
        drop_weights(model)
        written = OnnxGraph(model, shapes)
        drop_weights(optimised)
        graph = OnnxGraph(optimised, {})
        complete_shapes(optimised, graph)
        return [kernel for node in graph.nodes if (kernel := _Node(node, graph, written).kernel()) is not None]
    except BadInputError:
        raise
    except Exception as error:  # onnx, protobuf and ONNX Runtime have no common error
        reason = " ".join(str(error).split())[:200]
        raise BadInputError(f"ONNX Runtime does not take {path}, so its kernels are unknown: {reason}") from error


def _optimised(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """Return the graph that ONNX Runtime makes of a model with these shapes of inputs."""
    import onnx
    import onnxruntime

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        if value.name in shapes and value.type.HasField("tensor_type"):
            kind = value.type.tensor_type.elem_type
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, kind, shapes[value.name]))
    with tempfile.TemporaryDirectory(prefix="latlab-kernels-") as folder:
        file = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(file)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        onnxruntime.InferenceSession(fixed.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(file)


class _Node:
    """One node, with the shapes of its values."""

    def __init__(self, node: NodeProto, graph: OnnxGraph, written: OnnxGraph) -> None:
        self.node, self._graph, self._written = node, graph, written
        self.inputs = [name for name in node.input if name]
        self.weights = [name for name in self.inputs if name in graph.weights]
        self.data = [name for name in self.inputs if name not in graph.weights]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a value, () where it is not known."""
        return self._graph.shape(name) or self._written.shape(name) or ()

    def _elements(self, names: list[str]) -> int:
        return sum(math.prod(self.shape(name)) for name in names)

    def _attribute(self, name: str, default: int) -> int:
        return next((int(one.i) for one in self.node.attribute if one.name == name), default)

    def kernel(self) -> Kernel | None:
        """Return the node as a kernel; None if it is executed nowhere (a constant)."""
        kind, outputs = self.node.op_type, [name for name in self.node.output if name]
        if kind == "Constant" or not outputs:
            return None
        first = self._graph.dtype(self.inputs[0]) if self.inputs else None
        eight = kind in ("QGemm", "ConvInteger") or kind.startswith(("DynamicQuantize", "QLinear", "MatMulInteger"))
        common: dict[str, Any] = {
            "operator": kind,
            "params": self._elements(self.weights),
            "in_elements": self._elements(self.data),
            "out_elements": self._elements(outputs),
            "width": 1 if eight or first in INT8 else 2 if first in ("float16", "bfloat16") else 4,
        }
        suffix = " int8" if eight else ""
        out = self.shape(outputs[0])
        if kind in CONVOLUTIONS:
            return self._convolution(self.shape(self.node.input[CONVOLUTIONS[kind]]), out, suffix, common)
        if kind == "ConvTranspose":
            weight, data = self.shape(self.node.input[1]), self.shape(self.node.input[0])
            macs = math.prod(data) * math.prod(weight[1:])
            common |= {"in_channels": weight[0], "out_channels": weight[1], "kernel": math.prod(weight[2:])}
            return Kernel("deconv", macs=macs, **common)
        if kind in PRODUCTS:
            return self._product(PRODUCTS[kind], out, suffix, common)
        if kind in GATES:
            data, weight = self.shape(self.node.input[0]), self.shape(self.node.input[1])
            recurrent = self.shape(self.node.input[2])
            macs = math.prod(data[:2]) * (math.prod(weight) + math.prod(recurrent))
            steps = (data[0] if data else 1) * (weight[0] if weight else 1)
            common |= {"in_channels": weight[-1] if weight else 1, "out_channels": self._attribute("hidden_size", 1)}
            return Kernel("rnn" + suffix, macs=macs, steps=steps, **common)
        if kind in ("Attention", "MultiHeadAttention"):
            return self._attention(common)
        found = KIND_OF.get(kind, "other")
        if found == "pool":
            window = next((math.prod(one.ints) for one in self.node.attribute if one.name == "kernel_shape"), 1)
            return Kernel("pool", macs=common["out_elements"] * window, kernel=window, **common)
        if found == "elementwise" and common["out_elements"] <= 1:
            found = "view"  # arithmetic on shapes
        if found == "move" and kind in ("Gather", "GatherND") and self.weights:
            common["params"] = common["out_elements"]  # only the rows that are asked for are read
        return Kernel(found, **common)

    def _convolution(
        self, weight: tuple[int, ...], out: tuple[int, ...], suffix: str, common: dict[str, Any]
    ) -> Kernel:
        groups, window = self._attribute("group", 1), math.prod(weight[2:])
        into = weight[1] if len(weight) > 1 else 1
        kind = convolution_kind(into, groups, window)
        common |= {"in_channels": into, "out_channels": weight[0] // groups if weight else 1, "kernel": window}
        return Kernel(kind + suffix, macs=math.prod(out) * into * window if out else 0, **common)

    def _product(self, at: int, out: tuple[int, ...], suffix: str, common: dict[str, Any]) -> Kernel:
        name = self.node.input[at]
        first = self.shape(self.node.input[0])
        transposed = self.node.op_type in ("Gemm", "FusedGemm", "QGemm") and self._attribute("transA", 0)
        into = (first[0 if transposed else -1]) if first else 1
        kind = "linear" if name in self._graph.weights else "matmul"
        common |= {"in_channels": into, "out_channels": out[-1] if out else 1}
        return Kernel(kind + suffix, macs=math.prod(out) * into if out else 0, **common)

    def _attention(self, common: dict[str, Any]) -> Kernel:
        """Return ONNX Runtime's fused attention: the products of queries with keys and of scores with values."""
        data = self.shape(self.node.input[0])
        tokens, width = (data[-2], data[-1]) if len(data) > 1 else (1, 1)
        macs = 2 * tokens * tokens * width * math.prod(data[:-2])
        if self.node.op_type == "Attention":  # the weights of queries, keys and values are fused, too
            macs += math.prod(data) * 3 * width
        return Kernel("matmul", macs=macs, in_channels=width, out_channels=tokens, **common)
