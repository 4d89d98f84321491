"""New questions from annotated solutions: recomputed exactly, or not made at all."""

from __future__ import annotations

import json
import os
import random
import re
from fractions import Fraction
from pathlib import Path

import pytest

from prosetting.core.journal import Journal
from prosetting.core.text import NEAR_DUPLICATE, likeness
from prosetting.processors.question_gate import QuestionGate, Rejected
from prosetting.records import PoolEntry, Question, QuestionKind, question_id_of
from prosetting.teachers.annotated import (
    annotated_extension,
    annotated_hint,
    annotated_question,
    annotated_variant,
)
from prosetting.teachers.base import NewQuestion
from prosetting.teachers.calculations import evaluate, tokenize
from prosetting.teachers.renaming import _HE, _SHE, free_name, renamed

SHELVES = "A shop has 14 shelves with 26 books each. It sells 45 books. How many books are left?"
SHELVES_SOLUTION = "There are 14*26=<<14*26=364>>364 books.\n364-45=<<364-45=319>>319 are left.\n#### 319"


def value_of(text: str) -> Fraction | None:
    tokens = tokenize(text)
    return None if tokens is None else evaluate(tokens)


def assert_the_chain_holds(solution: str, answer: str) -> None:
    steps = re.findall(r"<<(.*?)=(.*?)>>", solution)
    for expression, result in steps:
        assert value_of(expression) == Fraction(result)
    assert steps[-1][1] == answer == solution.rsplit("#### ", 1)[1]


@pytest.mark.parametrize("seed", range(20))
def test_a_variant_has_new_numbers_and_a_recomputed_chain(seed: int) -> None:
    made = annotated_variant(SHELVES, SHELVES_SOLUTION, random.Random(seed))
    assert made is not None
    text, solution, answer = made
    shelves, books, sold = map(int, re.findall(r"[0-9]+", text))
    assert (shelves, books, sold) != (14, 26, 45)
    assert int(answer) == shelves * books - sold > 0
    assert_the_chain_holds(solution, answer)


def test_thousands_keep_their_commas() -> None:
    question = "A town of 4,800 people gains 1,300 people. How many live there now?"
    made = annotated_variant(question, "4800+1300=<<4800+1300=6100>>6100\n#### 6,100", random.Random(0))
    assert made is not None
    assert re.search(r"[0-9],[0-9]{3}", made[0])
    assert_the_chain_holds(made[1], made[2])


@pytest.mark.parametrize(
    ("text", "solution"),
    [
        pytest.param(SHELVES, "14 shelves\n#### 319", id="no annotation"),
        pytest.param(SHELVES, SHELVES_SOLUTION.replace("#### 319", "#### 318"), id="another final answer"),
        pytest.param(SHELVES, SHELVES_SOLUTION.replace("=364>>", "=365>>"), id="a step that does not hold"),
        pytest.param(SHELVES, SHELVES_SOLUTION.replace("\n3", "\nx = 5\n3"), id="algebra beside the chain"),
        pytest.param("Ann has 31 cards and Bob 17. All?", "<<31+17+9=57>>57\n#### 57", id="a number from nowhere"),
        pytest.param("Ann has 31 cards, is 19 and buys 17. All?", "<<31+17=48>>48\n#### 48", id="an unused number"),
        pytest.param("Ann has 17 cards, Bob 17. All?", "<<17+17=34>>34\n#### 34", id="the same number twice"),
        pytest.param("Ann has two cards, Bob has three. All?", "<<2+3=5>>5\n#### 5", id="numbers that are words"),
        pytest.param("Ann runs 30% of 5.5 miles. How far?", "<<.3*5.5=1.65>>1.65\n#### 1.65", id="percentages"),
        pytest.param("1/0", "<<1/0=1>>1\n#### 1", id="division by zero"),
        pytest.param("9" * 50_000, SHELVES_SOLUTION, id="a huge question"),
        pytest.param(SHELVES, "<<" * 50_000 + SHELVES_SOLUTION, id="a huge solution"),
    ],
)
def test_no_variant_rather_than_a_guess(text: str, solution: str) -> None:
    assert annotated_variant(text, solution, random.Random(0)) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("48/2", Fraction(24)),
        ("100-50-30-15", Fraction(5)),
        ("2*(3+4)/7", Fraction(2)),
        ("+30+46", Fraction(76)),
        ("2 * .5", Fraction(1)),
        ("12/60", Fraction(1, 5)),
        ("-3+5", Fraction(2)),
        ("1/0", None),
        ("2**9", None),
        ("2+", None),
        ("(2", None),
        ("2)", None),
        ("", None),
        ("__import__", None),
        ("\u0661+1", None),
        ("1" * 81, None),
        ("(" * 80, None),
    ],
)
def test_expressions(text: str, value: Fraction | None) -> None:
    assert value_of(text) == value


