"""Fixtures of the fleet's tests."""

from __future__ import annotations

import pytest
from fault_table import FaultTable

pytest.register_assert_rewrite("fleet_run")


@pytest.fixture
def table() -> FaultTable:
    return FaultTable()
