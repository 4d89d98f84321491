"""The pupil with misconceptions, whose solutions the demo's solver is warm-started on.

A solver that is merely under-trained errs at random, and preference training has nothing to unlearn.
This pupil errs by habit: it reads taking away as adding, forgets to carry, and slips by one.
"""

from __future__ import annotations

import random

from prosetting.demo.recipe import Pupil
from prosetting.teachers.arithmetic import LARGEST, Problem


def pupil_solution(problem: Problem, pupil: Pupil, rng: random.Random) -> str:
    """One worked solution in the family's form, with the pupil's mistakes carried through to the end."""
    value, equations = problem.start, []
    for step in problem.steps:
        operator = step.operator
        if operator == "-" and rng.random() < pupil.takes_away_is_plus:
            operator = "+"
        result = value + step.operand if operator == "+" else value - step.operand
        carries = operator == "+" and value % 10 + step.operand % 10 >= 10
        if carries and rng.random() < pupil.carry_forgotten:
            result -= 10
        if rng.random() < pupil.slip:
            result += rng.choice((-1, 1))
        result = min(max(result, 0), LARGEST)
        equations.append(f"{value}{operator}{step.operand}={result}")
        value = result
    return f"{', '.join(equations)} \\boxed{{{value}}}"
