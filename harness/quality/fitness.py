"""Judges whether labels are fit for training a predictor: a grade, its reason, and what to do next.

The measure is the reliability ceiling, the rank correlation that a perfect predictor would have with such labels. For
normal scores a Spearman of s leaves a share of acos(2 sin(pi s / 6)) / pi of all pairs in the wrong order (Kruskal
1958, J. Am. Stat. Assoc. 53, 814-861, with Greiner's relation): 7 % at .97, 14 % at .9. Above .97 the noise is below
the error of the best predictors themselves (published tasks, 20 samples: .92 to .99). Below .9 labels are worse than
those of the noisiest phones in HELP's tables, and a label says little more than a count of operations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from latlab.harness.text import fine_correlation

__all__ = ["ENOUGH", "Fitness", "discordant_percent", "imported_fitness", "judge_fitness"]

FIT, USABLE = 0.97, 0.90
"""Least ceilings of the grades `fit` and `usable`."""
ENOUGH = 20
"""Fewest networks whose ceiling or rank correlation says something about the device."""
FLAGGED = 0.25
"""Share of labels with a verdict above which the device is in doubt. Labels that are only noisy do not count here:
their error bars are part of the ceiling."""
SLOW_PERCENT = 5.0
"""Standard deviation of what labels near each other in time have in common, from which on they are as wrong as a good
predictor."""
APART_PERCENT = 5.0
"""Standard deviation of a network's label from session to session, beyond its error bar, from which on labels depend on
the day as much as on the network: labels of one session cannot be used for another."""
DOMINATES = 1.5
"""If noise between sessions is more than this many times the noise within them, it is the one to reduce."""

REMEDIES = {
    "throttled": "let it cool (a cool-down in the inventory, a fan), or cap its clock below where it throttles",
    "drift": "measure with anchors (--policy default) and let it warm up or cool down first",
    "disturbed": "stop what else runs on the device (`latlab doctor` names it), or give networks a core of their own",
    "bimodal": "fix its clock (governor `performance`), and pin the worker to cores of one kind",
    "noisy": "spend more passes (--policy thorough)",
}
"""Advice for each verdict; the one that most doubtful labels have is given."""
BETWEEN_REMEDY = (
    "sessions differ more than their passes, so that more passes will not help; fix what changes from one to the next "
    "(clock, heat, other programs), or average several (--new-session)"
)


@dataclass(frozen=True)
class Fitness:
    """A grade of labels as training data, with its reason."""

    grade: Literal["fit", "usable", "unfit", "unknown"]
    why: str
    """The reason in one sentence."""
    advice: str = ""
    """The next thing to do; "" if nothing need be done."""

    def __str__(self) -> str:
        return " ".join(part for part in (self.why, self.advice) if part)


def imported_fitness(target: str) -> Fitness:
    """Return the grade of labels that the user has imported: nobody can tell."""
    return Fitness(
        "unknown",
        "These labels were imported: how they were timed, their drift and their noise between sessions cannot be "
        "assessed.",
        f"Measure {ENOUGH} of these networks here (latlab measure {target} --arch ...): then they can be compared.",
    )


def judge_fitness(
    *,
    networks: int,
    ceiling: float,
    verdicts: Mapping[str, int],
    within_percent: float | None,
    between_percent: float | None,
    slow_percent: float,
    slow_ceiling: float,
) -> Fitness:
    """Return the grade of labels, its reason, and what to do next.

    Args:
        networks: number of networks that have a label.
        ceiling: reliability ceiling (Spearman) of one label per network; NaN if no error is known.
        verdicts: number of labels for each verdict ("" for a good one); empty if they were not judged.
        within_percent: typical standard error within a session, in percent of the latency; None if not known.
        between_percent: typical deviation from one session to the next, in percent; None if not known.
        slow_percent: standard deviation of what labels near each other in time have in common; 0 if that is chance.
        slow_ceiling: the ceiling if that is noise, too.
    """
    again = "" if between_percent is not None else "Measure them again some other time (--new-session)"
    if networks < ENOUGH:
        permitted = (
            "" if math.isnan(ceiling) else f"; such labels permit a rank correlation of {fine_correlation(ceiling)}"
        )
        why = f"{networks} networks are too few to tell{permitted}."
        return Fitness(
            "unknown", why if networks > 1 else "One network is too few to tell.", f"Measure {ENOUGH} or more."
        )
    if math.isnan(ceiling):
        return Fitness(
            "unknown", "Nothing is known of these labels' noise.", f"{again or 'Take several passes of each'}."
        )
    doubts = {kind: number for kind, number in verdicts.items() if kind not in ("", "noisy")}
    flagged = sum(doubts.values())
    worst = max(doubts, key=lambda kind: doubts[kind], default="")
    doubtful = bool(flagged) and flagged > FLAGGED * sum(verdicts.values())
    drifting = slow_percent >= SLOW_PERCENT or slow_ceiling < min(FIT, ceiling)
    wrong = f"{discordant_percent(min(ceiling, slow_ceiling)):.0f} % of pairs are in the wrong order"
    drift = (
        f"labels depend on when they were measured, by {slow_percent:.2g} % (a perfect predictor would rank at "
        f"{fine_correlation(slow_ceiling)} with that, at {fine_correlation(ceiling)} without it)"
    )
    apart = between_percent is not None and between_percent >= APART_PERCENT
    if min(ceiling, slow_ceiling) >= USABLE and (slow_percent >= SLOW_PERCENT or apart):
        # A wide space has a high ceiling whatever the noise: usable labels also need a steady device.
        sessions = f"sessions differ by {between_percent:.2g} % beyond their error bars" if apart else ""
        reasons = (f"drift is left in them: {drift}" if slow_percent >= SLOW_PERCENT else "", sessions)
        fitness = Fitness("unfit", f"Not usable yet: {', and '.join(one for one in reasons if one)}.")
    elif min(ceiling, slow_ceiling) < USABLE:
        reason = drift if drifting else f"no predictor can rank better than {fine_correlation(ceiling)}"
        fitness = Fitness("unfit", f"Not fit for training: {wrong}, and {reason}.")
    elif min(ceiling, slow_ceiling) < FIT:
        reason = drift if drifting else f"no predictor can rank better than {fine_correlation(ceiling)}"
        fitness = Fitness("usable", f"Usable, but ranks of near neighbours are noise: {wrong}, and {reason}.")
    elif doubtful or drifting:
        doubt = f"{100 * flagged / max(1, sum(verdicts.values())):.0f} % of the labels are in doubt, mostly {worst}"
        found = ", and ".join(text for text, holds in ((doubt, doubtful), (drift, drifting)) if holds)
        fitness = Fitness("usable", f"Usable, with care: the ceiling is {fine_correlation(ceiling)}, but {found}.")
    else:
        unknown = f"{again}: noise from one session to the next is not in this yet." if again else ""
        return Fitness(
            "fit", f"Fit for training: a perfect predictor would rank at {fine_correlation(ceiling)}.", unknown
        )
    if doubtful:
        advice = REMEDIES[worst]
    elif drifting:
        advice = REMEDIES["drift"]
    elif apart or (between_percent and within_percent and between_percent > DOMINATES * within_percent):
        advice = BETWEEN_REMEDY
    else:
        advice = REMEDIES["noisy"]
    return replace(fitness, advice=f"To do: {advice}.{f' {again}.' if again else ''}")


def discordant_percent(spearman: float) -> float:
    """Return the percentage of pairs in the wrong order, for normal scores with this Spearman correlation."""
    pearson = 2 * math.sin(math.pi * max(-1.0, min(1.0, spearman)) / 6)
    return 100 * math.acos(max(-1.0, min(1.0, pearson))) / math.pi
