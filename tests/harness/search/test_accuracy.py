"""Sources of accuracies, and their errors."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from damaged_archives import archives_damaged
from onnx import TensorProto, helper
from scipy import stats
from torch import nn

from latlab.harness.errors import BadInputError
from latlab.harness.search.accuracy import Remembered
from latlab.harness.search.accuracy_models import Function, accuracy_source
from latlab.harness.search.candidates import candidates_of
from latlab.search_spaces import get

NB201, OFA = get("nasbench201"), get("ofa-mobilenetv3")
ARCHS = NB201.sample(5, 0)
GENES = NB201.genes(ARCHS)


def test_a_table_knows_its_networks_and_no_others(tmp_path: Path) -> None:
    texts = [arch.text for arch in ARCHS]
    table = pd.DataFrame({"arch": [*texts, texts[0]], "accuracy": [50.0, 51.0, np.nan, 53.0, 54.0, 50.0]})
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_parquet(tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        source = accuracy_source(tmp_path / name, NB201)
        np.testing.assert_array_equal(source(GENES), [50.0, 51.0, np.nan, 53.0, 54.0])
        assert len(source.genes) == 4  # type: ignore[attr-defined]


def test_a_table_may_have_official_indices_and_several_accuracies(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"index": [0, 7, 15624], "cifar10_acc": [90.0, 91.0, 92.0], "cifar100_acc": [60.0, 61.0, 62.0]}
    )
    table.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(BadInputError, match="several columns that may be accuracies: cifar10_acc, cifar100_acc"):
        accuracy_source(tmp_path / "a.csv", NB201)
    source = accuracy_source(tmp_path / "a.csv", NB201, "cifar100_acc")
    at: Any = NB201
    assert source(NB201.genes([at.at(7), at.at(1)])).tolist()[0] == 61.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arch,accuracy\n", "it has no rows"),
        ("arch,accuracy\n0_1_2,70\n", "line 2: nasbench201: '0_1_2' is not three nodes"),
        (f"arch,accuracy\n{ARCHS[0]},high\n", "line 2: accuracy is 'high', which is no number"),
        (f"arch,accuracy\n{ARCHS[0]},nan\n", "its column accuracy has no number"),
        (
            f"arch,accuracy\n{ARCHS[0]},10\n{ARCHS[1]},20\n{ARCHS[0]},\n{ARCHS[0]},10.0\n{ARCHS[0]},90\n",
            "a.csv, line 2 and line 6: one network has the accuracies 10 and 90",
        ),
        (
            f"arch,accuracy\n{ARCHS[0]},10\n{ARCHS[1]},inf\n{ARCHS[2]},-inf\n{ARCHS[3]},1e308\n",
            "a.csv: accuracy is inf in line 3, -inf in line 4, 1e.308 in line 5, which is no accuracy",
        ),
        ("arch,accuracy\n" + f"{ARCHS[0]},inf\n" * 8, "in line 6, and in 3 more, which"),
        (f"arch\n{ARCHS[0]}\n", "has no column of accuracies"),
        ("accuracy\n70\n", "no column names the architectures"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(BadInputError, match=message) as error:
        accuracy_source(tmp_path / "a.csv", NB201)
    assert "latenc" not in str(error.value)


def test_listed_networks_that_a_table_does_not_know_are_counted(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("\n".join(arch.text for arch in ARCHS) + "\n")
    for known, words in ((2, "5 candidates of c.txt, 3 of which have no accuracy"), (5, "5 candidates of c.txt")):
        texts = [arch.text for arch in ARCHS[:known]]
        pd.DataFrame({"arch": texts, "accuracy": range(known)}).to_csv(tmp_path / "a.csv", index=False)
        source = accuracy_source(tmp_path / "a.csv", NB201)
        assert candidates_of(NB201, source, tmp_path / "c.txt", 2, 2)[1] == words
    assert candidates_of(NB201, accuracy_source("macs", NB201), tmp_path / "c.txt", 2, 2)[1] == "5 candidates of c.txt"


@pytest.mark.parametrize("word", ["accuracy.txt", "guess", "mac", "no.csv", "no.npz", "no.onnx", ""])
def test_what_is_no_source_says_what_there_is(word: str) -> None:
    with pytest.raises(BadInputError, match="module:function"):
        accuracy_source(word, NB201)


def test_proxies_are_the_networks_costs() -> None:
    macs, params = (accuracy_source(name, NB201)(GENES) for name in ("macs", "params"))
    live = [NB201.layers(NB201.canonical(arch)) for arch in ARCHS]  # dead edges make no network more accurate
    assert macs.tolist() == [sum(layer.macs for layer in layers) for layers in live]
    assert params.tolist() == [sum(layer.params for layer in layers) for layers in live]


# Once-for-all's predictor


def _mlp(seed: int = 0, sizes: tuple[int, ...] = (128, 400, 400, 400, 1)) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _save(model: nn.Sequential, path: Path) -> Path:
    np.savez(path, **{name: value.numpy() for name, value in model.state_dict().items()})
    return path


def test_ofas_predictor_computes_what_the_network_does(tmp_path: Path) -> None:
    model, genes = _mlp(), OFA.genes(OFA.sample(50, 0))
    found = accuracy_source(_save(model, tmp_path / "w.npz"), OFA)(genes)
    with torch.inference_mode():
        expected = model(torch.from_numpy(OFA.encode(genes, "ofa")).float())[:, 0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"0.weight": np.full((400, 128), "1.5")}, r"0.weight is an array of <U3"),
        ({"0.weight": np.zeros((400, 128), complex)}, "0.weight is an array of complex128"),
        ({"4.bias": np.full(400, 1e300)}, "a weight is no number"),
        ({"4.bias": np.full(400, np.nan)}, "a weight is no number"),
        ({"4.bias": None}, "no item named '4.bias.npy'"),
    ],
)
def test_weights_that_are_none(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    arrays = {name: value.numpy() for name, value in _mlp().state_dict().items()} | changes
    np.savez(tmp_path / "w.npz", **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(BadInputError, match=f"w.npz is no accuracy predictor of OFA: .*{message}"):
        accuracy_source(tmp_path / "w.npz", OFA)


def test_weights_whose_answers_overflow(tmp_path: Path) -> None:
    arrays = {name: np.full_like(value.numpy(), 1e30) for name, value in _mlp().state_dict().items()}
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(BadInputError, match=r"w.npz returned (inf|nan) for network 0 of 2"):
        accuracy_source(tmp_path / "w.npz", OFA)(OFA.genes(OFA.sample(2, 0)))


def test_a_damaged_archive_of_weights_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    np.savez_compressed(path, **{name: value.numpy() for name, value in _mlp().state_dict().items()})
    good = path.read_bytes()
    for damaged in archives_damaged(good):
        path.write_bytes(damaged)
        with pytest.raises(BadInputError, match=r"w.npz is no accuracy predictor of OFA"):
            accuracy_source(path, OFA)


def test_ofas_predictor_is_checked(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="nasbench201 has no encoding for"):
        accuracy_source(_save(_mlp(), tmp_path / "w.npz"), NB201)
    with pytest.raises(BadInputError, match="is no accuracy predictor of OFA: a layer has weights of shape"):
        accuracy_source(_save(_mlp(sizes=(100, 400, 400, 400, 1)), tmp_path / "w.npz"), OFA)
    with pytest.raises(BadInputError, match="it has 2 outputs"):
        accuracy_source(_save(_mlp(sizes=(128, 9, 9, 9, 2)), tmp_path / "w.npz"), OFA)
    np.savez(tmp_path / "p.npz", **{f"{i}.{n}": np.array([object()]) for i in (0, 2, 4, 6) for n in ("weight", "bias")})
    (tmp_path / "t.npz").write_bytes(b"no zip")
    for name in ("p.npz", "t.npz"):  # one would have to be unpickled
        with pytest.raises(BadInputError, match="is no accuracy predictor of OFA"):
            accuracy_source(tmp_path / name, OFA)


@pytest.mark.data
def test_ofas_predictor_ranks_the_published_architectures(data_folder: Path) -> None:
    """HELP's search names the accuracy of each of its architectures in the file's name."""
    source = accuracy_source(data_folder / "ofa_accuracy_predictor.npz", OFA)
    found = json.loads((data_folder / "help_ofa_published_architectures.json").read_text())
    configs = [one["config"] for one in found]
    genes = OFA.genes([OFA.from_genes([one["r"], *one["d"], *one["ks"], *one["e"]]) for one in configs])
    published = [float(one["file"].rpartition("_")[2].removesuffix(".json")) for one in found]
    predicted = source(genes)
    assert stats.spearmanr(predicted, published).statistic > 0.9
    assert ((predicted > 0.7) & (predicted < 0.9)).all()


# ONNX models


def _linear(path: Path, width: int, output: float | None = None) -> np.ndarray:
    weight = np.random.default_rng(0).normal(size=(width, 1)).astype(np.float32)
    if output is not None:
        weight[:] = output
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "accuracy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.ravel())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return weight


def test_an_onnx_model_gets_the_encoding_that_fits_its_input(tmp_path: Path) -> None:
    for width, values in ((30, NB201.encode(GENES, "one-hot")), (6, GENES)):
        weight = _linear(tmp_path / "m.onnx", width)
        np.testing.assert_allclose(accuracy_source(tmp_path / "m.onnx", NB201)(GENES), (values @ weight)[:, 0], 1e-4)


def test_onnx_models_that_do_not_fit(tmp_path: Path) -> None:
    _linear(tmp_path / "m.onnx", 31)
    with pytest.raises(BadInputError, match=r"no encoding of nasbench201\n.*one-hot \(30\), genes \(6\)"):
        accuracy_source(tmp_path / "m.onnx", NB201)
    (tmp_path / "t.onnx").write_bytes(b"no model")
    with pytest.raises(BadInputError, match="is no ONNX model of accuracies"):
        accuracy_source(tmp_path / "t.onnx", NB201)
    _linear(tmp_path / "n.onnx", 30, float("nan"))
    with pytest.raises(BadInputError, match="returned nan for network 0 of 5"):
        accuracy_source(tmp_path / "n.onnx", NB201)(GENES)


def _model(path: Path, inputs: list[Any], nodes: list[Any], weights: list[Any] = []) -> Path:  # noqa: B006
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "accuracy", inputs, [output], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def _summing(path: Path, kind: int, shape: list[Any] | None, rows: list[int] | None = None) -> Path:
    """Write a model that adds up each row of its input; `rows` are the axes of the sum."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["f", "axes"], ["y"], keepdims=0),
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [len(rows or [1])], rows or [1])
    return _model(path, [helper.make_tensor_value_info("x", kind, shape)], nodes, [axes])


