"""When to stop measuring, in the user's words: `spearman 0.97`, `90% within 5%`, `3 min`, `20 samples`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from latlab.harness.active_learning.expected_accuracy import Expected, ExpectedAccuracy
from latlab.harness.errors import BadInputError
from latlab.harness.text import correlation, spoken_duration

__all__ = [
    "FEWEST",
    "MORE",
    "RANKS",
    "Goal",
    "GoalKind",
    "Standing",
    "Until",
    "ended_by",
    "most_samples",
    "parse_goals",
]

FEWEST = 5
"""Labels from which on a predictor's own estimate of its accuracy may end a run."""
MORE = 10
"""Number of further networks for which it is said what they would bring."""
BUDGET, BUDGET_UNTIL = 20, 100
"""The most samples if the user gives none: without goals, and with some."""
HINT = 'Write it like "spearman 0.97", "90% within 5%", "3 min" or "20 samples"; several with commas.'
_NUMBER = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_SECONDS = {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600}
_MOST_SECONDS = 365 * 86400


class GoalKind(StrEnum):
    """What a goal is about."""

    SPEARMAN = "spearman"
    """The rank correlation of predictions with the truth, over the space."""
    WITHIN = "within"
    """The percentage of the space that is predicted to within some percent."""
    TIME = "time"
    """Seconds since the onboarding of the target began."""
    SAMPLES = "samples"
    """The number of networks measured."""


@dataclass(frozen=True)
class Goal:
    """One reason to stop."""

    kind: GoalKind
    value: float
    """A correlation, a percentage of networks, seconds, or a number of networks."""
    percent: float = 0.0
    """For `within`: the error in percent that is still good."""

    def __str__(self) -> str:
        """Return the goal in the words that `parse_goals` reads."""
        match self.kind:
            case GoalKind.SPEARMAN:
                return f"spearman {self.value:g}"
            case GoalKind.WITHIN:
                return f"{self.value:g}% within {self.percent:g}%"
            case GoalKind.TIME:
                return f"{self.value / 60:g} min" if self.value >= 60 else f"{self.value:g} s"
            case _:
                return f"{self.value:.0f} samples"

    @property
    def is_accuracy(self) -> bool:
        """True if the predictor's own estimate decides whether it is reached."""
        return self.kind in (GoalKind.SPEARMAN, GoalKind.WITHIN)

    def expected(self, accuracy: ExpectedAccuracy) -> Expected:
        """Return where a goal of accuracy stands."""
        return accuracy.spearman if self.kind == GoalKind.SPEARMAN else accuracy.within(self.percent)

    def text(self, value: float) -> str:
        """Return a value of what the goal is about, for people."""
        match self.kind:
            case GoalKind.SPEARMAN:
                return correlation(value)
            case GoalKind.WITHIN:
                return f"{value:.0f} %"
            case GoalKind.TIME:
                return spoken_duration(value)
            case _:
                return f"{value:.0f}"


RANKS = Goal(GoalKind.SPEARMAN, 1.0)
"""Perfect ranks: the goal whose standing is told where the user has none."""
Until = str | Goal | Sequence[str | Goal] | None
"""Goals as users give them: words, values, or several of them; None for none."""


@dataclass(frozen=True)
class Standing:
    """Where a run stands with one goal of accuracy."""

    goal: Goal
    now: Expected
    then: float
    """What `MORE` further networks are expected to bring it to."""
    limit: float
    """What an exact fit would bring it to: the rest is noise of the labels, or what the predictor cannot express."""

    @property
    def reached(self) -> bool:
        """Whether the goal is reached."""
        return self.now.value >= self.goal.value

    def sentence(self) -> str:
        """Return where the goal stands, and what more networks would bring."""
        text, goal = self.goal.text, self.goal
        what = "Spearman" if goal.kind == GoalKind.SPEARMAN else f"within {goal.percent:g} %:"
        now = f"{what} {text(self.now.value)} ({text(self.now.low)} to {text(self.now.high)})"
        if self.reached:
            return f"{now}, {goal} is reached"
        more = f"{MORE} more networks would bring {text(self.then)}, an exact fit {text(self.limit)}"
        return f"{now}, {goal} is wanted; {more}"


