"""The end of a command on several targets of which some failed: each is named with its reason, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from latlab.harness.cli.options import print_json

if TYPE_CHECKING:
    from latlab.harness.fleet.failures import TargetFailure

__all__ = ["ALL_FAILED", "SOME_FAILED", "end_with_failures"]

ALL_FAILED = 1
"""Exit code if nothing came of the command."""
SOME_FAILED = 3
"""Exit code if some of several targets failed: the others have their results. 2 is that of bad input."""


def end_with_failures(failures: Sequence[TargetFailure], succeeded: int, *, as_json: bool) -> None:
    """Print the targets that failed on stderr, for `--json` also as lines on stdout, and exit with their code.

    It returns if none failed.

    Args:
        failures: the targets that failed.
        succeeded: number of targets that have a result.
        as_json: whether the results are JSON lines.
    """
    if not failures:
        return
    if as_json:
        for one in failures:
            print_json(one.to_json())
    several = len(failures) + succeeded > 1
    if several:
        print(f"latlab: {len(failures)} of {len(failures) + succeeded} targets failed:", file=sys.stderr)
    for one in failures:
        print(f"  {one.target}: {one.message}" if several else f"latlab: {one.message}", file=sys.stderr)
    for hint in dict.fromkeys(one.hint for one in failures if one.hint):
        print(hint, file=sys.stderr)
    raise typer.Exit(SOME_FAILED if succeeded else ALL_FAILED)
