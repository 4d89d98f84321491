"""The gate for new questions: what is turned away, in which order, and on what evidence."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prosetting.core.journal import Journal
from prosetting.processors.question_gate import (
    MAX_QUESTION_CHARS,
    REPEATS,
    TEMPLATE_QUOTA,
    QuestionGate,
    Rejected,
    Rejection,
    same_answer,
)
from prosetting.records import PoolEntry, Question, QuestionId, question_id_of
from prosetting.teachers.base import NewQuestion

NEW = NewQuestion("What is 7 + 5?", "12", "<<7+5=12>>12", "variant")


def question(text: str) -> Question:
    return Question(question_id_of(text), text)


def gate(*, known: tuple[str, ...] = (), held_out: tuple[str, ...] = ()) -> QuestionGate:
    journal = Journal(Path(":memory:"))
    journal.set_pool(1, [PoolEntry(question(text), "seed") for text in known])
    return QuestionGate(journal, 1, held_out=map(question, held_out))


def ask(
    gate_: QuestionGate, new: NewQuestion, *, parent: str | None = None, teacher_answer: str | None = None
) -> Question | Rejected:
    parent_id = question_id_of(parent) if parent else None
    return gate_.admit(new, parent_id=parent_id, teacher_answer=teacher_answer)


def reason(found: Question | Rejected) -> Rejection | None:
    return found.reason if isinstance(found, Rejected) else None


def written(text: str) -> NewQuestion:
    return NewQuestion(text, "12", None, "variant")


def test_a_sound_question_is_admitted_with_its_parent_and_becomes_known() -> None:
    asked = gate(known=("Where is the cat?",))
    admitted = asked.admit(NEW, parent_id=QuestionId("p"), teacher_answer="12.0")
    assert admitted == Question(question_id_of(NEW.text), NEW.text, "12", NEW.solution, "variant", QuestionId("p"))
    assert ask(asked, NEW) == Rejected(Rejection.DUPLICATE, question_id_of(NEW.text))


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (" \n", "empty"),
        ("12 + 5 = ?", "no question in words"),
        ("Why?", "no question in words"),
        ("What is \u202e7 + 5?", "U+202E"),
        ("What is\u200b 7 + 5?", "U+200B"),
        ("What is 7 + 5?\x07", "U+0007"),
        ("What is 7 + 5\ud83d?", "U+D83D"),
        ("What is 7 + 5?<|im_end|>", "<|im_end|>"),
        ("What is 7 + 5?\uff1c\uff5cim_start\uff5c\uff1esystem", "<|im_start|>"),
        ("[INST] What is 7 + 5? [/INST]", "[INST]"),
        ("</think> What is 7 + 5?", "</think>"),
    ],
)
def test_a_malformed_question_is_rejected_with_what_is_wrong(text: str, detail: str) -> None:
    found = ask(gate(), replace(NEW, text=text), teacher_answer="12")
    assert isinstance(found, Rejected)
    assert found.reason is Rejection.MALFORMED
    assert detail in found.detail


@pytest.mark.parametrize(
    "text", ["Wie viele Äpfel hat Zoë?", "一共有多少个苹果？", "Solve $|x| < |y|$ and\n\tshow <b>all</b> steps."]
)
def test_other_scripts_and_mathematics_are_well_formed(text: str) -> None:
    assert reason(ask(gate(), written(text), teacher_answer="12")) is None


def test_a_question_over_the_limit_is_too_long() -> None:
    assert reason(ask(gate(), written("why so " * (MAX_QUESTION_CHARS // 7 + 1)))) is Rejection.TOO_LONG
    assert reason(ask(gate(), written(f"How {'o' * (MAX_QUESTION_CHARS - 5)}?"), teacher_answer="12")) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" Max  has 5 red cards and\nbuys 4 more today. How many are red?", Rejection.HELD_OUT),
        ("Eva owns 5 coins, finds 4. What is the sum?", Rejection.HELD_OUT_NUMBERS),
        ("Yesterday MAX has 5 red cards, and “buys” 4 more than 9!", Rejection.HELD_OUT_WORDING),
        ("Eva owns 5 coins, finds 6. What is the sum?", None),
    ],
)
def test_held_out_questions_stay_out_under_other_names_and_in_part(text: str, expected: Rejection | None) -> None:
    held = "Max has 5 red cards and buys 4 more today. How many are red?"
    assert reason(ask(gate(held_out=(held,)), written(text), teacher_answer="12")) is expected


def test_a_single_number_does_not_tell_questions_apart() -> None:
    asked = gate(held_out=("What is the square of 12?",))
    assert reason(ask(asked, written("What is the double of 12?"), teacher_answer="12")) is None


def test_the_shared_words_are_the_evidence() -> None:
    found = ask(gate(held_out=("one two three four five six seven eight nine",)), written(
        "zero one two three four five six seven eight"
    ))  # fmt: skip
    assert found == Rejected(Rejection.HELD_OUT_WORDING, "one two three four five six seven eight")


def varied(numbers: str) -> str:
    """Only numbers differ, and enough of them that no two texts are near-duplicates."""
    return "Take {}, add {}, then {}, then {}.".format(*numbers)


def test_a_template_is_admitted_up_to_its_quota_in_a_round() -> None:
    asked = gate()
    reasons = [reason(ask(asked, written(varied(n)), teacher_answer="12")) for n in ("1234", "5678", "2468", "9753")]
    assert reasons == [None] * TEMPLATE_QUOTA + [Rejection.TEMPLATE_QUOTA]


def test_the_parents_own_template_counts() -> None:
    asked = gate(known=(varied("1234"),))
    reasons = [
        reason(ask(asked, written(varied(n)), parent=varied("1234"), teacher_answer="12"))
        for n in ("5678", "2468", "9753")
    ]
    assert reasons == [None] * (TEMPLATE_QUOTA - 1) + [Rejection.TEMPLATE_QUOTA]


STORY = (
    "A baker makes 40 loaves of rye bread every morning and sells them for 3 dollars each at the market. "
    "On rainy days he sells only half of them. How much does he earn on a rainy day?"
)


def test_a_question_that_reads_almost_like_a_known_one_is_a_near_duplicate() -> None:
    found = ask(gate(known=(STORY,)), written(STORY.replace("40", "60")), teacher_answer="90")
    assert isinstance(found, Rejected)
    assert found.reason is Rejection.NEAR_DUPLICATE
    assert found.detail.startswith(question_id_of(STORY))


def test_another_story_with_some_of_the_words_is_none() -> None:
    other = STORY.replace("A baker", "Nina").replace("loaves of rye bread", "cakes").replace("he", "she")
    other = other.replace("at the market", "in her shop").replace("rainy", "quiet").replace("half", "a third")
    assert reason(ask(gate(known=(STORY,)), written(other), teacher_answer="12")) is None


@pytest.mark.parametrize(
    ("change", "teacher_answer", "expected"),
    [
        ({}, None, None),
        ({"solution": None}, "12", None),
        ({"solution": None}, None, Rejection.NO_SECOND_SOLUTION),
        ({"reference": " "}, "12", Rejection.NO_REFERENCE),
        ({"reference": "13"}, None, Rejection.REFERENCE_DISAGREES),
        ({"reference": "12%"}, "12", Rejection.REFERENCE_DISAGREES),
        ({"reference": "13", "solution": None}, "12", Rejection.REFERENCE_DISAGREES),
        ({"reference": "13"}, "13", Rejection.REFERENCE_DISAGREES),
        ({}, "13", Rejection.REFERENCE_DISAGREES),
        ({"solution": "<<7+5=13>>13"}, "12", Rejection.REFERENCE_DISAGREES),
        ({"solution": "<<7+5=12>>12 <<12+9=21>>21", "reference": "21"}, None, Rejection.NO_SECOND_SOLUTION),
        ({"solution": "<<12=12>>12"}, None, Rejection.NO_SECOND_SOLUTION),
        ({"solution": "<<__import__('os')=12>>"}, None, Rejection.NO_SECOND_SOLUTION),
        ({"solution": "<<7**5=12>>"}, None, Rejection.NO_SECOND_SOLUTION),
        ({"solution": "<<7/5=1.40>>1.40", "reference": "$1.40"}, None, None),
        ({"solution": "<<5/7=0.71>>0.71", "reference": "0.71"}, None, Rejection.NO_SECOND_SOLUTION),
        ({"solution": "<<5/7=0.71>>0.71", "reference": "0.71"}, "0.71", None),
        ({"solution": "<<7+5=12>>12", "reference": "twelve"}, None, Rejection.NO_SECOND_SOLUTION),
    ],
)
def test_a_reference_needs_a_second_solution_and_no_contradiction(
    change: dict[str, Any], teacher_answer: str | None, expected: Rejection | None
) -> None:
    assert reason(ask(gate(), replace(NEW, **change), teacher_answer=teacher_answer)) is expected


def test_the_answers_that_disagree_are_the_evidence() -> None:
    found = ask(gate(), replace(NEW, reference="13"), teacher_answer="12")
    assert isinstance(found, Rejected)
    assert all(part in found.detail for part in ("'13'", "the teacher's own answer '12'", "come to 12"))


@pytest.mark.parametrize(
    ("left", "right"), [("1,200", "1200"), ("0.5", "1/2"), ("Paris", " paris."), ("$\\frac{1}{2}$", "0.5")]
)
def test_answers_are_compared_by_value_or_by_spelling(left: str, right: str) -> None:
    assert same_answer(left, right)


def test_repeats_are_the_three_kinds_of_duplicate() -> None:
    assert {r.value for r in REPEATS} == {"duplicate", "template_quota", "near_duplicate"}


def test_decisions_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "from pathlib import Path\n"
        "from prosetting.core.journal import Journal\n"
        "from prosetting.processors.question_gate import *\n"
        "from prosetting.records import PoolEntry, Question, question_id_of\n"
        "from prosetting.teachers.base import NewQuestion\n"
        "a = 'one two three four five six seven eight nine ten eleven'\n"
        "texts = [a, a + ' twelve', a + ' dozen', 'zero ' + a]\n"
        "held = [Question(question_id_of(t), t) for t in ['red green blue pink grey black white gold silver lime']]\n"
        "journal = Journal(Path(':memory:'))\n"
        "journal.set_pool(1, [PoolEntry(Question(question_id_of(t), t), 'seed') for t in texts])\n"
        "gate = QuestionGate(journal, 1, held_out=held)\n"
        "for t in [a + ' twelve dozen', 'a ' + held[0].text, 'a story of cats and dogs']:\n"
        "    print(gate.admit(NewQuestion(t, '1', None, 'variant'), parent_id=None, teacher_answer='1'))\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert outputs.pop().count("Rejected(") == 2
