"""Tests that the predictor of every command learns from the sources before it sees its target."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from files import latencies, table_file

from latlab import predictors
from latlab.harness import Lab
from latlab.harness.active_learning import fitted_predictor
from latlab.harness.active_learning.holdout import holdout_of
from latlab.harness.active_learning.loop import ClosedLoop
from latlab.harness.active_learning.predictor_factory import PredictorOptions, parse_facts, predictor_for
from latlab.harness.cli.main import main
from latlab.harness.errors import BadInputError
from latlab.harness.importers.read import read_sources
from latlab.harness.report import build as reporting
from latlab.harness.store.sources import keep
from latlab.predictors import Archs, Prediction, SourceDevice
from latlab.predictors.ridge import Ridge
from latlab.search_spaces import Architecture, SearchSpace, get

SPACE = get("nasbench201")
ARCHS = SPACE.sample(30)


class Student(Ridge):
    """A predictor that records what it is given and predicts the sources' mean where nothing was measured."""

    name = "student"
    made: list[Student] = []  # noqa: RUF012

    def __init__(self, space: SearchSpace, *, seed: int = 0, facts: Mapping[str, float] | None = None) -> None:
        self.facts = facts
        self.sources: list[SourceDevice] = []
        self.pretrained = 0
        super().__init__(space, seed=seed)
        self.made.append(self)

    def pretrain(self, sources: Sequence[SourceDevice]) -> None:
        self.sources = list(sources)
        self.pretrained += 1
        if any(len(source.genes) < 5 for source in sources):
            raise ValueError("five labels, please")
        super().pretrain(sources)

    def predict(self, archs: Archs) -> Prediction:
        if len(self._support) or not self.sources:
            return super().predict(archs)
        mean = np.full(len(archs), np.mean([source.latency_ms.mean() for source in self.sources]))
        return Prediction(mean, mean, mean / 10, mean * 10)


class Demanding(Student):
    name = "demanding"

    def wanted(self) -> tuple[Architecture, ...]:
        return self.space.references()


@pytest.fixture(autouse=True)
def students(monkeypatch: pytest.MonkeyPatch) -> list[Student]:
    """Install the predictors `student` and `demanding`; return the list of those that commands make."""
    own: dict[str, Any] = {"student": Student, "demanding": Demanding}
    create = predictors.create

    def create_ours(name: str, space: SearchSpace, *, seed: int = 0, **options: Any) -> predictors.Predictor:
        return own[name](space, seed=seed, **options) if name in own else create(name, space, seed=seed, **options)

    monkeypatch.setattr(predictors, "create", create_ours)
    monkeypatch.setattr(Student, "made", [])
    return Student.made


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    (tmp_path / "inventory.yaml").write_text("devices:\n  toy: {transport: simulated, kind: pi4}\n")
    made = Lab(tmp_path / "latlab.db", inventory=tmp_path / "inventory.yaml")
    path = table_file(tmp_path / "gpu.csv", {"arch": [a.text for a in ARCHS], "gpu": latencies(ARCHS)})
    keep(made.store, read_sources([path]))
    return made


def test_onboard_report_and_predict_learn_from_the_sources(
    lab: Lab, tmp_path: Path, students: list[Student], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitted_predictor, "whole_space", lambda space: ARCHS)
    monkeypatch.setattr(reporting, "SPACE_SAMPLE", 20)
    asked = PredictorOptions(name="student", facts={"cores": 4})
    result = lab.onboard("toy", space="nasbench201", budget=4, holdout=2, predictor=asked, seed=5, out=tmp_path / "out")
    used = next(one for one in students if one.pretrained)
    assert (used.seed, used.facts, used.pretrained) == (5, {"cores": 4}, 1)
    assert result.sources == ("gpu",)
    assert result.to_json()["sources"] == ["gpu"]
    kept = json.loads((tmp_path / "out" / "predictor" / "card.json").read_text())
    assert kept["sources"] == [{"name": "gpu", "architectures": 30}]
    assert (kept["predictor"], kept["seed"], kept["options"]) == ("student", 5, {"cores": 4})
    assert len(kept["sources_sha256"]) == 64

    found = lab.predict("toy", archs=[ARCHS[0].text], predictor=PredictorOptions(name="student"))
    assert found.sources == ("gpu",)
    assert found.support == 4
    assert lab.predict("toy", archs=[ARCHS[0].text], predictor=PredictorOptions(sources="none")).sources == ()
    lab.report(
        target="toy", space="nasbench201", out=tmp_path / "r.html", predictor=PredictorOptions(name="student"), seed=3
    )
    assert (students[-1].seed, [one.name for one in students[-1].sources]) == (3, ["gpu"])
    assert "1 source device from the store: gpu" in (tmp_path / "r.html").read_text()


