"""Sources of accuracies, and their errors."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from onnx import TensorProto, helper
from scipy import stats
from torch import nn

from latlab.harness.errors import BadInputError
from latlab.harness.search.accuracy import Remembered
from latlab.harness.search.accuracy_models import Function, accuracy_source
from latlab.search_spaces import get

NB201, OFA = get("nasbench201"), get("ofa-mobilenetv3")
ARCHS = NB201.sample(5, 0)
GENES = NB201.genes(ARCHS)


def test_a_table_knows_its_networks_and_no_others(tmp_path: Path) -> None:
    texts = [arch.text for arch in ARCHS]
    table = pd.DataFrame({"arch": [*texts, texts[0]], "accuracy": [50.0, 51.0, np.nan, 53.0, 54.0, 52.0]})
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_parquet(tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        source = accuracy_source(tmp_path / name, NB201)
        np.testing.assert_array_equal(source(GENES), [51.0, 51.0, np.nan, 53.0, 54.0])  # the mean of a repeated one
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
        (f"arch\n{ARCHS[0]}\n", "has no column of accuracies"),
        ("accuracy\n70\n", "no column names the architectures"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(BadInputError, match=message) as error:
        accuracy_source(tmp_path / "a.csv", NB201)
    assert "latenc" not in str(error.value)


@pytest.mark.parametrize("word", ["accuracy.txt", "guess", "mac", "no.csv", "no.npz", "no.onnx", ""])
def test_what_is_no_source_says_what_there_is(word: str) -> None:
    with pytest.raises(BadInputError, match="module:function"):
        accuracy_source(word, NB201)


def test_proxies_are_the_networks_costs() -> None:
    macs, params = (accuracy_source(name, NB201)(GENES) for name in ("macs", "params"))
    assert macs.tolist() == [sum(layer.macs for layer in NB201.layers(arch)) for arch in ARCHS]
    assert params.tolist() == [sum(layer.params for layer in NB201.layers(arch)) for arch in ARCHS]


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


# Functions of the user's


def _raises(genes: np.ndarray) -> np.ndarray:
    raise RuntimeError("no accuracy today")


def _exits(genes: np.ndarray) -> np.ndarray:
    raise SystemExit(3)


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