def parse_goals(until: Until) -> tuple[Goal, ...]:
    """Return the goals that a user has given; the first one that is reached ends a run.

    Args:
        until: words such as `spearman 0.97`, several of them with commas or `or` between, or in a list.

    Raises:
        BadInputError: one of them is no goal, or can never be reached; or two are of one kind.
    """
    if until is None:
        return ()
    given = [until] if isinstance(until, (str, Goal)) else list(until)
    goals: list[Goal] = []
    for one in given:
        for word in [one] if isinstance(one, Goal) else re.split(r",|;|\bor\b", one):
            goal = word if isinstance(word, Goal) else _parsed(word)
            _check(goal, str(word).strip())
            goals.append(goal)
    goals = list(dict.fromkeys(goals))
    known: dict[tuple[GoalKind, float], Goal] = {}
    for goal in goals:
        other = known.setdefault((goal.kind, goal.percent), goal)
        if other is not goal:
            raise BadInputError(
                f"until {str(other)!r} and {str(goal)!r} are two goals of one kind: only one of them can end a run",
                "Leave one out.",
            )
    return tuple(goals)


def ended_by(reached: Goal | None, standings: Sequence[Standing]) -> Goal | None:
    """Return the goal that a finished run has reached; None if its budget ended it.

    Args:
        reached: the goal that has ended the choosing of networks, if one has.
        standings: of the goals of accuracy at the end, when the labels that were under way then are known, too.
    """
    return reached or next((one.goal for one in standings if one.reached), None)


def most_samples(budget: int | None, goals: Sequence[Goal]) -> int:
    """Return the most networks to measure: the budget that is given, else what the goals leave open."""
    if budget is not None:
        return budget
    samples = [int(goal.value) for goal in goals if goal.kind == GoalKind.SAMPLES]
    return min(samples) if samples else BUDGET_UNTIL if goals else BUDGET


def _parsed(word: str) -> Goal:
    text = " ".join(word.lower().split())
    if found := re.fullmatch(rf"spearman ?(?:>=|=|:)? ?{_NUMBER}", text):
        return Goal(GoalKind.SPEARMAN, float(found[1]))
    if found := re.fullmatch(rf"{_NUMBER} ?% within {_NUMBER} ?%", text):
        return Goal(GoalKind.WITHIN, float(found[1]), float(found[2]))
    if found := re.fullmatch(rf"{_NUMBER} ?(s|sec|second|min|minute|h|hour)s?", text):
        return Goal(GoalKind.TIME, float(found[1]) * _SECONDS[found[2]])
    if found := re.fullmatch(r"([0-9]{1,9}) ?(?:samples?|networks?)", text):
        return Goal(GoalKind.SAMPLES, int(found[1]))
    raise BadInputError(f"until {word.strip()!r:.60}: that is no goal", HINT)


def _check(goal: Goal, words: str) -> None:
    """Raise `BadInputError` for a goal, given in these words, that is always or never reached."""
    value = goal.value
    match goal.kind:
        case GoalKind.SPEARMAN:
            good, wanted = 0 < value < 1, "a rank correlation between 0 and 1"
        case GoalKind.WITHIN:
            good, wanted = 0 < value < 100 and 0 < goal.percent < 1000, "percentages between 0 and 100"
        case GoalKind.TIME:
            good, wanted = 0 < value <= _MOST_SECONDS, "a time above 0"
        case _:
            good, wanted = value >= 1, "at least 1 sample"
    if not (good and math.isfinite(value)):
        raise BadInputError(f"until {words!r:.60}: it takes {wanted}", HINT)
