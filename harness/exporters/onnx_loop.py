"""ONNX files of networks that generate a sequence: a `Loop` over the positions, whose body is one step.

Unrolled, a decoder of HAT has thousands of nodes. PyTorch's exporter, whose shape inference looks at all of them again
and again, takes minutes for these, and ONNX Runtime loads them in ten times the time. The latency is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from latlab.search_spaces.torch_modules import Autoregressive

__all__ = ["looped"]

Convert = Callable[..., Any]
"""Writes a module as an ONNX model, for examples, names of inputs, names of outputs and dynamic axes."""


class _Encode(nn.Module):
    """The part of a network that runs once."""

    def __init__(self, network: Autoregressive) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.network.encode(x)


class _Step(nn.Module):
    """A step, whose inputs are the position, `encoded` tensors that all steps read, and the state."""

    def __init__(self, network: Autoregressive, encoded: int) -> None:
        super().__init__()
        self.network, self.encoded = network, encoded

    def forward(self, position: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        return self.network.step(position, tensors[: self.encoded], tensors[self.encoded :])


def looped(network: Autoregressive, example: Tensor, convert: Convert) -> Any:
    """Return `network` as an ONNX model with the input `input` and the output `output`."""
    from onnx import TensorProto, compose, helper, numpy_helper

    with torch.no_grad():
        encoded, start = network.encode(example), network.start(example)
        state = network.step(network.positions[0], encoded, start)
    fixed = [f"encoded{place}" for place in range(len(encoded))]
    before, after = ([f"{name}{place}" for place in range(len(state))] for name in ("state", "next"))
    model = convert(_Encode(network), (example,), ["input"], fixed)
    step = convert(
        _Step(network, len(encoded)),
        (network.positions[0], *encoded, *state),
        ["position", *fixed, *before],
        after,
        _growing(before, start, state) | _growing(after, start, state),
    ).graph
    # A name may not occur both outside and inside the loop.
    compose.add_prefix_graph(step, "step/", rename_inputs=False, rename_outputs=False, inplace=True)
    inputs = {value.name: value for value in step.input}
    outputs = {value.name: value for value in step.output}
    body = helper.make_graph(
        [
            helper.make_node("Gather", ["positions", "number"], ["position"], axis=0),
            helper.make_node("Identity", ["going"], ["goes_on"]),
            *step.node,
        ],
        "step",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            *(inputs[name] for name in before),
        ],
        [helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []), *(outputs[name] for name in after)],
        [*step.initializer, numpy_helper.from_array(network.positions.numpy(), "positions")],
    )
    begin = [f"start{place}" for place in range(len(state))]
    end = ["output", *(f"end{place}" for place in range(1, len(state)))]
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(torch.tensor(len(network.positions)).numpy(), "steps"))
    for one, name in zip(start, begin, strict=True):
        if one.any():
            graph.initializer.append(numpy_helper.from_array(one.numpy(), name))
        else:
            zero = numpy_helper.from_array(one.new_zeros(1).numpy(), "zero")
            graph.initializer.append(numpy_helper.from_array(torch.tensor(one.shape).numpy(), f"{name}/shape"))
            graph.node.append(helper.make_node("ConstantOfShape", [f"{name}/shape"], [name], value=zero))
    graph.node.append(helper.make_node("Loop", ["steps", "", *begin], end, name="loop", body=body))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("output", TensorProto.FLOAT, list(state[0].shape)))
    return model


def _growing(names: Sequence[str], start: Sequence[Tensor], state: Sequence[Tensor]) -> dict[str, dict[int, str]]:
    """Return the axes along which a step makes tensors longer, in the form of `torch.onnx.export`."""
    found = {}
    for name, one, other in zip(names, start, state, strict=True):
        axes = [axis for axis in range(one.dim()) if one.shape[axis] != other.shape[axis]]
        if axes:
            found[name] = {axis: f"{name}_{axis}" for axis in axes}
    return found
