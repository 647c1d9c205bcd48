"""What becomes of targets that fail while others go on: each with its reason, for messages and for Python callers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.fleet.jobs import Job

__all__ = ["TargetFailure", "all_failed", "failures_of"]


@dataclass(frozen=True, slots=True)
class TargetFailure:
    """A target whose job failed, and why."""

    target: str
    message: str
    hint: str | None = None
    """What to do next; None if there is no advice."""

    def __str__(self) -> str:
        return f"{self.target}: {self.message}" + (f"\n{self.hint}" if self.hint else "")

    def to_json(self) -> dict[str, Any]:
        """Return the failure as JSON values; `error` is its message."""
        return {"target": self.target, "error": self.message, "hint": self.hint}


def failures_of(jobs: Sequence[Job]) -> tuple[TargetFailure, ...]:
    """Return the failures among jobs that have run, in the order of the jobs."""
    return tuple(_failure(job, job.error) for job in jobs if job.error is not None)


def all_failed(jobs: Sequence[Job]) -> LatlabError:
    """Return the error for jobs of which every one failed: the only one's own, or one that tells all.

    It is a `BadInputError` only if all of the errors are.
    """
    errors = [job.error for job in jobs if job.error is not None]
    if len(errors) == 1 and isinstance(errors[0], LatlabError):
        return errors[0]
    kind = BadInputError if all(isinstance(error, BadInputError) for error in errors) else LatlabError
    told = "\n".join(f"  {failure.target}: {failure.message}" for failure in failures_of(jobs))
    hints = dict.fromkeys(one.hint for one in failures_of(jobs) if one.hint)
    return kind(f"all {len(errors)} targets failed:\n{told}", "\n".join(hints) or None)


def _failure(job: Job, error: Exception) -> TargetFailure:
    name = str(job.target)
    if not isinstance(error, LatlabError):
        return TargetFailure(name, str(error))
    return TargetFailure(name, error.message.removeprefix(f"device {job.target.device}: "), error.hint)
