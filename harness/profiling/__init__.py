"""Where the time of one network goes: the time of each operator, and how their sum compares with an inference."""

from latlab.harness.profiling.run import ProfileRun
from latlab.harness.profiling.summary import NetworkProfile

__all__ = ["NetworkProfile", "ProfileRun"]
