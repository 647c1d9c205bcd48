"""Folders of a search whose files are damaged: none ends a search, and what is damaged is not used."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaged_archives import archives_damaged
from table_evidence import TARGET, FunctionEvidence, search_in

from latlab.harness.search.accuracy_models import Function
from latlab.harness.search.candidates import Listed
from latlab.harness.search.rounds import Search
from latlab.harness.search.state import SearchFolder
from latlab.harness.store.errors import StoreWarning
from latlab.search_spaces import get

SPACE = get("nasbench201")
ARCHS = SPACE.sample(40, 3)
GENES = SPACE.genes(ARCHS)
SOURCE = Function("worth", lambda genes: 1.0 * (genes == 3).sum(axis=1))


def _search(folder: Path) -> Search:
    evidence = FunctionEvidence(SPACE, lambda genes: 1.0 + genes.sum(axis=1) / 10)
    return search_in(folder, evidence, SOURCE, Listed(GENES), 3.0, 4)


def _opened(folder: Path) -> tuple[SearchFolder, list[str]]:
    """Return the folder of the search, as a further run finds it, and the warnings."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", StoreWarning)
        found = _search(folder).folder
    return found, [str(one.message) for one in said]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """Return the state and the accuracies that a search has left."""
    folder = tmp_path_factory.mktemp("search")
    _search(folder).run()
    found, said = _opened(folder)
    assert found.continues
    assert len(found.accuracies) == len({row.tobytes() for row in GENES})
    assert said == []
    return (folder / "state.json").read_bytes(), (folder / "accuracies.npz").read_bytes()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, value) for name in ("round", "spent", "onboarded") for value in (-1, 1.5, True, "3", None, 10**400)),
        *(("measuring_s", value) for value in (float("nan"), float("inf"), -1.0, 1e300, "3", None)),
        *((name, value) for name in ("onboarding", "asked", "population") for value in ("abc", [5], {}, [None], [[]])),
        ("onboarding", ["nowhere"]),
        ("onboarding", ["\x1b[31mred"]),
        ("asked", ["0_1_2"]),
        ("asked", [ARCHS[0].text] * 2),
        ("population", ["0_1_2"]),
        ("again", 1),
        ("round", 1000),
        ("spent", 0),
        ("colour", "red"),
    ],
)
def test_values_that_no_search_has_written_begin_it_afresh(
    tmp_path: Path, finished: tuple[bytes, bytes], field: str, value: Any
) -> None:
    good = json.loads(finished[0])
    assert good["round"] > 0
    (tmp_path / "state.json").write_text(json.dumps(good | {field: value}))
    (tmp_path / "accuracies.npz").write_bytes(finished[1])
    found, said = _opened(tmp_path)
    assert not found.continues
    assert (found.progress.spent, found.progress.round, found.accuracies) == (0, 0, {})
    (sentence,) = said
    assert "state.json is damaged (" in sentence
    assert sentence.endswith("so the search begins afresh.")
    assert sentence.isprintable()


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "[" * 100_000, '{"round": 1}', "\xff\xfe", '{"key": '])
def test_a_state_that_is_none_begins_afresh(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_bytes(text.encode("latin-1"))
    found, said = _opened(tmp_path)
    assert not found.continues
    assert "so the search begins afresh" in said[0]


def test_good_values_and_other_searches_are_no_damage(tmp_path: Path, finished: tuple[bytes, bytes]) -> None:
    good = json.loads(finished[0])
    more = {"onboarding": [TARGET], "onboarded": 0, "asked": [ARCHS[1].text], "again": True, "measuring_s": 3.5}
    for values, continues in (({}, True), (more, True), ({"onboarding": []}, True), ({"key": "other"}, False)):
        (tmp_path / "state.json").write_text(json.dumps(good | values))
        found, said = _opened(tmp_path)
        assert found.continues == continues
        assert said == []


def test_damaged_accuracies_are_asked_for_again(tmp_path: Path, finished: tuple[bytes, bytes]) -> None:
    (tmp_path / "state.json").write_bytes(finished[0])
    path = tmp_path / "accuracies.npz"
    path.write_bytes(finished[1])
    with np.load(path) as arrays:
        values = dict(arrays)
    count = len(values["genes"])

    def check() -> None:
        found, said = _opened(tmp_path)
        assert found.continues
        assert found.accuracies == {}
        (sentence,) = said
        assert "accuracies.npz is damaged (" in sentence
        assert "so accuracies are asked for again" in sentence

    for changes in (
        {"accuracy": np.zeros((count, 2))},
        {"accuracy": np.zeros(count - 1)},
        {"accuracy": np.float64(3)},
        {"accuracy": np.full(count, "3")},
        {"accuracy": np.zeros(count, complex)},
        {"accuracy": np.full(count, None)},
        {"genes": values["genes"][:, :5]},
        {"genes": values["genes"] + 99},
        {"genes": values["genes"].astype(float)},
        {"key": np.array(3)},
    ):
        np.savez(path, **(values | changes))
        check()
    np.savez_compressed(path, **values)
    assert len(_opened(tmp_path)[0].accuracies) == count
    for damaged in archives_damaged(path.read_bytes()):
        path.write_bytes(damaged)
        check()
    with pytest.warns(StoreWarning, match="asked for again"):
        assert _search(tmp_path).run().front


def test_accuracies_that_no_source_says_are_asked_for_again(tmp_path: Path, finished: tuple[bytes, bytes]) -> None:
    (tmp_path / "state.json").write_bytes(finished[0])
    path = tmp_path / "accuracies.npz"
    path.write_bytes(finished[1])
    with np.load(path) as arrays:
        values = dict(arrays)
    for wrong in (np.nan, np.inf, 1e308):
        np.savez(path, **(values | {"accuracy": np.full(len(values["accuracy"]), wrong)}))
        assert _opened(tmp_path)[0].accuracies == {}
        result = _search(tmp_path).run()
        assert result.front
        assert all(one.accuracy == SPACE.parse(one.arch).genes.count(3) for one in result.front)
