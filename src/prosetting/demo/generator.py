"""The demo's Generator before it learns anything in the loop: a small model that can just write stories of the family.

It has seen stories, each with the solution of the pupil with misconceptions, and nothing of what makes a good next
question: its examples' stories are drawn at random, whatever the kind that is asked for, the question before and the
attempt. So many of its references are wrong at first, which the gate finds, and which questions are useful is for it
to learn from their measured pass rates.
"""

from __future__ import annotations

import random

from prosetting.datasets.generator_text import generator_completion, generator_prompt
from prosetting.demo.pupil import pupil_solution
from prosetting.demo.questions import POOL_NAMES, draw_problems
from prosetting.demo.recipe import GeneratorRecipe
from prosetting.records import QuestionKind, Verdict
from prosetting.teachers.arithmetic import final_answer, render, solve

KINDS: tuple[QuestionKind, ...] = ("easier", "variant", "harder")


def generator_examples(seed: int, recipe: GeneratorRecipe) -> list[tuple[str, str]]:
    """Prompt and completion, (examples, 2). No chain of a held-out problem and none of its people is among them."""
    rng = random.Random(f"{seed} generator")
    parents = draw_problems(rng, recipe.examples, heldout=False, names=POOL_NAMES)
    children = draw_problems(rng, recipe.examples, heldout=False, names=POOL_NAMES)
    examples = []
    for parent, child in zip(parents, children, strict=True):
        attempt = pupil_solution(parent, recipe.pupil, rng)
        right = final_answer(attempt) == solve(parent)
        verdict = Verdict.CORRECT if right else Verdict.INCORRECT
        solution = pupil_solution(child, recipe.pupil, rng)
        prompt = generator_prompt(render(parent), attempt, verdict, rng.choice(KINDS))
        examples.append((prompt, generator_completion(render(child), solution, str(final_answer(solution)))))
    return examples
