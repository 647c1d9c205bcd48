"""Two targets compared by the labels of the same networks: correlation, ratio, and networks that change their rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from latlab.harness.errors import BadInputError
from latlab.harness.fleet.failures import TargetFailure
from latlab.harness.statistics.rank_changes import MedianRatio, certain_reversals, median_ratio, ranks
from latlab.harness.statistics.reliability import Retest, retest
from latlab.harness.store.vocabulary import Status

__all__ = ["TargetComparison", "compare_targets"]


@dataclass(frozen=True)
class TargetComparison:
    """Networks of one space on two targets."""

    first: str
    second: str
    space: str
    networks: pd.DataFrame
    """One row for each network with a label on both: arch, first_ms, first_stderr_ms, second_ms, second_stderr_ms,
    ratio, first_rank, second_rank, reversals (`rank_changes.certain_reversals`)."""
    agreement: Retest
    """Rank correlation, with its bootstrap interval over networks."""
    ratio: MedianRatio
    """Of second / first."""
    failed: int
    """Networks without a label on one of the targets."""
    simulated: bool = False
    failures: tuple[TargetFailure, ...] = ()
    """The targets that failed while the networks were measured."""

    @property
    def changed(self) -> pd.DataFrame:
        """The networks that change their rank beyond their error bars, the greatest change first."""
        rows = self.networks.assign(change=(self.networks["second_rank"] - self.networks["first_rank"]).abs())
        rows = rows[(rows["reversals"] > 0) & (rows["change"] > 0)]
        return rows.sort_values(["change", "reversals"], ascending=False, kind="stable").drop(columns="change")

    def to_json(self) -> dict[str, Any]:
        """Return the figures and all networks as JSON values."""

        def number(value: float) -> float | None:
            return value if math.isfinite(value) else None

        agreement = self.agreement
        return {
            "targets": [self.first, self.second],
            "space": self.space,
            "simulated": self.simulated,
            "networks": len(self.networks),
            "failed": self.failed,
            "spearman": number(agreement.spearman),
            "spearman_low": number(agreement.low),
            "spearman_high": number(agreement.high),
            "kendall": number(agreement.kendall),
            "median_ratio": self.ratio.ratio,
            "ratio_low": self.ratio.low,
            "ratio_high": self.ratio.high,
            "rows": self.networks.astype(object).where(self.networks.notna(), None).to_dict("records"),
        }


def compare_targets(
    rows: pd.DataFrame, first: str, second: str, space: str, failures: Sequence[TargetFailure] = ()
) -> TargetComparison:
    """Return the comparison of two targets.

    Args:
        rows: labels of both, columns as in `Store.table`.
        first, second: the targets.
        space: the networks' search space.
        failures: the targets that failed while they were measured.

    Raises:
        BadInputError: if no network has a label on both.
    """
    good = rows[(rows["status"] == Status.OK) & (rows["latency_ms"] > 0)]
    sides = []
    for name, target in (("first", first), ("second", second)):
        side = good[good["target"] == target].drop_duplicates("arch", keep="last").set_index("arch")
        columns = {"latency_ms": f"{name}_ms", "stderr_ms": f"{name}_stderr_ms"}
        sides.append(side[list(columns)].rename(columns=columns).astype(float))
    both = sides[0].join(sides[1], how="inner").reset_index()
    if both.empty:
        why = "".join(f"\n  {failure.target}: {failure.message}" for failure in failures)
        raise BadInputError(
            f"no network of {space} has a label on both {first} and {second}{why}",
            next((failure.hint for failure in failures if failure.hint), None),
        )
    both["ratio"] = both["second_ms"] / both["first_ms"]
    for name in ("first", "second"):
        both[f"{name}_rank"] = ranks(both[f"{name}_ms"])
    both["reversals"] = certain_reversals(
        both["first_ms"], both["first_stderr_ms"], both["second_ms"], both["second_stderr_ms"]
    )
    return TargetComparison(
        first,
        second,
        space,
        both,
        retest(both["first_ms"], both["second_ms"]),
        median_ratio(both["first_ms"], both["second_ms"]),
        failed=int(rows["arch"].nunique()) - len(both),
        simulated=bool(rows["simulated"].any()),
        failures=tuple(failures),
    )
