"""A test of a paired comparison over a real SSH server, which starts a fresh worker for every block."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from fleet_run import ssh_device
from peers.fixtures import Peers

from latlab.harness.compare.result import Question
from latlab.harness.lab import Lab
from latlab.harness.statistics.paired import Outcome

pytestmark = [pytest.mark.peers, pytest.mark.slow]

SMALL, LARGE = (f"|none~0|+|none~0|none~1|+|{op}~0|none~1|none~2|" for op in ("skip_connect", "nor_conv_3x3"))


def test_two_networks_on_another_host(peers: Peers, tmp_path: Path) -> None:
    device = ssh_device(peers.linux_host("alpha"), tmp_path)
    described = {"alpha": device.model_dump(mode="json", exclude_none=True)}
    (tmp_path / "inventory.yaml").write_text(yaml.safe_dump({"devices": described}))
    lab = Lab(tmp_path / "latlab.db", inventory=tmp_path / "inventory.yaml")
    (result,) = lab.compare([LARGE, SMALL], "alpha", space="nasbench201", question=Question(budget_s=120))
    assert result.error is None
    assert result.blocks >= 4
    assert [one.status for one in result.models] == ["ok", "ok"]
    (pair,) = result.pairs
    assert pair.outcome is Outcome.SLOWER
