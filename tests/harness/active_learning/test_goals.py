"""Tests of goals in words: what is read, what is refused, and what is said of where they stand."""

from __future__ import annotations

import pytest

from latlab.harness.active_learning.expected_accuracy import Expected
from latlab.harness.active_learning.stopping import Goal, GoalKind, Standing, ended_by, most_samples, parse_goals
from latlab.harness.errors import BadInputError


@pytest.mark.parametrize(
    ("words", "goal"),
    [
        ("spearman 0.97", Goal(GoalKind.SPEARMAN, 0.97)),
        ("Spearman >= .9", Goal(GoalKind.SPEARMAN, 0.9)),
        ("90% within 5%", Goal(GoalKind.WITHIN, 90, 5)),
        ("90 % within 2.5 %", Goal(GoalKind.WITHIN, 90, 2.5)),
        ("3 min", Goal(GoalKind.TIME, 180)),
        ("45s", Goal(GoalKind.TIME, 45)),
        ("1.5 hours", Goal(GoalKind.TIME, 5400)),
        ("20 samples", Goal(GoalKind.SAMPLES, 20)),
        ("1 sample", Goal(GoalKind.SAMPLES, 1)),
    ],
)
def test_words(words: str, goal: Goal) -> None:
    assert parse_goals(words) == (goal,)
    assert parse_goals(str(goal)) == (goal,), "a goal's own words mean the same"
    assert parse_goals(goal) == (goal,)


def test_several() -> None:
    both = (Goal(GoalKind.SPEARMAN, 0.97), Goal(GoalKind.TIME, 180))
    assert parse_goals("spearman 0.97, 3 min") == parse_goals(["spearman 0.97", "3 min"]) == both
    assert parse_goals("spearman 0.97 or 3 min") == both
    assert parse_goals(["3 min", "3 min"]) == both[1:]
    assert parse_goals(None) == parse_goals([]) == ()
    assert len(parse_goals("90% within 5%, 99% within 10%")) == 2, "two different errors are two questions"


@pytest.mark.parametrize(
    "words",
    [
        "soon",
        "",
        "spearman",
        "spearman 2",
        "spearman 0",
        "spearman 1",
        "spearman -0.5",
        "0 min",
        "-3 min",
        "3 fortnights",
        "1e400 s",
        "0 samples",
        "2.5 samples",
        "90% within 0%",
        "0% within 5%",
        "100% within 5%",
        "90 within 5",
        "spearman 0.97,",
        "spearman nan",
    ],
)
def test_no_goal(words: str) -> None:
    with pytest.raises(BadInputError, match="until") as error:
        parse_goals(words)
    assert error.value.hint is not None
    assert "spearman 0.97" in error.value.hint


def test_most_samples() -> None:
    assert most_samples(None, ()) == 20
    assert most_samples(None, parse_goals("spearman 0.97")) == 100
    assert most_samples(None, parse_goals("spearman 0.97, 7 samples")) == 7
    assert most_samples(30, parse_goals("spearman 0.97")) == 30


def test_where_it_stands() -> None:
    goal = Goal(GoalKind.SPEARMAN, 0.97)
    far = Standing(goal, Expected(0.9, 0.85, 0.94), 0.95, 0.99)
    assert not far.reached
    assert far.sentence() == (
        "Spearman 0.900 (0.850 to 0.940), spearman 0.97 is wanted; "
        "10 more networks would bring 0.950, an exact fit 0.990"
    )
    near = Standing(Goal(GoalKind.WITHIN, 90, 5), Expected(93.2, 90, 96), 97, 99)
    assert near.reached
    assert near.sentence() == "within 5 %: 93 % (90 % to 96 %), 90% within 5% is reached"


@pytest.mark.parametrize(
    ("words", "named"),
    [("3 min, 90 s", "'3 min' and '1.5 min'"), ("spearman .9 or spearman .95", "'spearman 0.9' and 'spearman 0.95'")],
)
def test_two_goals_of_one_kind_are_refused(words: str, named: str) -> None:
    with pytest.raises(BadInputError, match=f"until {named} are two goals of one kind"):
        parse_goals(words)


def test_a_goal_that_cannot_be_is_named_in_the_words_of_its_user() -> None:
    with pytest.raises(BadInputError, match="until '0 min': it takes a time above 0"):
        parse_goals("spearman 0.9, 0 min")


def test_a_goal_that_the_last_labels_under_way_reach_has_ended_the_run() -> None:
    wanted, time = Goal(GoalKind.SPEARMAN, 0.9), Goal(GoalKind.TIME, 60)
    far, near = (Standing(wanted, Expected(value, 0.5, 1.0), 0.95, 0.99) for value in (0.8, 0.92))
    assert ended_by(None, [far]) is None
    assert ended_by(None, [far, near]) is wanted
    assert ended_by(time, [near]) is time
