"""The demo's question files: disjoint, deterministic, and partly without references."""

from __future__ import annotations

import random

import pytest

from prosetting.core.text import ngrams, words
from prosetting.demo.pupil import pupil_solution
from prosetting.demo.questions import heldout_rows, seed_pool, warm_start_examples
from prosetting.demo.recipe import Pupil, Recipe
from prosetting.teachers.arithmetic import Diagnosis, Problem, Step, chain, diagnose, parse, solve

SMALL = Recipe(examples=1_500, seed_questions=40, heldout_questions=60)
TAKING_AWAY = Problem("Max", "cards", 9, (Step("gives", 3),))
CARRYING = Problem("Max", "cards", 8, (Step("finds", 7),))


def chains(texts: list[str]) -> set[str]:
    problems = [parse(text) for text in texts]
    return {chain(problem) for problem in problems if problem}


@pytest.mark.parametrize("seed", [1, 2])
def test_no_heldout_chain_teaches_the_solver(seed: int) -> None:
    heldout = chains([row["question"] for row in heldout_rows(seed, SMALL)])
    # Whatever the seed: the side of a chain does not depend on it.
    taught = chains([question for question, _ in warm_start_examples(3, SMALL)])
    taught |= chains([row["question"] for row in seed_pool(3, SMALL)])
    assert heldout
    assert heldout.isdisjoint(taught)


def test_no_run_of_eight_words_is_shared_with_the_held_out_questions() -> None:
    heldout = {gram for row in heldout_rows(1, SMALL) for gram in ngrams(words(row["question"]), 8)}
    pool = {gram for row in seed_pool(1, SMALL) for gram in ngrams(words(row["question"]), 8)}
    assert heldout
    assert heldout.isdisjoint(pool)


def test_the_same_seed_gives_the_same_rows() -> None:
    assert seed_pool(5, SMALL) == seed_pool(5, SMALL)
    assert heldout_rows(5, SMALL) == heldout_rows(5, SMALL)
    assert warm_start_examples(5, SMALL) == warm_start_examples(5, SMALL)
    assert heldout_rows(5, SMALL) != heldout_rows(6, SMALL)


def test_a_quarter_of_the_pool_has_no_reference_and_the_rest_is_right() -> None:
    rows = seed_pool(5, SMALL)
    assert sum("answer" not in row for row in rows) == 10
    for row in [*rows, *heldout_rows(5, SMALL)]:
        problem = parse(row["question"])
        assert problem is not None
        assert row.get("answer") in (None, str(solve(problem)))


def test_no_text_occurs_twice() -> None:
    assert len({row["question"] for row in seed_pool(5, SMALL)}) == 40
    assert len({row["question"] for row in heldout_rows(5, SMALL)}) == 60


@pytest.mark.parametrize(
    ("problem", "pupil", "diagnosis"),
    [
        (TAKING_AWAY, Pupil(0, 0, 0), Diagnosis.NONE),
        (TAKING_AWAY, Pupil(1, 0, 0), Diagnosis.WRONG_OPERATION),
        (CARRYING, Pupil(0, 1, 0), Diagnosis.CARRY),
        (CARRYING, Pupil(0, 0, 1), Diagnosis.SLIP),
    ],
)
def test_each_misconception_shows_as_its_mistake(problem: Problem, pupil: Pupil, diagnosis: Diagnosis) -> None:
    response = pupil_solution(problem, pupil, random.Random(0))
    assert diagnose(problem, response)[1] == diagnosis
