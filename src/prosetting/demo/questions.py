"""The demo's questions, and the wall between those that teach and those that measure.

Every problem belongs to one side by the hash of its chain, such as "5+4-3": held-out problems have chains
that no problem of the warm start or of the seed pool has, under any name, thing or verb. The side does
not depend on the seed. Held-out stories are also told of other people than those of the pool, so that no run of
eight words of theirs stands in a question that teaches (every such run holds a name); the warm start knows both.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from prosetting.demo.pupil import pupil_solution
from prosetting.demo.recipe import Recipe
from prosetting.teachers.arithmetic import NAMES, Problem, chain, random_problem, render, solve

STEPS_OF_THE_DEMO = (1, 2, 3)
HELDOUT_ONE_IN = 5
POOL_NAMES, HELDOUT_NAMES = NAMES[:5], NAMES[5:]
WITHOUT_REFERENCE_ONE_IN = 4


def is_heldout(problem: Problem) -> bool:
    """Whether this problem's chain may be used for measuring only."""
    return hashlib.sha256(chain(problem).encode()).digest()[0] % HELDOUT_ONE_IN == 0


def draw_problems(rng: random.Random, count: int, *, heldout: bool, names: Sequence[str] = NAMES) -> list[Problem]:
    """`count` problems about these people, with different texts, all of one side, one, two and three steps in turn."""
    problems: dict[str, Problem] = {}
    while len(problems) < count:
        problem = random_problem(rng, STEPS_OF_THE_DEMO[len(problems) % len(STEPS_OF_THE_DEMO)])
        if problem.name not in names:
            continue
        if is_heldout(problem) == heldout:
            problems[render(problem)] = problem
    return list(problems.values())


def warm_start_examples(seed: int, recipe: Recipe) -> list[tuple[str, str]]:
    """Question and the pupil's solution, (examples, 2)."""
    rng = random.Random(f"{seed} warm start")
    problems = draw_problems(rng, recipe.examples, heldout=False)
    return [(render(problem), pupil_solution(problem, recipe.pupil, rng)) for problem in problems]


def seed_pool(seed: int, recipe: Recipe) -> list[dict[str, str]]:
    """Rows of the first round's question file. One in four carries no answer, so that Teacher1 decides."""
    rng = random.Random(f"{seed} seed pool")
    problems = draw_problems(rng, recipe.seed_questions, heldout=False, names=POOL_NAMES)
    rows = [{"question": render(problem), "answer": str(solve(problem))} for problem in problems]
    for row in rows[::WITHOUT_REFERENCE_ONE_IN]:
        del row["answer"]
    return rows


def heldout_rows(seed: int, recipe: Recipe) -> list[dict[str, str]]:
    """Rows of the held-out file, each with its answer."""
    rng = random.Random(f"{seed} held out")
    problems = draw_problems(rng, recipe.heldout_questions, heldout=True, names=HELDOUT_NAMES)
    return [{"question": render(problem), "answer": str(solve(problem))} for problem in problems]
