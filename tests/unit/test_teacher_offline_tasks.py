from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from prosetting.teachers.offline_tasks import BadRequest, final_number, plain_number, reply_to
from prosetting.teachers.prompts import PROMPT_VERSION


def grade(attempt: str, reference: str | None, question: str = "How old is Ann?") -> dict[str, Any]:
    fields = {"question": question, "reference": reference, "solution": None, "attempt": attempt}
    return reply_to({"contract": PROMPT_VERSION, "task": "grade", **fields})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", Fraction(18)),
        ("1,200.50", Fraction(2401, 2)),
        ("$1,200", Fraction(1200)),
        ("-$3", Fraction(-3)),
        (" 3/4. ", Fraction(3, 4)),
        ("18%", None),
        ("18 apples", None),
        ("3+4", None),
        ("1,2", None),
        ("1.5/2", None),
        ("4/0", None),
        ("--4", None),
        ("٣", None),
        ("9" * 5_000, None),
        ("", None),
    ],
)
def test_only_a_plain_number_is_a_number(text: str, value: Fraction | None) -> None:
    assert plain_number(text) == value


@pytest.mark.parametrize(
    ("attempt", "number"),
    [
        ("So \\boxed{18}.", 18),
        ("half of it\n#### 18", 18),
        ("Therefore, the final answer is $18.", 18),
        ("\\boxed{17} no, \\boxed{18}", None),
        ("\\boxed{18} or 19", None),
        ("\\boxed{9+9}", None),
        ("not \\boxed{18} but nineteen", None),
        ("It is not \\boxed{18}", None),
        ("The answer is 17.\nWait. The answer is 18.", None),
        ("The answer is 18 or 19.", None),
        ("#### 17\n#### 18", None),
        ("9+9=18", None),
    ],
)
def test_a_final_number_is_clear_or_none(attempt: str, number: int | None) -> None:
    assert final_number(attempt) == number


@pytest.mark.parametrize(
    ("attempt", "reference", "verdict"),
    [
        ("\\boxed{1200}", "1,200", "correct"),
        ("\\boxed{1201}", "1,200", "incorrect"),
        ("", "1,200", "incorrect"),
        ("about a thousand", "1,200", "unknown"),
        ("\\boxed{5}", None, "unknown"),
        ("\\boxed{5}", "\\sqrt{25}", "unknown"),
    ],
)
def test_an_unfamiliar_question_is_graded_by_clear_numbers_only(
    attempt: str, reference: str | None, verdict: str
) -> None:
    assert grade(attempt, reference)["verdict"] == verdict


def test_a_story_with_a_wrong_reference_is_not_decided() -> None:
    story = "Max starts with 5 cards. Max buys 4 more. How many cards does Max have now?"
    assert grade("5+4=9 \\boxed{9}", "8", story) == {
        "final_answer": "9",
        "diagnosis": "reference_disagrees",
        "verdict": "unknown",
    }


@pytest.mark.parametrize("attempt", ["\x00\x1b[2J", "12\x0b", "\\boxed{\x07}", "\ud800", "", "\u202e3"])
def test_the_final_answer_of_hostile_text_is_readable(attempt: str) -> None:
    answer = grade(attempt, None)["final_answer"]
    assert answer is None or answer.isprintable()


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"contract": "prosetting-teacher/9", "task": "solve", "question": ""},
        {"contract": PROMPT_VERSION, "task": "sing"},
        {"contract": PROMPT_VERSION, "task": ["solve"]},
        {"contract": PROMPT_VERSION, "task": "solve", "question": 5},
        {"contract": PROMPT_VERSION, "task": "grade", "question": "", "attempt": "", "reference": 5},
        {"contract": PROMPT_VERSION, "task": "analyse", "question": "", "attempt": {}},
        {"contract": PROMPT_VERSION, "task": "enhance", "question": "", "attempt": "", "kind": "funnier"},
    ],
)
def test_a_document_that_breaks_the_contract_is_refused(document: object) -> None:
    with pytest.raises(BadRequest):
        reply_to(document)