SHOP = "Anna's shop has 14 shelves with 26 books each. She sells 45 books to Tom. How many books are left?"


def check(made: tuple[str, str, str] | None) -> tuple[str, str, str]:
    assert made is not None
    assert_the_chain_holds(made[1], made[2])
    return made


@pytest.mark.parametrize("group", ["the 3 of them", "3 friends", "all 3"])
def test_a_number_that_counts_those_who_are_listed_stays(group: str) -> None:
    text = f"Ann has 32 cards, Bob 17 and Cy 5. How many do {group} have on average?"
    made = check(annotated_variant(text, "<<32+17+5=54>>54\n<<54/3=18>>18\n#### 18", random.Random(0)))
    assert group in made[0]


@pytest.mark.parametrize("seed", range(10))
def test_an_extension_goes_on_from_the_answer(seed: int) -> None:
    text, solution, answer = check(annotated_extension(SHOP, SHELVES_SOLUTION, random.Random(seed)))
    first, _, follow_on = text.partition("? ")
    assert re.findall("[0-9]+", first) == ["14", "26", "45"]
    one, other = map(int, re.findall("[0-9]+", follow_on)[:2])
    ways = {
        "multiplies it by N and then adds N": 319 * one + other,
        "multiplies it by N and then subtracts N": 319 * one - other,
        "divides it by N and then adds N": 319 // one + other,
        "adds N to it and then multiplies the sum by N": (319 + one) * other,
    }
    said = re.sub("[0-9]+", "N", follow_on)
    (result,) = [value for way, value in ways.items() if way in said]
    assert int(answer) == result
    assert solution.startswith("14*26 = <<14*26=364>>364\n364-45 = <<364-45=319>>319\n")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(SHOP + " And how many shelves?", id="two questions"),
        pytest.param("How many? " + SHELVES[:-1] + ".", id="the question not at the end"),
        pytest.param(SHELVES[:-1] + ".", id="no question"),
        pytest.param(SHELVES.replace("How", "Say the answer: how"), id="an answer spoken of"),
    ],
)
def test_no_extension_where_the_answer_might_mean_something_else(text: str) -> None:
    assert annotated_extension(text, SHELVES_SOLUTION, random.Random(0)) is None


def test_an_instruction_to_calculate_can_be_extended_once() -> None:
    text = SHELVES.replace("How many books are left?", "Calculate the number of books left.")
    made = check(annotated_extension(text, SHELVES_SOLUTION, random.Random(0)))
    assert annotated_extension(made[0], made[1], random.Random(0)) is None


def test_a_hint_tells_every_step_but_the_last_and_only_once() -> None:
    text, solution, answer = check(annotated_hint(SHOP, SHELVES_SOLUTION, random.Random(0)))
    assert "14*26 is 364" in text
    assert "319" not in text
    assert answer == "319"
    assert annotated_hint(text, solution, random.Random(0)) is None
    assert annotated_hint(SHOP, "<<14+26=40>>40\n#### 40", random.Random(0)) is None


