"""Tests of how the inputs of a model are settled."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latlab.harness.errors import BadInputError
from latlab.harness.models.description import ModelDescription, TensorInfo
from latlab.harness.models.input_options import InputOptions, parse_input
from latlab.harness.models.inputs import SettledInputs, UnsettledInputsError, settle


def described(*inputs: TensorInfo) -> ModelDescription:
    return ModelDescription(Path("net.onnx"), "onnx", "", 0, inputs, (), {}, None, None, "fp32", "fp32")


def settled(*inputs: TensorInfo, batch_size: int | None = None, **options: Any) -> SettledInputs:
    return settle(described(*inputs), InputOptions(**options), batch_size)


IMAGE = TensorInfo("x", (None, 3, "h", "w"), "float32")
IDS = TensorInfo("ids", ("batch", "seq"), "int64", high=999)
MASK = TensorInfo("mask", ("batch", "seq"), "int64")
FIXED = (TensorInfo("a", (4, 3), "float32"), TensorInfo("b", (4, 5), "float32"))


def shapes(found: SettledInputs) -> list[tuple[int, ...] | None]:
    return [one.shape for one in found.inputs]


def test_what_the_file_says_is_enough() -> None:
    found = settled(*FIXED)
    assert shapes(found) == [(4, 3), (4, 5)]
    assert found.batch_size == 4  # two inputs fixed at batch 4 are at batch 4
    assert found.text == "a=4x3 b=4x5"


def test_an_open_first_side_is_the_batch() -> None:
    only = TensorInfo("x", (None, 43844, 1), "float32")
    assert shapes(settled(only)) == [(1, 43844, 1)]
    assert shapes(settled(only, batch_size=8)) == [(8, 43844, 1)]
    found = settled(only, inputs=["8x43844x1"])
    assert (shapes(found), found.batch_size) == ([(8, 43844, 1)], 8)


def test_sides_of_one_name_have_one_length() -> None:
    assert shapes(settled(IDS, MASK, dims=["seq=128"])) == [(1, 128), (1, 128)]
    assert shapes(settled(IDS, MASK, inputs=["ids=2x16"])) == [(2, 16), (2, 16)]
    assert shapes(settled(IDS, MASK, dims=["batch=3", "seq=5"])) == [(3, 5), (3, 5)]
    with pytest.raises(BadInputError, match=r"--input mask=1x9 makes 'seq' 9, but --input ids=1x8 makes it 8"):
        settled(IDS, MASK, inputs=["ids=1x8", "mask=1x9"])


def test_a_first_side_with_another_name_is_no_batch() -> None:
    with pytest.raises(UnsettledInputsError):
        settled(TensorInfo("x", ("frames", 80), "float32"))


def test_an_unnamed_side_is_named_by_its_place() -> None:
    state = TensorInfo("state", (2, None, 128), "float32")
    assert shapes(settled(state, dims=["state[1]=7"])) == [(2, 7, 128)]
    with pytest.raises(BadInputError, match="that side is 2"):
        settled(state, dims=["state[0]=7"])
    with pytest.raises(BadInputError, match="has no side 5"):
        settled(state, dims=["state[5]=7"])


def test_what_is_missing_is_listed_with_all_inputs() -> None:
    with pytest.raises(UnsettledInputsError) as caught:
        settled(IDS, MASK)
    assert "leaves open the shape of ids [batch, seq]" in caught.value.message
    assert "Its inputs: ids int64 [batch, seq]; mask int64 [batch, seq]" in caught.value.message
    assert [one.option(128) for one in caught.value.missing] == [["--dim", "seq=128"]]


@pytest.mark.parametrize(
    ("inputs", "options", "batch_size", "words"),
    [
        (FIXED, {}, 8, "it is fixed at batch 4: --batch-size 8 cannot be had"),
        ((IMAGE,), {"inputs": ["2x3x8x8"]}, 4, "--batch-size 4 contradicts the batch of 2"),
        ((IMAGE,), {"inputs": ["1x4x8x8"]}, None, r"'x' takes \[\?, 3, h, w\], not 1x4x8x8"),
        ((IMAGE,), {"inputs": ["1x3x8"]}, None, "not 1x3x8"),
        ((IMAGE,), {"inputs": ["y=1x3x8x8"]}, None, "has no input 'y'"),
        ((IMAGE,), {"inputs": ["1x3x8x8:int64"]}, None, "is float32, not int64"),
        ((IMAGE,), {"inputs": ["x=1x3x8x8", "x=1x3x8x8"]}, None, "says the shape of 'x' twice"),
        ((IMAGE,), {"dims": ["d=3"]}, None, "no open side has that name; they are h, w"),
        ((IMAGE,), {"dims": ["h"]}, None, "not of the form NAME=LENGTH"),
        ((IMAGE,), {"dims": ["h=0"]}, None, "not of the form NAME=LENGTH"),
        ((IMAGE,), {"inputs": ["1x3x8x8"], "dims": ["h=9"]}, None, "--dim h=9 makes 'h' 9"),
        ((IDS,), {"inputs": ["1x4"], "ranges": ["ids=0:1000"]}, None, "indexes a table of 1000 rows"),
        ((IDS,), {"inputs": ["1x4"], "ranges": ["ids=9:3"]}, None, "not of the form NAME=LEAST:GREATEST or NAME=VALUE"),
        ((IMAGE,), {"inputs": ["1x3x8x8"], "ranges": ["x=0:3"]}, None, "is float32, not of integers"),
        ((IDS, MASK), {"inputs": ["1x4"]}, None, "does not say of which of its 2 inputs"),
        ((TensorInfo("s", None, None, kind="seq(tensor(float))"),), {}, None, r"of the kind seq\(tensor\(float\)\)"),
        ((TensorInfo("s", (1,), "string"),), {}, None, "is of type string, which latlab cannot make up"),
    ],
)
def test_contradictions(inputs: Any, options: Any, batch_size: int | None, words: str) -> None:
    with pytest.raises(BadInputError, match=words) as caught:
        settled(*inputs, batch_size=batch_size, **options)
    assert "net.onnx" in caught.value.message
    assert "Its inputs: " in caught.value.message


def test_integers_are_spread_over_their_table_or_that_is_said() -> None:
    found = settled(IDS, MASK, dims=["seq=4"])
    assert [(one.low, one.high) for one in found.inputs] == [(0, 999), (None, None)]
    assert found.remarks == (
        "values of ids: 0 to 999",
        "values of mask: 0 and 1 (--range mask=0:N sets others)",
    )
    found = settled(IDS, MASK, dims=["seq=4"], ranges=["ids=5:9", "mask=1:1"])
    assert [(one.low, one.high) for one in found.inputs] == [(5, 9), (1, 1)]


def test_a_file_that_keeps_nothing(tmp_path: Path) -> None:
    ids = TensorInfo("ids", None, None)
    mask = TensorInfo("mask", None, None, optional=True)
    found = settled(ids, mask, inputs=["1x8:int64"])  # the optional one is left out
    assert [(one.name, one.shape, one.dtype) for one in found.inputs] == [("ids", (1, 8), "int64")]
    found = settled(ids, mask, inputs=["ids=1x8:int64", "mask=1x8:bool"])
    assert [one.dtype for one in found.inputs] == ["int64", "bool"]
    with pytest.raises(UnsettledInputsError, match="does not say the shape of its input ids"):
        settled(ids, mask)


def test_values_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "values.npz"
    np.savez(path, ids=np.zeros((2, 7), np.int64), mask=np.ones((2, 7), np.int64))
    found = settled(IDS, MASK, data=path)
    assert (shapes(found), found.batch_size) == ([(2, 7), (2, 7)], 2)
    assert found.data is not None
    assert len(found.data.sha256) == 64
    np.savez(path, np.zeros((2, 7), np.int64), np.ones((2, 7), np.int64))
    assert shapes(settled(IDS, MASK, data=path)) == [(2, 7), (2, 7)]
    np.savez(path, ids=np.zeros((2, 7), np.int32), mask=np.ones((2, 7), np.int64))
    with pytest.raises(BadInputError, match="is int64, not int32"):
        settled(IDS, MASK, data=path)
    np.savez(path, ids=np.zeros((2, 7), np.int64))
    with pytest.raises(BadInputError, match="lacks the input 'mask'"):
        settled(IDS, MASK, data=path)
    np.savez(path, ids=np.array([{}], object), allow_pickle=True)
    with pytest.raises(BadInputError, match=r"not an \.npz file of plain arrays"):
        settled(IDS, MASK, data=path)
    path.write_bytes(b"junk")
    with pytest.raises(BadInputError, match=r"not an \.npz file"):
        settled(IDS, MASK, data=path)
    with ZipFile(path, "w") as archive:
        archive.writestr(
            "ids.npy", b"\x93NUMPY\x01\x00" + b"v\x00" + b"{'descr': '<i8', 'shape': (1000000000000,)" + b" " * 70
        )
    with pytest.raises(BadInputError, match=r"not an \.npz file"):
        settled(IDS, MASK, data=path)
    with pytest.raises(BadInputError, match="there is no file"):
        settled(IDS, MASK, data=tmp_path)
    with pytest.raises(BadInputError, match="there is no file"):
        settled(IDS, MASK, data=tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1x3x224x224", (None, (1, 3, 224, 224), None)),
        ("1,3", (None, (1, 3), None)),
        ("ids=1x128:int64", ("ids", (1, 128), "int64")),
        ("a=b=2", ("a=b", (2,), None)),
        ("serving_default_x:0=1x4", ("serving_default_x:0", (1, 4), None)),
        ("sr=scalar:int64", ("sr", (), "int64")),
        ("sr=:int64", ("sr", None, "int64")),
    ],
)
def test_forms_of_input(text: str, found: object) -> None:
    assert parse_input(text) == found


@given(st.text(max_size=30))
def test_any_text_is_a_shape_or_one_clear_error(text: str) -> None:
    with suppress(BadInputError):  # any other error fails the test
        _, shape, _ = parse_input(text)
        assert shape is None or all(side > 0 for side in shape)


@given(st.lists(st.text(max_size=12), max_size=2), st.lists(st.text(max_size=12), max_size=2))
def test_any_dims_and_ranges_end_in_one_clear_error(dims: list[str], ranges: list[str]) -> None:
    with suppress(BadInputError):  # any other error fails the test
        assert shapes(settled(IDS, MASK, dims=["seq=4", *dims], ranges=ranges))[0]


def test_more_inputs_than_the_protocol_takes() -> None:
    with pytest.raises(BadInputError, match=r"net\.onnx: it has 1025 inputs"):
        settled(*(TensorInfo(f"x{number}", (1,), "float32") for number in range(1025)))
    with pytest.raises(BadInputError, match="an input's name has 1025 characters"):
        settled(TensorInfo("x" * 1025, (1,), "float32"))


def test_a_message_names_a_few_inputs_only() -> None:
    with pytest.raises(UnsettledInputsError) as caught:
        settled(*(TensorInfo(f"x{number}", (1, f"side{number}"), "float32") for number in range(1000)))
    assert "and 992 more" in caught.value.message
    assert len(caught.value.message) < 2000


def test_each_of_several_models_takes_what_names_something_of_it() -> None:
    asked = InputOptions(["ids=1x4", "x=1x3x8x8", "1x2"], ["seq=4", "h=8", "x[0]=1", "x[9]=1"], ["ids=0:3"])
    assert asked.of(described(IDS, MASK)) == InputOptions(("ids=1x4", "1x2"), ("seq=4",), ("ids=0:3",))
    assert asked.of(described(IMAGE)) == InputOptions(("x=1x3x8x8", "1x2"), ("h=8", "x[0]=1", "x[9]=1"), ())
