"""Tests of the way from a model of one's own to its row, with the real runtimes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from model_files import onnx_file
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from latlab.agents.protocol.load_request import InputRequest
from latlab.harness import Lab
from latlab.harness.devices.target_selection import TargetOptions
from latlab.harness.errors import BadInputError
from latlab.harness.exporters import export_module
from latlab.harness.fleet.jobs import RunListener
from latlab.harness.models.input_options import InputOptions

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
FORMATS = {"onnx": "onnx", "tflite": "tflite", "pt": "torchscript"}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "latlab.db")


def measured(lab: Lab, model: str | Path, *inputs: str, **more: Any) -> dict[str, Any]:
    """Return the only row of a measured model, which has a latency."""
    options = more.pop("options", TargetOptions())
    asked = InputOptions(inputs, **more)
    (row,) = lab.measure(model=model, inputs=asked, options=options, policy="quick").rows.to_dict("records")
    assert row["status"] == "ok", row["error"]
    return dict(row)


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "latlab", *words], capture_output=True, text=True, timeout=120)


def facts(row: dict[str, Any]) -> dict[str, Any]:
    """Return what the worker said of the first input."""
    found = json.loads(row["artifact"])["inputs"][0]
    assert isinstance(found, dict)
    return found


# Factories


@pytest.mark.parametrize("runtime", ["onnxruntime", "tflite", "torchscript"])
def test_a_factory(lab: Lab, folder: Path, runtime: str) -> None:
    row = measured(lab, "mynets:net", "2x3x8x8", options=TargetOptions(runtime=runtime))
    assert row["target"] == f"local/{runtime}/cpu/fp32/t1/b2"


@pytest.mark.parametrize("runtime", ["onnxruntime", "torchscript"])
def test_a_factory_with_several_inputs(lab: Lab, folder: Path, runtime: str) -> None:
    row = measured(
        lab, "mynets:Text", "ids=2x5:int64", "scale=1", ranges=["ids=0:20"], options=TargetOptions(runtime=runtime)
    )
    assert row["arch"] == "mynets:Text ids=2x5 scale=1"
    assert (facts(row)["dtype"], facts(row)["high"]) == ("int64", 20)


@pytest.mark.parametrize(
    ("factory", "options"),
    [("mynets:Text", ["--input", "ids=1x128:int64"]), ("mynets:Attention", ["--input", "x=1x16x16"])],
)
def test_a_factory_s_refusal_gives_a_command_that_works(
    lab: Lab, folder: Path, factory: str, options: list[str]
) -> None:
    with pytest.raises(BadInputError) as caught:
        lab.measure(model=factory, options=TargetOptions(runtime="torchscript"))
    words = shlex.split((caught.value.hint or "").partition("for example: latlab ")[2])
    assert words[-2:] == ["--runtime", "torchscript"]
    assert options == words[words.index("--input") : words.index("--input") + 2]
    inputs = [word for option, word in pairwise(words) if option == "--input"]
    measured(lab, factory, *inputs, options=TargetOptions(runtime="torchscript"))


def test_a_factory_s_indices_are_spread_over_its_table(lab: Lab, folder: Path) -> None:
    row = measured(lab, "mynets:Text", "ids=1x7:int64", "scale=1")
    assert (facts(row)["low"], facts(row)["high"]) == (0, 49)


@pytest.mark.parametrize("runtime", ["onnxruntime", "torchscript"])
def test_attention_is_exported_without_torch_s_own_operator(lab: Lab, folder: Path, runtime: str) -> None:
    measured(lab, "mynets:Attention", "1x6x16", options=TargetOptions(runtime=runtime))


def test_what_a_factory_s_compiler_says_is_kept_short(lab: Lab, folder: Path) -> None:
    done = command("measure", "local", "--model", "mynets:odd", "--input", "1x3", "--runtime", "onnxruntime")
    assert done.returncode == 2
    assert "cannot be exported" in done.stderr
    assert "graph(" not in done.stderr
    assert len(done.stderr.splitlines()) < 6


# Files


@pytest.mark.parametrize("suffix", ["onnx", "tflite", "pt", "ONNX", "Pt", "bin"])
def test_a_file_whatever_its_name(lab: Lab, folder: Path, suffix: str) -> None:
    import mynets  # type: ignore[import-not-found]  # written by the fixture

    format = FORMATS.get(suffix.lower(), "onnx")
    made = export_module(mynets.net(), format, [InputRequest(shape=(1, 3, 8, 8))], folder / "made")
    path = folder / f"net.{suffix}"
    path.write_bytes(made.path.read_bytes())
    row = measured(lab, path, *(["1x3x8x8"] if format == "torchscript" else []))
    assert row["space"] == "model"
    assert row["arch"] == f"net.{suffix} " + ("1x8x8x3" if format == "tflite" else "1x3x8x8")


def test_each_shape_of_an_open_file_is_measured(lab: Lab, open_sides: Path) -> None:
    with pytest.raises(BadInputError, match=r"leaves open the shape of x \[n, 3, h, w\]"):
        lab.measure(model=open_sides)
    small, large = (measured(lab, open_sides, f"2x3x{side}x{side}") for side in (16, 256))
    assert large["latency_ms"] > 5 * small["latency_ms"]
    assert small["target"].endswith("/b2")
    assert len(lab.store.table()) == 2


def test_the_command_of_a_refusal_works(two_open: Path) -> None:
    refused = command("measure", "local", "--model", two_open.name)
    assert refused.returncode == 2
    assert "ids int64 [batch, seq]; mask int64 [batch, seq]" in refused.stderr
    proposed = refused.stderr.rpartition("for example: latlab ")[2].partition("\n")[0]
    assert proposed == f"measure local --model {two_open.name} --dim seq=128"
    done = command(*shlex.split(proposed), "--policy", "quick", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout.splitlines()[0])["arch"] == "text.onnx ids=1x128 mask=1x128"


@pytest.mark.parametrize("stored", [0, -1, "h"])
def test_open_sides_however_they_are_stored(lab: Lab, folder: Path, stored: int | str) -> None:
    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    path = onnx_file(folder / "open.onnx", {"x": (["n", 3, "h", "w"], TensorProto.FLOAT)}, [node], [weight])
    model = onnx.load(path)
    for place in (0, 2, 3):
        side = model.graph.input[0].type.tensor_type.shape.dim[place]
        if isinstance(stored, int):
            side.dim_value = stored
    onnx.save(model, path)
    with pytest.raises(BadInputError) as caught:
        lab.measure(model=path)
    words = shlex.split((caught.value.hint or "").partition("for example: latlab ")[2])
    dims = [word for option, word in pairwise(words) if option == "--dim"]
    assert dims
    assert measured(lab, path, dims=dims)["arch"].startswith("open.onnx 1x3x")


def test_a_batch_that_cannot_be_had(lab: Lab, folder: Path) -> None:
    node = helper.make_node("Add", ["a", "b"], ["y"])
    sides = ([4, 3], TensorProto.FLOAT)
    path = onnx_file(folder / "four.onnx", {"a": sides, "b": sides}, [node])
    assert measured(lab, path)["target"].endswith("/b4")
    with pytest.raises(BadInputError, match="it is fixed at batch 4: --batch-size 8 cannot be had"):
        lab.measure(model=path, options=TargetOptions(batch_size=8))


def test_weights_beside_the_model(lab: Lab, folder: Path) -> None:
    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((64, 64), np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    path = onnx_file(folder / "side.onnx", {"x": ([1, 64], TensorProto.FLOAT)}, [node], [weight])
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="side.bin", size_threshold=0)
    first = measured(lab, path)
    assert measured(lab, path)["artifact_sha256"] == first["artifact_sha256"]
    (folder / "side.bin").write_bytes(b"\1\2\3\4" * 64 * 64)
    assert measured(lab, path)["artifact_sha256"] != first["artifact_sha256"]
    (folder / "side.bin").unlink()
    with pytest.raises(BadInputError, match=r"keeps its weights in side\.bin"):
        lab.measure(model=path)
    assert len(lab.store.table()) == 2  # no row is left that stays `running`


@pytest.mark.parametrize("kind", [np.float16, np.int8])
def test_the_target_has_the_file_s_precision(lab: Lab, folder: Path, kind: type) -> None:
    if kind is np.float16:
        weight = numpy_helper.from_array(np.ones((8, 8), np.float16), "w")
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
        inputs = {"x": ([1, 8], TensorProto.FLOAT16)}
        path = onnx_file(folder / "n.onnx", inputs, nodes, [weight], output_type=TensorProto.FLOAT16)
    else:
        weight = numpy_helper.from_array(np.ones((8, 8), np.int8), "w")
        nodes = [helper.make_node("MatMulInteger", ["x", "w"], ["y"])]
        inputs = {"x": ([1, 8], TensorProto.INT8)}
        path = onnx_file(folder / "n.onnx", inputs, nodes, [weight], output_type=TensorProto.INT32)
    precision = "fp16" if kind is np.float16 else "int8"
    assert measured(lab, path)["target"] == f"local/onnxruntime/cpu/{precision}/t1/b1"
    with pytest.raises(BadInputError, match=f"is {precision}: --precision fp32 cannot be had"):
        lab.measure(model=path, options=TargetOptions(precision="fp32"))


def test_indices_are_spread_over_their_table(lab: Lab, folder: Path) -> None:
    rng = np.random.default_rng(0)
    table = numpy_helper.from_array(rng.standard_normal((200_000, 64), np.float32), "table")
    node = helper.make_node("Gather", ["table", "ids"], ["y"])
    path = onnx_file(folder / "g.onnx", {"ids": ([1, 20_000], TensorProto.INT64)}, [node], [table])
    said: list[str] = []
    listener = RunListener(announce=said.append)
    spread = lab.measure(model=path, policy="quick", listener=listener).rows.iloc[0]
    assert (facts(spread.to_dict())["low"], facts(spread.to_dict())["high"]) == (0, 199_999)
    assert said == ["g.onnx 1x20000: values of ids: 0 to 199999"]
    narrow = measured(lab, path, ranges=["ids=0:1"])
    assert spread["latency_ms"] > 1.5 * narrow["latency_ms"]  # 51 MB do not fit into a cache, two rows do
    assert len(lab.store.table()) == 2


def test_values_from_a_file_reach_the_model(lab: Lab, two_open: Path) -> None:
    path = two_open.parent / "values.npz"
    np.savez(path, ids=np.full((1, 6), 1000, np.int64), mask=np.ones((1, 6), np.int64))
    rows = lab.measure(model=two_open, inputs=InputOptions(data=path), policy="quick").rows
    assert rows["status"].tolist() == ["crash"]  # the table has rows 0 to 999: the values did arrive
    assert "indices element out of data bounds" in rows["error"][0]
    np.savez(path, ids=np.full((1, 6), 999, np.int64), mask=np.ones((1, 6), np.int64))
    assert measured(lab, two_open, data=path)["arch"] == "text.onnx ids=1x6 mask=1x6"


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.last = nn.Embedding(100, 8), nn.Linear(8, 8)

    def forward(self, ids: Tensor, mask: Tensor | None = None, scale: float = 1.0) -> Tensor:
        y: Tensor = self.last(self.table(ids)) * scale
        return y if mask is None else y * mask


class Listed(nn.Module):
    def forward(self, images: list[Tensor]) -> Tensor:
        return images[0] + 1


@pytest.mark.parametrize(
    ("make", "inputs", "dtype"),
    [
        (Scripted, ["ids=1x9:int64"], "int64"),
        (Scripted, ["1x9:int64"], "int64"),
        (Scripted, ["ids=1x9:int64", "mask=1x9x8"], "int64"),
        (Scripted, ["ids=1x9:int64", "scale=:float32"], "int64"),
        (lambda: nn.Linear(8, 8).half(), ["1x8:float16"], "float16"),
        (Listed, ["3x8x8"], "float32"),
    ],
)
def test_torchscript_of_all_types(
    lab: Lab, folder: Path, make: Callable[[], nn.Module], inputs: list[str], dtype: str
) -> None:
    torch.jit.script(make().eval()).save(str(folder / "net.pt"))
    assert facts(measured(lab, folder / "net.pt", *inputs))["dtype"] == dtype


def test_torchscript_s_refusal_gives_a_command_that_works(lab: Lab, folder: Path) -> None:
    torch.jit.script(Scripted().eval()).save(str(folder / "net.pt"))
    with pytest.raises(BadInputError, match="does not say the shape of its input ids") as caught:
        lab.measure(model=folder / "net.pt")
    assert (caught.value.hint or "").endswith("--input ids=1x128:int64")


@pytest.mark.parametrize("runtime", [None, "onnxruntime"])
def test_an_exported_program(lab: Lab, folder: Path, runtime: str | None) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
    program = torch.export.export(
        module, (torch.zeros(2, 3, 8, 8),), dynamic_shapes={"input": {0: torch.export.Dim("batch", max=64)}}
    )
    torch.export.save(program, folder / "net.pt2")
    row = measured(lab, folder / "net.pt2", options=TargetOptions(runtime=runtime, batch_size=3))
    assert row["target"] == f"local/{runtime or 'torchscript'}/cpu/fp32/t1/b3"


# Targets


@pytest.fixture
def small(folder: Path) -> Path:
    node = helper.make_node("Relu", ["x"], ["y"])
    return onnx_file(folder / "small.onnx", {"x": (["n", 8], TensorProto.FLOAT)}, [node])


def test_a_full_target_must_agree_with_the_model(lab: Lab, small: Path) -> None:
    with pytest.raises(BadInputError, match=r"runs tflite files, and small\.onnx 1x8 is an onnx file") as caught:
        lab.measure("local/tflite/cpu/fp32/t1/b1", model=small)
    assert "local/onnxruntime/cpu/fp32/t1/b1" in (caught.value.hint or "")
    with pytest.raises(BadInputError, match="is fp32 and runs at batch 1"):
        lab.measure("local/onnxruntime/cpu/int8/t1/b1", model=small)
    rows = lab.measure("local/onnxruntime/cpu/fp32/t1/b1", model=small, policy="quick").rows
    assert rows["target"].tolist() == ["local/onnxruntime/cpu/fp32/t1/b1"]


def test_targets_that_do_not_take_the_model_are_named(small: Path, tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.yaml"
    targets = "[{runtime: tflite}, {runtime: onnxruntime}]"
    inventory.write_text(f"devices:\n  here:\n    transport: local\n    targets: {targets}\n")
    said: list[str] = []
    rows = (
        Lab(tmp_path / "x.db", inventory=inventory)
        .measure("here", model=small, policy="quick", listener=RunListener(announce=said.append))
        .rows
    )
    assert rows["target"].tolist() == ["here/onnxruntime/cpu/fp32/t1/b1"]
    assert said == ["small.onnx 1x8: here/tflite/cpu/fp32/t1/b1 is skipped: it takes no onnx file"]


def test_two_models_are_not_one(small: Path) -> None:
    done = command("measure", "local", "--model", "small.onnx", "--model", "small.onnx")
    assert done.returncode == 2
    assert "--model is given 2 times" in done.stderr
    assert "latlab compare" in done.stderr


Ask = Callable[[Lab], object]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda lab: lab.measure(model="none.onnx"), "there is no model file none.onnx"),
        (lambda lab: lab.measure(model="mynets:net"), "does not say the shape of its input input"),
        (lambda lab: lab.measure(model="mynets:missing"), "AttributeError"),
        (lambda lab: lab.measure(model="mynets:notanet"), "gave a int"),
        (lambda lab: lab.measure(model="mynets:leaves"), r"ended the program \(exit code 0\)"),
        (
            lambda lab: lab.measure(model="mynets:Leaves", inputs=InputOptions(["1x4"])),
            r"ended the program \(exit code 0\) when it was run",
        ),
        (lambda lab: lab.measure(model="mynets:lazy"), "gave a module whose weights cannot be read"),
        (lambda lab: lab.measure(model="mynets:Stubborn"), "failed: RuntimeError: no modes"),
        (
            lambda lab: lab.measure(
                model="mynets:odd", inputs=InputOptions(["1x3"]), options=TargetOptions(runtime="tflite")
            ),
            "unsupported_op",
        ),
        (lambda lab: lab.measure(model="nonsense"), "is not a model"),
        (lambda lab: lab.measure(model="mynets.py"), "mynets.py is not a model that latlab knows"),
        (lambda lab: lab.measure(model="mynets:net", inputs=InputOptions(["0x3"])), "is not a shape"),
    ],
)
def test_bad_models(lab: Lab, folder: Path, ask: Ask, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        ask(lab)
    assert lab.store.table().empty


def test_what_a_factory_prints_is_not_latlab_s_output(folder: Path) -> None:
    done = command("inspect", "mynets:talks", "--json")
    assert json.loads(done.stdout)["format"] == "module"
    assert "hello" in done.stderr