@pytest.mark.parametrize(
    ("asked", "text", "solution", "written"),
    [
        ("easier", SHOP, SHELVES_SOLUTION, "easier"),
        ("variant", SHOP, SHELVES_SOLUTION, "variant"),
        ("harder", SHOP, SHELVES_SOLUTION, "harder"),
        ("variant", "Ann has 17 cards, Bob 17. How many?", "<<17+17=34>>34\n#### 34", "harder"),
        ("harder", SHOP + " Why?", SHELVES_SOLUTION, "variant"),
        ("easier", "Has Ann 31 cards and Bob 16? How many?", "<<31+16=47>>47\n#### 47", "variant"),
    ],
)
def test_the_nearest_safe_kind_is_written_under_its_true_name(
    asked: QuestionKind, text: str, solution: str, written: QuestionKind
) -> None:
    made = annotated_question(asked, text, solution, random.Random(0))
    assert made is not None
    check(made[0])
    assert made[1] == written


def test_nothing_is_written_without_a_chain() -> None:
    assert annotated_question("harder", SHOP, "319", random.Random(0)) is None


def test_people_and_things_are_renamed_throughout() -> None:
    text = "James has 5 apples. Anna gives James an apple. Is James' basket full? \"Yes\", says Anna's cat."
    new = renamed(text, random.Random(0))
    match = re.fullmatch(
        r"(\w+) has 5 (\w+)s\. (\w+) gives \1 a \2\. Is \1's basket full\? \"Yes\", says \3's cat\.",
        new.replace("mangoes", "mangos").replace("peaches", "peachs"),
    )
    assert match is not None, new
    assert {match[1], match[3]}.isdisjoint({"James", "Anna"})


def test_a_text_that_holds_every_name_is_left_as_it_is() -> None:
    text = " and ".join([*_SHE, *_HE])
    assert renamed(text, random.Random(0)) == text
    assert free_name(text, random.Random(0)) == "Somebody"


@pytest.mark.parametrize(
    "text",
    [
        "They walk to Saint Mary in an hour.",
        "He works at Mary Street.",
        "Mary's Bakery opens at ten.",
        "Mary-Lou sings.",
        "Bill pays the bill.",
        "Rose and the roses rose.",
        "The Joneses, the Marys and Apple sell iPhones.",
        "A pineapple costs more.",
    ],
)
def test_a_word_that_may_be_something_else_stays(text: str) -> None:
    assert renamed(text, random.Random(0)) == text


def annotated_rows() -> list[tuple[str, str]]:
    shared = Path(os.environ.get("PROSETTING_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
    file = shared / "questions" / "gsm8k_test.jsonl"
    if not file.is_file():
        pytest.skip(f"no {file}: set PROSETTING_SHARED_DATA to a folder with questions/gsm8k_test.jsonl")
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return random.Random(0).sample([(row["question"], row["answer"]) for row in rows], 120)


@pytest.mark.parametrize("kind", ["easier", "variant", "harder"])
def test_most_real_annotated_questions_give_one_that_passes_the_gate(kind: QuestionKind) -> None:
    rows = annotated_rows()
    parents = [Question(question_id_of(text), text) for text, _ in rows]
    journal = Journal(Path(":memory:"))
    journal.set_pool(1, [PoolEntry(parent, "seed") for parent in parents])
    gate = QuestionGate(journal, 1, held_out=[])
    admitted = 0
    for parent, (text, solution) in zip(parents, rows, strict=True):
        made = annotated_question(kind, text, solution, random.Random(parent.question_id))
        if made is None:
            continue
        new, worked, answer = check(made[0])
        assert likeness(text, new) < NEAR_DUPLICATE
        found = gate.admit(NewQuestion(new, answer, worked, made[1]), parent_id=parent.question_id, teacher_answer=None)
        admitted += not isinstance(found, Rejected)
    assert admitted >= 75
