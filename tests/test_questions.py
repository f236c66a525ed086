"The guesses and exercises of the pages: each answer fits the guess, and nothing a reader types stops a page."

import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize("guess", ["", "  ", None, ..., "..."])
def test_what_was_left_open_is_no_guess(guess):
    assert repr(reveal(guess, "b", **WHY)) == "- The answer is b. just so\n- Not a: too few\n- Not c: too many"
    assert repr(reveal_number(guess, 2.0, "so", traps={8.0: "cubed"})) == "- Measured: 2. so\n- Not 8: cubed"


@pytest.mark.parametrize("guess", ["b", "B", " b ", "b.", "(b)", "b)", "[B]", "'b'", "\tb\n"])
def test_a_letter_may_be_written_in_many_ways(guess):
    assert reveal(guess, "b", **WHY)


class Odd:
    "Raises an error whatever one does with it."

    def __getattr__(self, name):
        raise RuntimeError(name)

    def __eq__(self, other):
        raise RuntimeError("compared")

    __bool__ = __repr__ = __float__ = __len__ = __str__ = lambda self: 1 / 0
    __hash__ = None


NO_LETTER = ["d", "ab", "?", "a or b", 2, 2.5, True, ["a"], ("a",), {"a": 1}, b"a", torch.tensor(1), torch.ones(3), float("nan"), print, int, Odd(), Odd, 10**5000, "b" * 10000]
NO_NUMBER = [
    "many", "90%", "0,9", "1/0", "nan", "inf", "1e999", "[2]", True, [2], (2,), {2}, b"2", 2j, float("nan"), float("inf"), 10**5000, print, int, lambda: 2, Odd(), Odd,
    torch.ones(3), torch.tensor(float("nan")), torch.tensor(True), torch.empty(0), np.ones((2, 2)), Decimal("nan"), torch.nn.Linear(2, 2), torch.Tensor, "2" * 10000,
]


@pytest.mark.parametrize("guess", NO_LETTER, ids=lambda guess: type(guess).__name__)
def test_what_is_no_choice_gets_one_line_and_stops_nothing(guess):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        says = repr(reveal(guess, "b", **WHY))
    assert says.startswith("Type a or b or c between the quotes. Your guess is ") and "\n" not in says and len(says) < 110
    assert not reveal(guess, "b", **WHY)


@pytest.mark.parametrize("guess", NO_NUMBER, ids=lambda guess: type(guess).__name__)
def test_what_is_no_number_gets_one_line_and_stops_nothing(guess):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        says = repr(reveal_number(guess, 2.0))
    assert says.startswith("Type a number, such as 0.5 or 12. Your guess is ") and "\n" not in says and len(says) < 110
    assert not reveal_number(guess, 2.0)


@pytest.mark.parametrize("guess", [
    0.5, "0.5", " .5 ", "1/2", "5e-1", Fraction(1, 2), Decimal("0.5"), np.float32(0.5), np.array(0.5), torch.tensor(0.5), torch.tensor(0.5, requires_grad=True), torch.tensor([0.5]),
], ids=repr)
def test_a_number_may_be_written_in_many_ways(guess):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reveal_number(guess, 0.5, within=0.01) and "Your guess 0.5 is too large" in repr(reveal_number(guess, 0.2))
    assert reveal_number("−3", -3) and reveal_number(np.int64(3), 3) and reveal_number("3", 3)


def test_the_plain_voice_of_an_answer():
    assert repr(reveal("b", "b", **WHY)) == "Right, the answer is b. just so"
    assert repr(reveal("C", "b", **WHY)) == "Not c: too many\n\nThe answer is b. just so"


@pytest.mark.parametrize("guess, right, says", [
    (2.0, True, "close enough"), (2.3, True, "close enough"), (1, False, "too small"), (9, False, "too large"), (8, False, "cubed"),
])
def test_a_number_is_compared_with_what_was_measured(guess, right, says):
    verdict = reveal_number(guess, 2.0, "as it must be", traps={8.0: "That is 2 cubed.", 1.0: "x"}, within=0.2 if guess != 9 else 0.01)
    assert bool(verdict) == right and says in repr(verdict) and "Measured: 2." in repr(verdict)


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
    (..., "replace the dots"),
    (7, "a value of type int"),
    ("double", "as in `check_double(name)`"),
    (None, "a value of type NoneType"),
])
def test_an_exercise_says_what_is_wrong_and_never_raises(answer, says):
    verdict = check_double(answer)
    assert says in repr(verdict) and bool(verdict) == (says == "Right.")
    assert ("it raises" in repr(verdict)) == says.endswith("Error")


def test_a_verdict_is_markdown_on_the_page_and_plain_elsewhere():
    verdict = Verdict(False, "it is **b**")
    assert verdict._repr_markdown_() == "it is **b**" and repr(verdict) == "it is b"


def test_large_numbers_are_written_without_an_exponent():
    assert "**5000**" in reveal_number(..., 5000.0).text and "**0.0123**" in reveal_number(..., 0.01234).text
    assert "12345" in reveal_number(12345, 20000.0).text
