"""Tests of what `show` says of stores beyond their labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from latlab.harness import Lab
from latlab.harness.compare.result import Question
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.store.distributions import LABEL_COLUMNS, with_distributions
from latlab.harness.terminal.results import P99, show_labels, show_store
from latlab.harness.transports.simulated.config import SimulatedDevice

ONE = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"
TWO = "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = Lab(tmp_path / "s.db")
    made.inventory = Inventory({"sim": SimulatedDevice(kind="ideal")})
    return made


def test_a_comparison_names_its_networks(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.compare([ONE, TWO], "sim", space="nasbench201", question=Question(budget_s=5))
    show_store(lab.store.path, lab.store.campaigns(), lab.store.table().iloc[:0])
    said = capsys.readouterr().out
    assert "a comparison of" in said
    assert ONE in said
    assert TWO in said


def test_how_a_p99_can_be_had(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The advice that is printed works."""
    (tmp_path / "inventory.yaml").write_text(
        "devices: {sim: {transport: simulated, kind: ideal}}\npolicies: {tails: {base: default, runs: 40}}\n"
    )
    assert "policies: {tails: {base: default, runs: 40}}" in P99
    lab = Lab(tmp_path / "s.db", inventory=tmp_path / "inventory.yaml")
    for policy, hint in (("default", True), ("tails", False)):
        rows = lab.measure("sim", space="nasbench201", archs=[ONE], policy=policy, raw=False).rows
        show_labels(with_distributions(lab.store, rows)[list(LABEL_COLUMNS)])
        assert (P99.partition(",")[0] in capsys.readouterr().out) == hint
