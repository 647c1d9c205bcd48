from __future__ import annotations

import pytest

from latlab.harness.errors import BadInputError
from latlab.harness.targets import Target


def test_round_trip() -> None:
    target = Target("pi-4", "tflite", threads=4, batch_size=32)
    assert str(target) == "pi-4/tflite/cpu/fp32/t4/b32"
    assert Target.parse(str(target)) == target
    assert target.format == "tflite"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "local",
        "local/onnxruntime",
        "local/magic/cpu/fp32/t1/b1",
        "/onnxruntime/cpu/fp32/t1/b1",
        "local/onnxruntime/cpu/fp32/1/1",
        "local/onnxruntime/cpu/fp32/t0/b1",
        "local/onnxruntime/cpu/fp32/t1/b1/x",
        "local/onnxruntime/nnapi/fp32/t1/b1",
        "local/tflite/cuda/fp32/t1/b1",
        "local/benchmark_model/cuda/fp32/t1/b1",
    ],
)
def test_malformed(text: str) -> None:
    with pytest.raises(BadInputError):
        Target.parse(text)


def test_a_precision_that_a_runtime_lacks() -> None:
    Target.parse("toy/tflite/cpu/int8/t1/b1").check_exported()
    with pytest.raises(BadInputError, match="tflite has no bf16: choose fp32, fp16 or int8") as failure:
        Target.parse("toy/tflite/cpu/bf16/t1/b1").check_exported()
    assert failure.value.hint == "bf16 can be had with the runtime torchscript."


def test_an_unknown_precision() -> None:
    with pytest.raises(BadInputError, match=r"unknown precision 'int4'"):
        Target.parse("toy/onnxruntime/cpu/int4/t1/b1")
