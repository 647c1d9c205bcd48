"""A fitted predictor as an ONNX file: features of networks in, latencies with their intervals out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latlab.predictors.base import WIDEST, LatencyFormula

__all__ = ["onnx_formula"]

OPSET = 17


def onnx_formula(formula: LatencyFormula, card: Mapping[str, Any]) -> bytes:
    """Return an ONNX model that computes what `LatencyFormula.predict` does.

    Its input is `features`, float64 of shape (n, d): what `SearchSpace.features` gives for canonical genes. Its outputs
    are `latency_ms`, `std_ms`, `lower_ms` and `upper_ms`, float64 of shape (n,).

    Args:
        formula: the fitted predictor.
        card: what it says about itself, which goes into the model's metadata.
    """
    import onnx
    from onnx import TensorProto, helper

    def tensor(name: str, *shape: str | int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.DOUBLE, list(shape))

    outputs = ("latency_ms", "std_ms", "lower_ms", "upper_ms")
    nodes, constants = _nodes(formula)
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output], **more) for kind, inputs, output, more in nodes],
        "latency",
        [tensor("features", "n", len(formula.table))],
        [tensor(name, "n") for name in outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
        doc_string="The column 1 of features is 1; all are unscaled. Times are in milliseconds.",
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    model.producer_name, model.producer_version = "latlab", str(card["latlab"])
    helper.set_model_props(model, {"card": json.dumps(card)})
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


_Node = tuple[str, Sequence[str], str, dict[str, Any]]


def _nodes(formula: LatencyFormula) -> tuple[list[_Node], dict[str, np.ndarray]]:
    """Return the operators of the formula, and its constants."""
    constants = {
        "table": formula.table,
        "covariance": formula.covariance,
        "least": np.array(formula.least),
        "factor": np.array(formula.factor),
        "noise": np.array(formula.noise),
        "absolute_ms": np.array(formula.absolute),
        "widest": np.array(WIDEST),
        "calibration": np.array(formula.calibration),
        "half_width": np.array(formula.half_width),
        "zero": np.array(0.0),
        "one": np.array(1.0),
        "columns": np.array([1]),
    }
    nodes: list[_Node] = [
        ("MatMul", ("features", "table"), "linear", {}),
        ("Max", ("linear", "least"), "expected", {}),
        ("MatMul", ("features", "covariance"), "spread", {}),
        ("Mul", ("spread", "features"), "terms", {}),
        ("ReduceSum", ("terms", "columns"), "quadratic", {"keepdims": 0}),
        ("Max", ("quadratic", "zero"), "absolute", {}),
        ("Mul", ("expected", "expected"), "squared", {}),
        ("Div", ("absolute", "squared"), "relative", {}),
        ("Add", ("relative", "one"), "grown", {}),
        ("Log", ("grown",), "of_table", {}),
        ("Mul", ("expected", "factor"), "latency_ms", {}),
        ("Div", ("absolute_ms", "latency_ms"), "of_short", {}),
        ("Mul", ("of_short", "of_short"), "of_short_squared", {}),
        ("Add", ("of_table", "noise"), "of_long", {}),
        ("Add", ("of_long", "of_short_squared"), "raw_variance", {}),
        ("Mul", ("raw_variance", "calibration"), "calibrated", {}),
        ("Min", ("calibrated", "widest"), "variance", {}),
        ("Sqrt", ("variance",), "deviation", {}),
        ("Mul", ("deviation", "half_width"), "width", {}),
        ("Exp", ("variance",), "moment", {}),
        ("Sub", ("moment", "one"), "excess", {}),
        ("Sqrt", ("excess",), "relative_std", {}),
        ("Mul", ("latency_ms", "relative_std"), "std_ms", {}),
        ("Exp", ("width",), "wider", {}),
        ("Div", ("latency_ms", "wider"), "lower_ms", {}),
        ("Mul", ("latency_ms", "wider"), "upper_ms", {}),
    ]
    return nodes, constants
