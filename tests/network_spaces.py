"""The spaces whose networks tests build: one of each kind of network, since building and exporting take long.

Networks that generate sequences have tests of their own (`test_hat_networks.py`, `test_autoregressive.py`): their
weights alone are 70 MB and more.
"""

from __future__ import annotations

from latlab.search_spaces import get, names

__all__ = ["NETWORK_SPACES"]

_SAME_CODE = {"compofa", "compofa-elastic", "ofa-mobilenetv3-w1.2"}
"""Spaces whose networks the code of `ofa-mobilenetv3` builds."""
NETWORK_SPACES = tuple(
    name for name in names(buildable=True) if name not in _SAME_CODE and not get(name).autoregressive
)
