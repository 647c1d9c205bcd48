"""Sustained load: what becomes of a network's latency when it runs for minutes without a pause."""

from latlab.harness.sustained.run import Result, Run, close_earlier, policy_of
from latlab.harness.sustained.windows import Sustained, SustainedPass, Window

__all__ = ["Result", "Run", "Sustained", "SustainedPass", "Window", "close_earlier", "policy_of"]
