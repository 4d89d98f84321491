"""The offline teacher's problem family: text and problem are exact inverses, diagnoses name the mistake."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosetting.teachers.arithmetic import (
    MAX_STEPS,
    VERBS,
    Diagnosis,
    Problem,
    Step,
    chain,
    diagnose,
    easier,
    final_answer,
    harder,
    parse,
    random_problem,
    render,
    solution_text,
    solve,
    variant,
)

MAX = Problem("Max", "cards", 5, (Step("buys", 4), Step("gives", 3)))
MAX_TEXT = "Max starts with 5 cards. Max buys 4 more. Max gives 3 away. How many cards does Max have now?"
CARRYING = Problem("Ana", "eggs", 8, (Step("finds", 7),))

problems = st.builds(
    lambda seed, steps: random_problem(random.Random(seed), steps), st.integers(0), st.integers(1, MAX_STEPS)
)


def test_the_textbook_example() -> None:
    assert render(MAX) == MAX_TEXT
    assert solve(MAX) == 6
    assert solution_text(MAX) == r"5+4=9, 9-3=6 \boxed{6}"
    assert chain(MAX) == "5+4-3"


@given(problems)
def test_parse_inverts_render(problem: Problem) -> None:
    assert parse(render(problem)) == problem


@given(problems)
def test_the_worked_solution_is_right(problem: Problem) -> None:
    assert diagnose(problem, solution_text(problem)) == (True, Diagnosis.NONE)


@given(st.text(max_size=80))
def test_any_other_text_is_not_parsed(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    "text",
    [
        MAX_TEXT + " ",
        MAX_TEXT.replace("5", "\u0665"),
        MAX_TEXT.replace("5", "05"),
        MAX_TEXT.replace("5", "500"),
        MAX_TEXT.replace("gives 3", "gives 30"),
        MAX_TEXT.replace("buys", "eats"),
        MAX_TEXT.replace("4 more", "4 away"),
        MAX_TEXT.replace("does Max", "does Ana"),
        MAX_TEXT.replace("How many cards", "How many books"),
        "Max starts with 5 cards. How many cards does Max have now?",
        "Max starts with 5 cards." + " Max buys 1 more." * (MAX_STEPS + 1) + " How many cards does Max have now?",
        MAX_TEXT.replace(". ", ".\n"),
        "Max starts with 5 cards." + " Max buys 4 more." * 100_000,
        "9" * 1_000_000,
        "",
    ],
)
def test_a_text_near_the_family_is_not_parsed(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("start", "steps"),
    [
        (0, (Step("buys", 1),)),
        (100, (Step("uses", 1),)),
        (2, (Step("uses", 3),)),
        (2, (Step("uses", 3), Step("buys", 9))),
        (98, (Step("buys", 2),)),
        (5, ()),
        (5, (Step("buys", 1),) * (MAX_STEPS + 1)),
    ],
)
def test_a_problem_outside_the_family_cannot_be_made(start: int, steps: tuple[Step, ...]) -> None:
    with pytest.raises(ValueError, match=r"leaves|steps"):
        Problem("Max", "cards", start, steps)


@pytest.mark.parametrize(("verb", "operand"), [("eats", 1), ("buys", 0), ("buys", 100)])
def test_a_step_outside_the_family_cannot_be_made(verb: str, operand: int) -> None:
    with pytest.raises(ValueError, match=r"verb|operand"):
        Step(verb, operand)


@pytest.mark.parametrize(
    ("problem", "response", "diagnosis"),
    [
        (MAX, r"5+4=9, 9+3=12 \boxed{12}", Diagnosis.WRONG_OPERATION),
        (CARRYING, r"8+7=5 \boxed{5}", Diagnosis.CARRY),
        (MAX, r"5+4=8, 8-3=5 \boxed{5}", Diagnosis.SLIP),
        (MAX, r"5+4=9, 9-2=7 \boxed{7}", Diagnosis.COPIED_WRONGLY),
        (MAX, r"5+4=9, 8-3=5 \boxed{5}", Diagnosis.COPIED_WRONGLY),
        (MAX, r"5+4=9, 9-3=6 \boxed{7}", Diagnosis.COPIED_WRONGLY),
        (MAX, r"5+4=9 \boxed{9}", Diagnosis.MISSING_STEP),
        (MAX, r"5-3=2 \boxed{2}", Diagnosis.MISSING_STEP),
        (MAX, r"\boxed{9}", Diagnosis.MISSING_STEP),
        (MAX, r"5+4=9, 9-3=6, 6+1=7 \boxed{7}", Diagnosis.OTHER),
        (MAX, r"5+4=15, 15-3=12 \boxed{12}", Diagnosis.OTHER),
        (MAX, "5+4=9, 9-3=6", Diagnosis.NO_ANSWER),
        (MAX, "", Diagnosis.NO_ANSWER),
    ],
)
def test_the_first_mistake_is_named(problem: Problem, response: str, diagnosis: Diagnosis) -> None:
    assert diagnose(problem, response) == (False, diagnosis)


@pytest.mark.parametrize(
    "response",
    [
        r"\boxed{6} \boxed{6}",
        r"\boxed{7} no, \boxed{6}",
        r"\boxed{6} or 7",
        r"\boxed{6",
        r"\boxed{06}",
        r"\boxed{6.0}",
        r"\boxed{9-3}",
        r"\boxed{\frac{6}{1}}",
        "\\boxed{\u0666}",
        r"not \boxed{6} but 7",
        r"\boxed{" + "6" * 5_000 + "}",
        r"\boxed{6}" + " " * 1_000_000,
    ],
)
def test_an_ambiguous_answer_is_not_right(response: str) -> None:
    assert diagnose(MAX, response) == (False, Diagnosis.NO_ANSWER)


@pytest.mark.parametrize("response", [r"\boxed{6}", r"so $\boxed{6}$.", "\\boxed{ 6 }\n"])
def test_one_plain_box_at_the_end_is_an_answer(response: str) -> None:
    assert final_answer(response) == 6


@given(problems, st.integers(0))
def test_a_variant_keeps_the_operations_and_changes_the_numbers(problem: Problem, seed: int) -> None:
    new = variant(problem, random.Random(seed))
    assert new is not None
    assert new != problem
    assert [step.verb for step in new.steps] == [step.verb for step in problem.steps]
    assert parse(render(new)) == new


@given(problems, st.integers(0))
def test_an_easier_problem_has_a_step_fewer_or_numbers_below_ten(problem: Problem, seed: int) -> None:
    new = easier(problem, random.Random(seed))
    if len(problem.steps) > 1:
        assert new is not None
        assert len(new.steps) == len(problem.steps) - 1
    elif new is not None:
        assert max(new.start, solve(new)) <= 9
    else:
        assert max(problem.start, solve(problem)) <= 9


@given(problems, st.integers(0))
def test_a_harder_problem_has_one_step_more(problem: Problem, seed: int) -> None:
    new = harder(problem, random.Random(seed))
    if len(problem.steps) == MAX_STEPS:
        assert new is None
    else:
        assert new is not None
        assert len(new.steps) == len(problem.steps) + 1


def test_draws_follow_the_random_source() -> None:
    assert random_problem(random.Random(4), 3) == random_problem(random.Random(4), 3)
    with pytest.raises(ValueError, match="steps"):
        random_problem(random.Random(4), MAX_STEPS + 1)


def test_the_largest_numbers_have_relatives_too() -> None:
    large = Problem("Max", "cards", 99, (Step("uses", 99),))
    for relative in (easier, variant, harder):
        new = relative(large, random.Random(1))
        assert new is not None
        assert parse(render(new)) == new


def test_every_verb_is_read_back() -> None:
    for verb in VERBS:
        problem = Problem("Zoe", "pens", 9, (Step(verb, 2),))
        assert parse(render(problem)) == problem
