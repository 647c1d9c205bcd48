"""Sustained load: what becomes of a network's latency when it runs for minutes without a pause."""

from latlab.harness.sustained.run import ROLE, Result, Run, close_earlier, policy_of
from latlab.harness.sustained.windows import Reading, Sustained, Window

__all__ = ["ROLE", "Reading", "Result", "Run", "Sustained", "Window", "close_earlier", "policy_of"]
