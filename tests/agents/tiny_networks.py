"""A tiny network (convolution, ReLU, tanh) in eager PyTorch and, written by hand, in each runtime's format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CHANNELS, SIZE, FILTERS = 3, 8, 4


@dataclass
class Network:
    """A file, the shape it takes, and the same computation in eager PyTorch."""

    path: Path
    input_shape: tuple[int, ...]
    eager: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def weights() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(7)
    kernel = rng.standard_normal((FILTERS, CHANNELS, 3, 3), dtype=np.float32) / 4
    return kernel, rng.standard_normal(FILTERS, dtype=np.float32)


def eager_module() -> Any:
    import torch
    from torch import nn

    torch.set_num_threads(1)
    module = nn.Sequential(nn.Conv2d(CHANNELS, FILTERS, 3, padding=1), nn.ReLU(), nn.Tanh()).eval()
    kernel, bias = weights()
    module[0].weight.data, module[0].bias.data = torch.from_numpy(kernel), torch.from_numpy(bias)
    return module


def eager(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import torch

    with torch.inference_mode():
        result: np.ndarray[Any, Any] = eager_module()(torch.from_numpy(array)).numpy()
    return result


def torchscript_network(folder: Path) -> Network:
    import torch

    module = torch.jit.trace(eager_module(), torch.zeros(1, CHANNELS, SIZE, SIZE), check_trace=False)
    path = folder / "net.torchscript"
    torch.jit.save(torch.jit.freeze(module), path)
    return Network(path, (1, CHANNELS, SIZE, SIZE), eager)


def pte_file(module: Any, *shapes: tuple[int, ...]) -> bytes:
    """Return an ExecuTorch file of `module` for float32 inputs of these shapes. The first call takes ten seconds."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.export(module.eval(), tuple(torch.zeros(shape) for shape in shapes))
    return bytes(to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch().buffer)


def onnx_network(folder: Path, batch: int | str = 1, activation: str = "Tanh") -> Network:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kernel, bias = weights()
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "bias"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node(activation, ["b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, CHANNELS, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, FILTERS, SIZE, SIZE])],
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(bias, "bias")],
    )
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return Network(path, (1, CHANNELS, SIZE, SIZE), eager)


def onnx_graph(folder: Path, nodes: list[Any], shape: list[int], constants: list[Any]) -> Path:
    """Write an ONNX file with these nodes between the input `x`, of `shape`, and the output `y`."""
    import onnx
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "graph", [x], [y], constants)
    path = folder / "graph.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def heavy_onnx(folder: Path, shape: list[int], layers: int) -> Path:
    """Write `count` convolutions in a row: they keep a GPU busy for longer than launching them takes."""
    from onnx import helper, numpy_helper

    names = ["x", *(f"h{index}" for index in range(1, layers)), "y"]
    nodes = [
        helper.make_node("Conv", [names[index], "kernel"], [names[index + 1]], pads=[1, 1, 1, 1])
        for index in range(layers)
    ]
    kernel = np.zeros((shape[1], shape[1], 3, 3), np.float32)
    return onnx_graph(folder, nodes, shape, [numpy_helper.from_array(kernel, "kernel")])


def heavy_torchscript(folder: Path, shape: list[int], layers: int) -> Path:
    import torch
    from torch import nn

    module = nn.Sequential(*(nn.Conv2d(shape[1], shape[1], 3, padding=1, bias=False) for _ in range(layers))).eval()
    path = folder / "heavy.torchscript"
    torch.jit.save(torch.jit.freeze(torch.jit.trace(module, torch.zeros(1, *shape[1:]), check_trace=False)), path)
    return path


def tflite_network(folder: Path, activation: str = "TANH", custom: bool = False) -> Network:
    """Write the network through the schema's object API, in NHWC as TFLite wants it."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    kernel, bias = weights()
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT()]
    for array in (np.ascontiguousarray(kernel.transpose(0, 2, 3, 1)), bias):
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        model.buffers.append(buffer)
    graph.tensors = []
    image, features = (1, SIZE, SIZE, CHANNELS), (1, SIZE, SIZE, FILTERS)
    kinds = (("x", image, 0), ("kernel", (FILTERS, 3, 3, CHANNELS), 1), ("bias", (FILTERS,), 2))
    for name, shape, content in (*kinds, ("a", features, 0), ("y", features, 0)):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, np.array(shape, np.int32), content
        graph.tensors.append(tensor)
    conv, after = schema.OperatorCodeT(), schema.OperatorCodeT()
    conv.builtinCode = conv.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
    if custom:
        after.builtinCode = after.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        after.customCode = "NoSuchOperator"
    else:
        after.builtinCode = after.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, activation)
    model.operatorCodes = [conv, after]
    options = schema.Conv2DOptionsT()
    options.strideW = options.strideH = options.dilationWFactor = options.dilationHFactor = 1
    options.padding = schema.Padding.SAME
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    graph.operators = []
    for index, (inputs, output) in enumerate((([0, 1, 2], 3), ([3], 4))):
        operator = schema.OperatorT()
        operator.opcodeIndex = index
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        graph.operators.append(operator)
    graph.operators[0].builtinOptions = options
    graph.operators[0].builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
    graph.inputs, graph.outputs = np.array([0], np.int32), np.array([4], np.int32)
    builder = flatbuffers.Builder(1 << 12)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = folder / "net.tflite"
    path.write_bytes(bytes(builder.Output()))

    def in_nhwc(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return eager(np.ascontiguousarray(array.transpose(0, 3, 1, 2))).transpose(0, 2, 3, 1)

    return Network(path, image, in_nhwc)
