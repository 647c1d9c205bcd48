"""A broken package of somebody else is named, and breaks nothing that does not use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from latlab import predictors, search_spaces
from latlab.harness.errors import BadInputError
from latlab.harness.inventory import inventory
from latlab.harness.inventory.inventory import load_inventory
from latlab.harness.transports import UnknownTransportError, get

MODULE = """
class NoConfig:
    pass
"""


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with an entry point in each group, none of which can be loaded."""
    info = tmp_path / "broken_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n")
    lines = ["[latlab.transports]", "absent = nosuchpackage.mod:X", "noconfig = brokenplugin:NoConfig"]
    lines += ["[latlab.search_spaces]", "absent = nosuchpackage.mod:X"]
    lines += ["[latlab.predictors]", "absent = nosuchpackage.mod:X"]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "brokenplugin.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(inventory, "_file_model", inventory._file_model.__wrapped__)
    return tmp_path


def test_other_devices_can_be_used(broken: Path) -> None:
    path = broken / "inventory.yaml"
    path.write_text("devices:\n  toy: {transport: simulated, kind: ideal}\n")
    assert "toy" in load_inventory(path).devices


@pytest.mark.parametrize(("name", "why"), [("absent", "nosuchpackage"), ("noconfig", "no DeviceConfig")])
def test_a_device_of_a_broken_transport_names_the_package(broken: Path, name: str, why: str) -> None:
    with pytest.raises(UnknownTransportError, match=why):
        get(name)
    path = broken / "inventory.yaml"
    path.write_text(f"devices:\n  mine: {{transport: {name}}}\n")
    with pytest.raises(BadInputError, match=why) as caught:
        load_inventory(path)
    assert "line 2" in str(caught.value)


def test_a_broken_space_and_a_broken_predictor_are_named(broken: Path) -> None:
    with pytest.raises(search_spaces.UnknownSpaceError, match="nosuchpackage"):
        search_spaces.get("absent")
    with pytest.raises(predictors.UnknownPredictorError, match="nosuchpackage"):
        predictors.create("absent", search_spaces.get("nasbench201"))
