"""Variants of annotated solutions: recomputed exactly, or not made at all."""

from __future__ import annotations

import json
import os
import random
import re
from fractions import Fraction
from pathlib import Path

import pytest

from prosetting.teachers.annotated import annotated_variant, evaluate, tokenize

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


def test_real_annotated_questions_give_variants_that_hold() -> None:
    shared = Path(os.environ.get("PROSETTING_SHARED_DATA", "../shared/data"))
    file = shared / "questions" / "gsm8k_train.jsonl"
    if not file.is_file():
        pytest.skip(f"no {file}: set PROSETTING_SHARED_DATA to a folder with questions/gsm8k_train.jsonl")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[:300]]
    made = [annotated_variant(r["question"], r["answer"], random.Random(i)) for i, r in enumerate(rows)]
    variants = [one for one in made if one]
    assert len(variants) >= 90
    for _, solution, answer in variants:
        assert_the_chain_holds(solution, answer)
