"""The sentence that compares the noise of several targets."""

from __future__ import annotations

from latlab.harness.quality.comparison import LabelNoise, in_words

PI = LabelNoise("pi", between=0.0, drift=0.0, within=0.4)
PHONE = LabelNoise("phone", between=0.5, drift=0.0, within=1.2)
NOISY = LabelNoise("noisy", between=4.2, drift=0.0, within=1.9)


def test_the_noisiest_target_is_named_with_how_much_and_why() -> None:
    assert in_words([PI, NOISY, PHONE]) == (
        "Noisiest: noisy, whose labels are typically off by 4.6 %, 3.5 times as much as the next "
        "(phone 1.3 %, pi 0.40 %); most of it is between sessions (between sessions 4.2 %, drift left in the labels "
        "none, within a session 1.9 %)."
    )


def test_what_dominates_is_the_greatest_part() -> None:
    drifting = LabelNoise("fan", between=1.0, drift=8.0, within=2.0)
    assert "most of it is drift left in the labels" in in_words([PI, drifting])
    assert "most of it is within a session" in in_words([PI, PHONE])


def test_targets_that_are_alike_are_not_told_apart() -> None:
    twin = LabelNoise("twin", between=4.1, drift=0.0, within=1.9)
    assert "about as much as the next (twin 4.5 %)" in in_words([twin, NOISY])


def test_a_target_without_a_second_session_is_said_to_be_half_known() -> None:
    once = LabelNoise("once", between=None, drift=0.0, within=9.0)
    said = in_words([once, PI])
    assert "most of it is within a session (between sessions not known" in said
    assert said.endswith("(Between sessions nothing is known of once: --new-session measures again.)")


def test_nothing_is_said_of_one_target_or_of_labels_without_errors() -> None:
    imported = LabelNoise("imported", between=None, drift=0.0, within=None)
    assert in_words([]) == in_words([PI]) == in_words([PI, imported]) == ""