@pytest.mark.parametrize("kind", ["FLOAT16", "DOUBLE", "INT8", "UINT8", "INT16", "INT32", "UINT32", "INT64", "UINT64"])
def test_an_onnx_model_may_take_any_numbers(tmp_path: Path, kind: str) -> None:
    path = _summing(tmp_path / "m.onnx", getattr(TensorProto, kind), ["n", 6])
    np.testing.assert_allclose(accuracy_source(path, NB201)(GENES), GENES.sum(axis=1))


def test_an_onnx_model_that_takes_one_network_is_asked_about_one_at_a_time(tmp_path: Path) -> None:
    path = _summing(tmp_path / "m.onnx", TensorProto.FLOAT, [1, 6])
    np.testing.assert_allclose(accuracy_source(path, NB201)(GENES), GENES.sum(axis=1))


def test_onnx_models_whose_inputs_do_not_fit(tmp_path: Path) -> None:
    two = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 6]) for name in ("a", "b")]
    path = _model(tmp_path / "m.onnx", two, [helper.make_node("Add", ["a", "b"], ["y"])])
    with pytest.raises(BadInputError, match=r"m.onnx takes 2 inputs \(a, b\), not one\n.*genes \(6\)"):
        accuracy_source(path, NB201)
    for shape, message in (
        (None, "an input without a shape"),
        ([6], r"an input of shape \[6\], which is no encoding"),
        (["n", "w"], r"an input of shape \['n', 'w'\], which is no encoding"),
        ([4, 6], "exactly 4 networks at once\nExport it with a first axis of any size"),
    ):
        with pytest.raises(BadInputError, match=f"m.onnx takes {message}"):
            accuracy_source(_summing(path, TensorProto.FLOAT, shape, [len(shape or [0, 0]) - 1]), NB201)
    path = _summing(tmp_path / "t.onnx", TensorProto.STRING, ["n", 6])
    with pytest.raises(BadInputError, match=r"t\.onnx takes an input of type tensor\(string\)"):
        accuracy_source(path, NB201)
    narrow = accuracy_source(_summing(path, TensorProto.BOOL, ["n", 6]), NB201)
    with pytest.raises(BadInputError, match="takes bool, which cannot hold all values of this encoding"):
        narrow(GENES)


