"""What a checker says."""

from jepsen.history import Line, Type
from jepsen.verdicts import accept, reject, undecided, worst

LINES = [Line(index, index * 10, 0, Type.OK, "read") for index in range(4)]


def test_only_a_valid_verdict_is_passed() -> None:
    """What could not be decided counts as not passed."""
    assert accept("K1", "3 operations").passed
    assert not undecided("K1", "the time was up").passed
    assert not reject("K1", "line 1 is wrong", LINES[:1]).passed


def test_a_counterexample_is_in_order_and_has_every_line_once() -> None:
    """Checkers collect lines in the order of their thought."""
    verdict = reject("K2", "two holders", [LINES[3], LINES[1], LINES[3]], "and 2 more")
    assert [line.index for line in verdict.counterexample] == [1, 3]
    assert verdict.notes == ("and 2 more",)


def test_the_worst_of_many_is_told() -> None:
    """Wrong before undecided before right."""
    good, open_, bad = accept("a", ""), undecided("b", ""), reject("c", "", LINES)
    assert worst([good, good]) is True
    assert worst([good, open_]) is None
    assert worst([open_, bad, good]) is False
