"""Python's values, NumPy's, paths and architectures are taken wherever their like is."""

from __future__ import annotations

import inspect
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from latlab import predictors, search_spaces
from latlab.harness import Lab, load_predictor
from latlab.harness.active_learning.fitted_predictor import FittedPredictor
from latlab.harness.compare.result import Question
from latlab.harness.devices.target_selection import TargetOptions
from latlab.harness.errors import BadInputError
from latlab.harness.exporters import ExportRequest
from latlab.harness.lab.arguments import plain_arguments
from latlab.harness.targets import Target
from latlab.search_spaces import Architecture, SearchSpace, get

TOY = "toy/onnxruntime/cpu/fp32/t1/b1"
SPACE = get("nasbench201")
ARCHS = SPACE.sample(2, 0)


def _parameters() -> Iterator[tuple[str, str, str]]:
    """Yield method, parameter and annotation of everything public."""
    for kind in (Lab, FittedPredictor, predictors.Predictor, SearchSpace):
        for name, method in inspect.getmembers(kind):
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


Archs = Callable[[int], str | Architecture]
Paths = Callable[[str], str | Path]
CALLS: dict[str, Callable[[Lab, Archs, Paths], object]] = {
    "measure": lambda lab, arch, path: lab.measure(
        "toy", space="nasbench201", archs=[arch(0), arch(1)], policy="quick"
    ),
    "import_labels": lambda lab, arch, path: (
        lab.import_labels(path("mine.csv"), "pixel"),
        lab.import_labels([path("mine.csv")], "pixel"),
    ),
    "sustain": lambda lab, arch, path: lab.sustain("toy", space="nasbench201", arch=arch(0), minutes=0.05),
    "profile": lambda lab, arch, path: lab.profile(arch(0), "toy", space="nasbench201"),
    "compare": lambda lab, arch, path: lab.compare(
        [arch(0), arch(1)], "toy", space="nasbench201", question=Question(budget_s=0.2)
    ),
    "compare_targets": lambda lab, arch, path: lab.compare_targets(
        [TOY, Target.parse(TOY.replace("t1", "t4"))], space="nasbench201", archs=[arch(0), arch(1)], policy="quick"
    ),
    "check_baseline": lambda lab, arch, path: lab.check_baseline(
        path("base.db"), 50.0, "toy", networks=[arch(0)], space="nasbench201", policy="quick"
    ),
    "predict": lambda lab, arch, path: lab.predict(Target.parse(TOY), space="nasbench201", archs=[arch(0), arch(1)]),
    "predictor": lambda lab, arch, path: lab.predictor(TOY, space="nasbench201", predictor="kernels")(
        [arch(0), arch(1)]
    ),
    "predict_model": lambda lab, arch, path: lab.predict_model(TOY, path("net.onnx")),
    "encode": lambda lab, arch, path: lab.encode("nasbench201", "totals", archs=[arch(0), arch(1)]),
    "export_models": lambda lab, arch, path: lab.export_models("nasbench201", path("networks"), archs=[arch(0)]),
    "sources": lambda lab, arch, path: lab.sources("nasbench201", exclude_target=TOY, holdout=[arch(0)]),
    "onboard": lambda lab, arch, path: lab.onboard(
        Target.parse(TOY), space="nasbench201", budget=3, policy="quick", out=path("one")
    ),
    "onboard_fleet": lambda lab, arch, path: lab.onboard_fleet(
        [TOY], space="nasbench201", budget=3, predictor="ridge", policy="quick", out=path("many")
    ),
    "search": lambda lab, arch, path: lab.search(
        Target.parse(TOY),
        space="nasbench201",
        max_latency_ms={TOY: 900},
        accuracy=path("acc.csv"),
        candidates=path("some.txt"),
        budget=2,
        policy="quick",
        predictor="ridge",
        out=path("found"),
        export=path("winner"),
    ),
    "report": lambda lab, arch, path: lab.report(
        target=TOY, space="nasbench201", predictor="ridge", out=path("report.html")
    ),
    "quality": lambda lab, arch, path: lab.quality(Target.parse(TOY), space="nasbench201"),
    "targets": lambda lab, arch, path: lab.targets([Target.parse(TOY), "pixel/tflite/cpu/fp32/t1/b1"]),
    "run_jobs": lambda lab, arch, path: lab.run_jobs([]),
}
"""A call of every public method of `Lab`, for architectures and paths in one form."""
FORMS: dict[str, tuple[Archs, Paths]] = {
    "strings": (lambda number: ARCHS[number].text, str),
    "values": (lambda number: ARCHS[number], Path),
}


def test_every_method_is_called() -> None:
    methods = {name for name, _ in inspect.getmembers(Lab, inspect.isfunction) if not name.startswith("_")}
    # embed takes neither architectures nor files, pretrain minutes (`test_pretrained.py`)
    assert methods == {*CALLS, "embed", "pretrain"}


@pytest.mark.parametrize("form", FORMS)
def test_every_method_takes_strings_and_values(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.chdir(tmp_path)
    arch, path = FORMS[form]
    cache = tmp_path_factory.getbasetemp() / "exports-of-both-forms"
    Path("inventory.yaml").write_text(
        "devices:\n  toy: {transport: simulated, kind: ideal, pace: 0}\n  pixel: {transport: simulated, kind: ideal}\n"
    )
    Path("mine.csv").write_text("arch,latency_ms\n" + "".join(f"{one.text},{2 + i}\n" for i, one in enumerate(ARCHS)))
    with Lab(path("base.db"), inventory=path("inventory.yaml"), cache=path(str(cache))).store as base:
        assert base.path == Path("base.db")
    Path("acc.csv").write_text("arch,accuracy\n" + "".join(f"{one.text},{60 + i}\n" for i, one in enumerate(ARCHS)))
    Path("some.txt").write_text("".join(f"{one.text}\n" for one in ARCHS))
    Lab("base.db", cache=cache).measure("toy", space="nasbench201", archs=ARCHS, policy="quick")
    lab = Lab(path("latlab.db"), inventory=path("inventory.yaml"), cache=path(str(cache)))
    made = lab.cache.ensure(ExportRequest("nasbench201", ARCHS[0].text, "onnx"))
    shutil.copy(made.path, "net.onnx")
    for name, call in CALLS.items():
        assert call(lab, arch, path) is not None, name
    predictor = lab.predictor(TOY, space="nasbench201")
    predictor.save(path("saved"))
    loaded = load_predictor(path("saved"))
    for one in (predictor, loaded):
        assert one(arch(0)) == pytest.approx(one([arch(0), ARCHS[1].text])[0])
        assert one.predict(arch(0)).mean_ms == one(ARCHS[0])
        assert list(one.table([arch(0)])["arch"]) == [ARCHS[0].text]
    loaded.to_onnx(path("formula.onnx"))
    Path("written").mkdir()
    loaded.write(path("written"))
    assert load_predictor(path("written")).card == loaded.card


def test_options_of_several_targets(lab: Lab) -> None:
    several = TargetOptions(runtime=["tflite", "onnxruntime"], threads=(1, 4))
    assert [str(one) for one in lab.targets("toy", several)] == [
        f"toy/{runtime}/cpu/fp32/t{threads}/b1" for runtime in ("tflite", "onnxruntime") for threads in (1, 4)
    ]
    assert TargetOptions(threads=[4]) == TargetOptions(threads=4)
    with pytest.raises(BadInputError, match="empty list"):
        TargetOptions(threads=[])
    with pytest.raises(BadInputError, match="--runtime can have one value here, and names 2: tflite, onnxruntime"):
        lab.onboard("toy", space="nasbench201", options=several)


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