def test_an_onnx_model_with_a_wrong_number_of_answers(tmp_path: Path) -> None:
    path = _summing(tmp_path / "m.onnx", TensorProto.FLOAT, ["n", 6], [0])
    with pytest.raises(BadInputError, match=r"returned 6 numbers for 5 networks\nIts first output must hold one"):
        accuracy_source(path, NB201)(GENES)


# Functions of the user's


def _raises(genes: np.ndarray) -> np.ndarray:
    raise RuntimeError("no accuracy today")


def _exits(genes: np.ndarray) -> np.ndarray:
    raise SystemExit(3)


def _interrupts(genes: np.ndarray) -> np.ndarray:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "function", [lambda genes: genes[:, 0] > 2, lambda genes: genes[:, 0].astype(np.int8), lambda genes: [1] * 5]
)
def test_booleans_and_whole_numbers_are_accuracies(function: Callable[[Any], Any]) -> None:
    assert accuracy_source(function, NB201)(GENES).tolist() == [float(one) for one in function(GENES)]


INTERRUPTED = """
import signal
import numpy as np
from latlab.harness.search.accuracy_models import accuracy_source
from latlab.search_spaces import get

def waits(genes):
    signal.raise_signal(signal.SIGINT)
    raise AssertionError("not interrupted")

before, space = signal.getsignal(signal.SIGINT), get("nasbench201")
try:
    accuracy_source(waits, space)(space.genes(space.sample(3)))
except KeyboardInterrupt:
    print("interrupted", signal.getsignal(signal.SIGINT) is before)
"""