def test_nothing_measured_is_predicted_from_the_prior_if_it_can(lab: Lab) -> None:
    found = lab.predict(
        "new-board", space="nasbench201", archs=[ARCHS[0].text], predictor=PredictorOptions(name="student")
    )
    table = found.table
    assert found.support == 0
    assert table["upper_ms"].iloc[0] > 50 * table["lower_ms"].iloc[0]
    with pytest.raises(BadInputError, match="and the predictor ridge needs some") as error:
        lab.predict("new-board", space="nasbench201", archs=[ARCHS[0].text], predictor=PredictorOptions(name="ridge"))
    assert "latlab onboard new-board" in str(error.value.hint)
    with pytest.raises(BadInputError, match="has no measurements of new-board"):
        lab.predict("new-board", archs=[ARCHS[0].text], predictor=PredictorOptions(name="student"))
    with pytest.raises(BadInputError, match="has no measurements of a/tflite"):
        lab.predict("a/tflite/cpu/fp32/t1/b1", archs=[ARCHS[0].text], predictor=PredictorOptions(name="student"))


def test_facts_are_for_those_that_take_them() -> None:
    assert parse_facts(["cores=4", "clock_ghz=1.5"]) == {"cores": 4.0, "clock_ghz": 1.5}
    for wrong in ("cores", "cores=", "cores=-1", "cores=nan", "=4", "a b=1"):
        with pytest.raises(BadInputError, match="is no fact"):
            parse_facts([wrong])
    assert isinstance(predictor_for(PredictorOptions("student", facts={"cores": 4}), SPACE), Student)
    with pytest.raises(BadInputError, match="ridge takes no facts"):
        predictor_for(PredictorOptions("ridge", facts={"cores": 4}), SPACE)


def test_sources_that_a_predictor_cannot_use_are_told() -> None:
    few = SourceDevice("few", SPACE.genes(ARCHS[:3]), np.ones(3))
    with pytest.raises(BadInputError, match="student cannot learn from 1 source devices: five labels, please"):
        predictor_for(PredictorOptions("student"), SPACE, sources=[few])


# What a predictor asks for is measured first


def test_what_is_wanted_comes_first_and_as_it_was_asked_for() -> None:
    predictor = Demanding(SPACE)
    wanted = [arch.text for arch in predictor.wanted()]
    holdout = holdout_of(SPACE, 300, 0, predictor.wanted())
    assert len(holdout) == 300
    assert not {SPACE.canonical(arch) for arch in holdout} & {SPACE.canonical(arch) for arch in predictor.wanted()}
    assert holdout_of(SPACE, 20, 0, predictor.wanted()) == holdout[:20]
    loop = ClosedLoop(SPACE, predictor, budget=14, exclude=holdout)
    proposed = []
    for text in loop.proposals():
        proposed.append(text)
        loop.record(text, "ok", latencies([SPACE.parse(text)])[0], 0.0)
    assert proposed[:10] == wanted
    assert len(set(proposed)) == 14
    assert [arch.text for arch in loop.support()[:10]] == wanted
    forms = [SPACE.canonical(SPACE.parse(text)) for text in proposed]
    assert not set(forms[10:]) & set(forms[:10])


def test_one_that_failed_is_not_asked_for_again() -> None:
    loop = ClosedLoop(SPACE, Demanding(SPACE), budget=12)
    for text in loop.proposals():
        ok = text != SPACE.references()[0].text
        loop.record(text, "ok" if ok else "crash", 1.0 if ok else None, 0.0)
    assert (loop.measured, loop.failed) == (12, 1)


def test_a_budget_below_what_is_wanted_is_refused(lab: Lab) -> None:
    with pytest.raises(BadInputError, match="demanding needs 10 architectures of its own choice, the budget is 9"):
        lab.onboard("toy", space="nasbench201", budget=9, predictor=PredictorOptions(name="demanding"))


def test_the_learning_curve_leaves_the_predictor_as_it_was() -> None:
    loop = ClosedLoop(SPACE, Student(SPACE), budget=0)
    for arch in ARCHS[:8]:
        loop.record(arch.text, "ok", latencies([arch])[0], 0.0)
    loop.fit(always=True)
    before = loop.predict(ARCHS).mean_ms
    assert len(loop.learning_curve([], [])) == 6
    assert np.allclose(loop.predict(ARCHS).mean_ms, before)


# On the command line


def test_commands_say_what_the_prior_was(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "predict",
        "--target",
        "board",
        "--space",
        "nasbench201",
        "--arch",
        ARCHS[0].text,
        "--predictor",
        "student",
    ]
    for more, code, on_out, on_err in (
        (["--fact", "cores=4"], 0, "prior: 1 source device from the store: gpu", "nothing was measured on board"),
        (["--sources", "gpu", "--json"], 0, '"measured": false', "nothing was measured on board"),
        (["--sources", "none"], 2, "", "needs some"),
        (["--sources", "moon"], 2, "", "no source moon"),
        (["--fact", "cores"], 2, "", "is no fact"),
    ):
        monkeypatch.setattr(sys, "argv", ["latlab", *words, *more])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert ended.value.code == code, err
        assert on_out in out
        assert on_err in err
