"""Which functions are the same in two runs, and searches in one folder with different ones."""

from __future__ import annotations

import functools
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from table_evidence import FunctionEvidence, search_in

from latlab.harness import Lab
from latlab.harness.search.accuracy_models import accuracy_source
from latlab.harness.search.candidates import Listed
from latlab.harness.search.code_identity import code_identity
from latlab.harness.search.functions import Function
from latlab.harness.store.errors import StoreWarning
from latlab.search_spaces import get

SPACE = get("nasbench201")


def _of(text: str) -> Callable[[np.ndarray], Any]:
    """Return the function `f` of a program."""
    values: dict[str, Any] = {"np": np, "math": math, "functools": functools, "__name__": "user_program"}
    exec(text, values)  # noqa: S102
    found: Callable[[np.ndarray], Any] = values["f"]
    return found


SAME = "def f(g):\n    return (g == 3).sum(1)"


@pytest.mark.parametrize(
    "other",
    [
        "def f(g):\n    return 100. * (g == 0).sum(1)",
        "def f(g):\n    return (g == 2).sum(1)",
        "def f(g):\n    return (g == 3).prod(1)",
        "def f(g):\n    return (g > 3).sum(1)",
        "def f(g, more=1):\n    return (g == 3).sum(1)",
    ],
)
def test_another_code_is_another_function(other: str) -> None:
    assert code_identity(_of(SAME)) == code_identity(_of(f"# moved\n\n{SAME}")) is not None
    assert code_identity(_of(other)) not in (None, code_identity(_of(SAME)))


@pytest.mark.parametrize(
    "text",
    [
        "def f(g, weight=1): return g[:, 0] * weight",
        "def f(g, *, weight=1): return g[:, 0] * weight",
        "def made(weight):\n    return lambda g: g[:, 0] * weight\nf = made(1)",
        "def made(weights):\n    return lambda g: g @ weights\nf = made(np.arange(6) * 1)",
        "def made(weights):\n    return lambda g: g @ [weights[0]['a']] * 6\nf = made([{'a': 1, 'b': {3, 4}}])",
        "WEIGHT = 1\ndef f(g): return g[:, 0] * WEIGHT",
        "def worth(g): return g[:, 0] * 1\ndef f(g): return worth(g)",
        "def worth(g): return g[:, 0] * 1\ndef made(one):\n    return lambda g: one(g)\nf = made(worth)",
        "def worth(g, weight): return g[:, 0] * weight\nf = functools.partial(worth, weight=1)",
        "def f(g):\n    def inner(row): return row[0] * 1\n    return [inner(row) for row in g]",
        "def f(g): return [1 if row[0] in {'a', 'b', 2} else math.sqrt(4) for row in g]",
        "TABLE = {(row, 0, 0): 70.5 for row in range(15625)}\ndef f(g): return [TABLE[tuple(row)] + 1 for row in g]",
        "def f(g, depth=1): return f(g, 0) if depth else g[:, 0]",
    ],
)
def test_values_count_as_code_does(text: str) -> None:
    found = code_identity(_of(text))
    assert found == code_identity(_of(text)) is not None
    assert code_identity(_of(text.replace("1", "7"))) not in (None, found)


def test_the_identity_is_the_same_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\nfrom math import log\nNAMES = {'x', 'y', 'z', ('a', frozenset({'b', 'c'}))}\n"
        "def f(g, a=(1, 2)):\n    return np.exp(g).mean(1) * log(2) + len(NAMES & {'x', 'w', 'v'}) + len(a + (1, 2))\n"
    )
    program = "import mine; from latlab.harness.search.code_identity import code_identity as c; print(c(mine.f))"
    said = {
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        for _ in range(2)  # the second one has compiled code, and another seed of hashes
    }
    assert len(said) == 1
    assert "None" not in said.pop()


class _Model:
    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, genes: np.ndarray) -> np.ndarray:
        return np.asarray(self.weight * genes[:, 0])


def test_what_cannot_be_known_says_so_and_begins_afresh() -> None:
    model = _Model(2.0)
    for function in (model, model.__call__, lambda genes: model(genes), functools.partial(lambda m, g: m(g), model)):
        with pytest.warns(StoreWarning, match=r"every search with it begins afresh\. .* module:function"):
            source = accuracy_source(function, SPACE)
        with pytest.warns(StoreWarning):
            assert accuracy_source(function, SPACE).identity != source.identity
        assert source(SPACE.genes(SPACE.sample(3, 0))).shape == (3,)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        accuracy_source(lambda genes: genes[:, 0], SPACE)


def test_a_named_function_knows_the_functions_that_it_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine_named.py").write_text("from helper_named import worth\ndef accuracy(genes):\n    return worth(genes)\n")
    program = (
        "from latlab.harness.search.accuracy_models import accuracy_source as a; from latlab.search_spaces import get;"
        "print(a('mine_named:accuracy', get('nasbench201')).identity)"
    )
    said = []
    for column in (0, 0, 11):
        Path("helper_named.py").write_text(f"def worth(genes):\n    return genes[:, {column} % 6]\n")
        found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        said.append(found.stdout)
    assert said[0] == said[1] != said[2]


def test_another_function_in_the_same_folder_has_accuracies_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("inventory.yaml").write_text("devices:\n  toy: {transport: simulated, kind: ideal}\n")
    archs = SPACE.sample(60, 3)
    Path("some.txt").write_text("\n".join(arch.text for arch in archs) + "\n")
    lab = Lab("latlab.db", inventory="inventory.yaml")
    lab.measure("toy", space="nasbench201", archs=[arch.text for arch in archs[:6]])
    genes = SPACE.genes(archs)
    for function in (lambda g: (g == 3).sum(1), lambda g: 100.0 * (g == 0).sum(1)):
        result = lab.search(
            "toy",
            space="nasbench201",
            max_latency_ms=9,
            measure=False,
            out="x",
            candidates="some.txt",
            predictor="ridge",
            accuracy=function,
        )
        known = dict(zip([arch.text for arch in archs], function(genes).tolist(), strict=True))
        assert {one.arch: one.accuracy for one in result.front} == {one.arch: known[one.arch] for one in result.front}


def test_a_function_whose_file_has_changed_is_asked_again(tmp_path: Path) -> None:
    asked: list[int] = []
    genes = SPACE.genes(SPACE.sample(60, 3))
    file = tmp_path / "weight.txt"

    def from_file(genes: np.ndarray) -> np.ndarray:
        asked.append(len(genes))
        return np.asarray(float(file.read_text()) * (genes == 3).sum(1))

    def latency(genes: np.ndarray) -> np.ndarray:
        return np.asarray(1.0 + genes.sum(axis=1) / 10)

    for weight, forgets in ((1.0, False), (1.0, False), (2.0, True)):
        file.write_text(str(weight))
        evidence = FunctionEvidence(SPACE, latency)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", StoreWarning)
            search = search_in(tmp_path / "x", evidence, Function("from_file", from_file, "f"), Listed(genes), 3.0, 0)
            result = search.run()
        assert any("are forgotten" in str(one.message) for one in said) == forgets
        assert result.front
        assert all(one.accuracy == weight * SPACE.parse(one.arch).genes.count(3) for one in result.front)
    assert asked == [60, 5, 5, 60]