def test_a_signal_interrupts_a_function_as_anything_else() -> None:
    """In a process of its own: with OpenVINO and torch's profiler in it, as tests leave it, any signal ends Python."""
    ran = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "interrupted True\n", ran.stderr


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_raises, "failed: RuntimeError: no accuracy today"),
        (_exits, "ended the program"),
        (lambda genes: np.full(len(genes), np.nan), "returned nan for network 0 of 5"),
        (lambda genes: np.where(np.arange(5) == 3, np.inf, 1.0), "returned inf for network 3 of 5"),
        (lambda genes: np.zeros(3), r"returned an array of shape \(3,\) for 5 networks"),
        (lambda genes: 1.0, r"returned an array of shape \(\) for 5 networks"),
        (lambda genes: ["good"] * 5, "failed: ValueError"),
        (lambda genes: None, "returned"),
        (lambda genes: genes.sum(axis=1) * 1j, "returned values of type complex128\nReturn real numbers"),
        (lambda genes: np.full(5, 1 + 0j, object), "failed: TypeError"),
        (lambda genes: np.array([np.complex64(1)] * 5, object), "failed: ComplexWarning"),
        (lambda genes: np.full(5, "2020-01-01", "M8[D]"), "returned values of type datetime64"),
        (lambda genes: np.full(5, 1e308), r"returned 1e\+308 for network 0 of 5\nReturn finite numbers below 1e\+30"),
        (lambda genes: np.where(np.arange(5) == 2, -1e31, 1.0), r"returned -1e\+31 for network 2 of 5"),
        (_interrupts, "_interrupts raised a KeyboardInterrupt instead of returning accuracies"),
    ],
)
def test_functions_that_fail(function: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        accuracy_source(function, NB201)(GENES)


def test_a_function_of_a_module_in_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_accuracies.py").write_text("def convolutions(genes):\n    return (genes == 3).sum(axis=1)\n")
    source = accuracy_source("my_accuracies:convolutions", NB201)
    assert source(GENES).tolist() == (GENES == 3).sum(axis=1).tolist()
    first = source.identity
    Path("my_accuracies.py").write_text("def convolutions(genes):\n    return genes[:, 0]\n")
    assert accuracy_source("my_accuracies:convolutions", NB201).identity != first, "another search"
    for word in ("my_accuracies:nothing", "no_such_module:f"):
        with pytest.raises(BadInputError, match=f"{word} cannot be imported"):
            accuracy_source(word, NB201)
    with pytest.raises(BadInputError, match="is no function"):
        accuracy_source("my_accuracies:__name__", NB201)


def test_nothing_is_asked_twice() -> None:
    asked: list[int] = []

    def count(genes: np.ndarray) -> np.ndarray:
        asked.append(len(genes))
        return genes.sum(axis=1)

    source = Remembered(Function("count", count))
    twice = np.concatenate([GENES, GENES[::-1]])
    assert source(twice).tolist() == twice.sum(axis=1).tolist()
    assert source(GENES[:2]).tolist() == GENES[:2].sum(axis=1).tolist()
    assert asked == [5]


def test_what_a_changed_source_said_is_forgotten() -> None:
    asked: list[int] = []

    def twice(genes: np.ndarray) -> np.ndarray:
        asked.append(len(genes))
        return 2.0 * genes.sum(axis=1)

    genes = NB201.genes(NB201.sample(50, 1))
    for factor, kept in ((2.0, True), (2.00001, True), (2.1, False)):
        asked.clear()
        known = {row.tobytes(): factor * float(row.sum()) for row in genes}
        source = Remembered(Function("twice", twice), known)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = source(genes)
        assert asked == ([5] if kept else [5, 50])
        np.testing.assert_allclose(found, 2.0 * genes.sum(axis=1), rtol=1e-4)
        assert len(said) == (not kept)
        if said:
            assert "twice says" in str(said[0].message)
            assert "are forgotten" in str(said[0].message)
        source(genes[:9])
        assert sum(asked[1:]) == (0 if kept else 50), "it is looked at once"
