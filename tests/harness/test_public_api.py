"""Python's values, NumPy's, paths and architectures are taken wherever their like is."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from latlab import predictors, search_spaces
from latlab.harness import Lab
from latlab.harness.compare.result import Question
from latlab.harness.errors import BadInputError
from latlab.harness.lab import plain_arguments
from latlab.search_spaces import Architecture, SearchSpace, get

TOY = "toy/onnxruntime/cpu/fp32/t1/b1"
SPACE = get("nasbench201")
ARCHS = SPACE.sample(2, 0)


def _parameters() -> Iterator[tuple[str, str, str]]:
    """Yield method, parameter and annotation of everything public."""
    for kind in (Lab, predictors.Predictor, SearchSpace):
        for name, method in vars(kind).items():
            function = getattr(method, "__func__", method)
            if inspect.isfunction(function) and (name == "__init__" or not name.startswith("_")):
                for parameter in inspect.signature(function).parameters.values():
                    yield f"{kind.__name__}.{name}", parameter.name, str(parameter.annotation)


def test_every_path_may_be_a_string() -> None:
    assert [one for one in _parameters() if "Path" in one[2] and "str" not in one[2]] == []


def test_every_list_of_architectures_takes_both_forms() -> None:
    named = [one for one in _parameters() if one[0].startswith("Lab.") and one[1] in ("arch", "archs", "holdout")]
    assert len(named) >= 5
    assert [one for one in named if "str" in one[2] and "Architecture" not in one[2]] == []


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.chdir(tmp_path)
    Path("inventory.yaml").write_text("devices:\n  toy: {transport: simulated, kind: ideal}\n")
    return Lab("latlab.db", inventory="inventory.yaml", cache=str(tmp_path / "cache"))


def test_architectures_and_numbers_of_numpy(lab: Lab) -> None:
    zero = np.int64(0)
    rows = lab.measure("toy", space="nasbench201", archs=ARCHS, seed=zero).rows
    assert list(rows["arch"]) == [arch.text for arch in ARCHS]
    again = lab.measure("toy", space="nasbench201", archs=[arch.text for arch in ARCHS], seed=0)
    assert not again.ran  # the same campaign
    assert len(lab.measure("toy", space="nasbench201", count=np.int32(2), seed=np.uint8(3)).rows) == 2
    sustained = lab.sustain("toy", space="nasbench201", arch=ARCHS[0], minutes=np.float64(0.05), seed=zero)
    assert sustained.network == ARCHS[0].text
    (compared,) = lab.compare(ARCHS, "toy", space="nasbench201", question=Question(budget_s=1.0), seed=zero)
    assert len(compared.models) == 2
    table = lab.predict(TOY, space="nasbench201", archs=[*ARCHS, "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"])
    assert len(table.table) == 3
    assert len(lab.sources("nasbench201", holdout=ARCHS)) == 0
    assert lab.report(target=TOY, space="nasbench201", out="r.html", seed=zero).name == "r.html"


def test_an_architecture_of_another_space_is_refused(lab: Lab) -> None:
    with pytest.raises(BadInputError, match="of fbnet, not of nasbench201"):
        lab.measure("toy", space="nasbench201", archs=get("fbnet").sample(1))


def test_one_architecture_is_no_list(lab: Lab) -> None:
    with pytest.raises(BadInputError, match="a list"):
        lab.measure("toy", space="nasbench201", archs=ARCHS[0].text)


@pytest.mark.parametrize("name", search_spaces.names())
def test_samples_take_every_kind_of_seed(name: str) -> None:
    space = get(name)
    drawn = space.sample(np.int64(5), np.int64(0))
    assert drawn == space.sample(5, 0) == space.sample(5, random.Random(0))
    generator = np.random.default_rng(0)
    first = space.sample(5, generator)
    assert first == space.sample(5, np.random.default_rng(0))
    assert first != space.sample(5, generator)  # the draw has advanced it
    with pytest.raises(ValueError, match="-1 were asked for"):
        space.sample(-1)
    with pytest.raises(TypeError):
        space.sample(5, 0.5)  # type: ignore[arg-type]


def test_plain_arguments_change_nothing_else() -> None:
    @plain_arguments
    class Echo:
        def all(self, *values: object, **named: object) -> tuple[object, ...]:
            return (*values, *named.values())

    array, arch = np.arange(3), Architecture("x", "y", ())
    found = Echo().all(np.int64(1), array, arch, "text", one=np.float32(0.5), none=None)
    assert [type(one) for one in found] == [int, np.ndarray, Architecture, str, float, type(None)]
    assert found[1] is array
