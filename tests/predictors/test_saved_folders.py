"""Folders that an earlier version saved load with the same predictions; others say that they are to be fitted again.

`fixtures/version_0_1` was written by latlab 0.1.0 (commit 2bc7783): three predictors fitted to 12 labels of made-up
devices, `roost` also to two made-up source devices, with their predictions for six architectures. The model of `roost`
was another one then; `fixtures/edition_2` has the same labels and sources in the model of today, and its prior is of
the layers of `hat-encoder` as they are counted since its networks can be built.
"""

from __future__ import annotations

import json
import shutil
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from latlab.predictors import Predictor
from latlab.search_spaces import SearchSpace, get

FIXTURES = Path(__file__).parent / "fixtures"
FOLDERS = {
    "roost": FIXTURES / "edition_2" / "roost",
    "ridge": FIXTURES / "version_0_1" / "ridge",
    "lookup": FIXTURES / "version_0_1" / "lookup",
}
SPACES = {"roost": "hat-encoder", "ridge": "fbnet", "lookup": "nasbench201"}


def load(folder: Path, name: str, space: SearchSpace) -> Predictor:
    (point,) = entry_points(group="latlab.predictors", name=name)
    predictor: Predictor = point.load().load(folder, space)
    return predictor


@pytest.fixture(params=sorted(SPACES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def space(name: str) -> SearchSpace:
    return get(SPACES[name])


@pytest.fixture
def folder(name: str, tmp_path: Path) -> Path:
    """A copy of an old folder, to be damaged."""
    return Path(shutil.copytree(FOLDERS[name], tmp_path / name))


def test_an_old_folder_predicts_what_it_predicted(name: str, space: SearchSpace) -> None:
    expected = json.loads((FOLDERS[name] / "expected.json").read_text())
    prediction = load(FOLDERS[name], name, space).predict([space.parse(text) for text in expected["archs"]])
    for field in ("mean_ms", "lower_ms", "upper_ms"):
        # Synthetic devices and fits are computed again: other builds of BLAS round differently.
        np.testing.assert_allclose(getattr(prediction, field), expected[field], rtol=1e-4)


def test_a_folder_of_an_earlier_model_is_to_be_fitted_again() -> None:
    with pytest.raises(ValueError, match=r"its model .* is another one.*: fit the predictor again"):
        load(FIXTURES / "version_0_1" / "roost", "roost", get(SPACES["roost"]))


def test_every_array_is_needed(name: str, space: SearchSpace, folder: Path) -> None:
    path = folder / f"{name}.safetensors"
    whole = load_file(path)
    for missing in whole:
        save_file({key: array for key, array in whole.items() if key != missing}, path)
        with pytest.raises(ValueError, match=f"{missing}.*fit the predictor again"):
            load(folder, name, space)


def test_labels_of_other_architectures_are_to_be_fitted_again(name: str, space: SearchSpace, folder: Path) -> None:
    path = folder / f"{name}.safetensors"
    arrays = load_file(path)
    save_file({**arrays, "genes": np.ascontiguousarray(arrays["genes"][:, :-1])}, path)
    with pytest.raises(ValueError, match="fit the predictor again"):
        load(folder, name, space)


@pytest.mark.parametrize("damage", ["{", "[]", "{}"])
def test_damaged_facts_are_to_be_fitted_again(name: str, space: SearchSpace, folder: Path, damage: str) -> None:
    (folder / f"{name}.json").write_text(damage)
    with pytest.raises(ValueError, match="fit the predictor again"):
        load(folder, name, space)


def test_damaged_arrays_are_to_be_fitted_again(name: str, space: SearchSpace, folder: Path) -> None:
    path = folder / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="fit the predictor again"):
        load(folder, name, space)


@pytest.mark.parametrize(
    ("name", "fact", "value"),
    [("roost", "prior", "0" * 16), ("roost", "options", {"colour": 1}), ("ridge", "groups", [])],
)
def test_facts_of_another_version_are_to_be_fitted_again(fact: str, value: object, name: str, folder: Path) -> None:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), fact: value}))
    with pytest.raises(ValueError, match=r"this version of latlab .*: fit the predictor again"):
        load(folder, name, get(SPACES[name]))


def test_a_folder_without_the_predictor_names_the_missing_file(name: str, space: SearchSpace, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{name}.json is missing"):
        load(tmp_path, name, space)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is missing"):
        load(tmp_path / "file", name, space)


def test_a_folder_without_its_arrays_names_them(name: str, space: SearchSpace, folder: Path) -> None:
    (folder / f"{name}.safetensors").unlink()
    with pytest.raises(ValueError, match=rf"{name}\.safetensors is missing"):
        load(folder, name, space)
