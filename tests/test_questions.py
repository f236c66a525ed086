"The guesses and exercises of the pages: each answer fits the guess, and nothing a reader types stops a page."

import pytest

from transformer_nb.notebook.questions import Verdict, exercise, reveal, reveal_number

WHY = {"a": "too few", "b": "just so", "c": "too many"}


def test_the_right_choice_is_confirmed():
    verdict = reveal("b", "b", **WHY)
    assert verdict and "just so" in repr(verdict) and "too few" not in repr(verdict)


@pytest.mark.parametrize("guess, reason", [("a", "too few"), ("c", "too many")])
def test_a_wrong_choice_gets_its_own_answer_and_the_right_one(guess, reason):
    verdict = reveal(guess, "b", **WHY)
    assert not verdict and reason in repr(verdict) and "just so" in repr(verdict)


def test_without_a_guess_every_choice_is_explained():
    assert all(reason in repr(reveal(..., "b", **WHY)) for reason in WHY.values())


@pytest.mark.parametrize("guess", ["d", "", None, 2, ["a"], "A"])
def test_what_is_no_choice_is_named_and_stops_nothing(guess):
    verdict = reveal(guess, "b", **WHY)
    assert not verdict and repr(guess) in repr(verdict) and "a, b, c" in repr(verdict)


@pytest.mark.parametrize("guess, right, says", [
    (2.0, True, "close enough"), (2.3, True, "close enough"), (1, False, "too small"), (9, False, "too large"), (8, False, "cubed"),
])
def test_a_number_is_compared_with_what_was_measured(guess, right, says):
    verdict = reveal_number(guess, 2.0, "as it must be", traps={8.0: "That is 2 cubed.", 1.0: "x"}, within=0.2 if guess != 9 else 0.01)
    assert bool(verdict) == right and says in repr(verdict) and "Measured: 2." in repr(verdict)


@pytest.mark.parametrize("guess", ["2", None, True, [2]])
def test_what_is_no_number_is_named_and_stops_nothing(guess):
    verdict = reveal_number(guess, 2.0)
    assert not verdict and repr(guess) in repr(verdict)


def test_without_a_number_every_trap_is_explained():
    assert "cubed" in repr(reveal_number(..., 2.0, traps={8.0: "That is 2 cubed."}))


def test_negative_numbers_and_zero_are_measured_too():
    assert reveal_number(-2.1, -2.0) and reveal_number(0, 0.0) and not reveal_number(1, 0.0)


@exercise
def check_double(double):
    assert double(2) == 4, f"twice 2 is 4, got {double(2)}"


@pytest.mark.parametrize("answer, says", [
    (lambda x: 2 * x, "Right."),
    (lambda x: x * x + 1, "twice 2 is 4, got 5"),
    (lambda x: None, "returns None"),
    (lambda x: x.shape, "AttributeError"),
    (lambda: 4, "TypeError"),
    (..., "the dots are still there"),
    (7, "TypeError"),
])
def test_an_exercise_says_what_is_wrong_and_never_raises(answer, says):
    verdict = check_double(answer)
    assert says in repr(verdict) and bool(verdict) == (says == "Right.")
    assert ("it raises" in repr(verdict)) == says.endswith("Error")


def test_a_verdict_is_markdown_on_the_page_and_plain_elsewhere():
    verdict = Verdict(False, "it is **b**")
    assert verdict._repr_markdown_() == "it is **b**" and repr(verdict) == "it is b"
