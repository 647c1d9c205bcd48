"""inventory.yaml: `local` needs no file; what is wrong in one is named with its line and field."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latlab.harness.errors import BadInputError
from latlab.harness.inventory import Inventory, LocalDevice, load_inventory

ROOT = Path(__file__).parents[2]


def load(tmp_path: Path, text: str) -> Inventory:
    path = tmp_path / "inventory.yaml"
    path.write_text(text)
    return load_inventory(path)


def test_local_needs_no_inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LATLAB_INVENTORY", raising=False)
    assert load_inventory().device("local") == LocalDevice()


def test_the_repository_s_own_file() -> None:
    assert load_inventory(ROOT / "inventory.yaml").device("local").transport == "local"


def test_environment_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("devices: {bench: {transport: local, affinity: [0]}}")
    monkeypatch.setenv("LATLAB_INVENTORY", str(path))
    assert load_inventory().device("bench").affinity == [0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "devices:\n  local:\n    transport: local\n    threads: 3\n",
            "line 4: devices.local.threads: there is no such",
        ),
        ("devices:\n  local:\n    transport: telepathy\n", "line 3: devices.local.transport"),
        ("devices:\n  local:\n    affinity: two\n", "line 3: devices.local.affinity"),
        ("devices:\n  local:\n    affinity: [0, -1]\n", "line 3: devices.local.affinity.1"),
        ("devices: 7\n", "line 1: devices"),
        ("- a\n- b\n", "the file"),
        ("devices:\n  'a b': {}\n", "line 2: 'a b' cannot be a device's name"),
        ("devices:\n  local: [\n", "line 3"),
        ("devices: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInputError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)
    assert "inventory.yaml" in str(caught.value)


def test_unknown_device_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="'pixel' is not in the inventory"):
        load(tmp_path, "devices: {}").device("pixel")


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cannot read"):
        load_inventory(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInputError):
        load_inventory(tmp_path / "b.yaml")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.text(max_size=80),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["devices", "local", "transport", "affinity", "x"]), inner, max_size=3
                )
            ),
            max_leaves=8,
        ).map(repr),
    )
)
def test_anything_is_an_inventory_or_one_clear_error(tmp_path: Path, text: str) -> None:
    with contextlib.suppress(BadInputError):
        load(tmp_path, text.encode("utf-8", "ignore").decode())
