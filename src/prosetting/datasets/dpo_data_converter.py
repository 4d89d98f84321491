"""Graded attempts → preference pairs. Pure: the same grades give the same pairs, in the same order.

All correct × incorrect attempts of one question (Cartesian product), equal texts counted once. A text that was
graded both ways, and an attempt whose verdict is unknown, is in no pair.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from itertools import product

from prosetting.core.artifacts import draw_seed
from prosetting.records import REFERENCE_ATTEMPT, Grade, PreferencePair, QuestionId, Trajectory, Verdict

VALIDATION_SHARE = 0.1
MIN_STEP_WORDS = 4
_WORD = re.compile(r"[^\W\d_]{2,}|[0-9]+ *[-+*/=×÷]")
_ANNOTATION = re.compile(r"<<[^<>]*>>")  # GSM8K's calculator marks, which no Solver is to write


def is_validation(question_id: QuestionId) -> bool:
    """The 90/10 split: a function of the question's id, so that a question stays on its side in every round."""
    return int(question_id[:8], 16) / 16**8 < VALIDATION_SHARE


def pairs_of_question(
    prompt: str,
    attempts: Sequence[tuple[Trajectory, Grade]],
    *,
    run_seed: int,
    most: int | None,
    shuffle_labels: bool,
    reference_solution: str | None = None,
) -> list[PreferencePair]:
    """The pairs of one question's attempts in one round, by chosen and rejected attempt.

    `most` keeps that many, picked by a hash of the pair's name. `shuffle_labels` permutes the verdicts among the
    distinct texts first: the control experiment, in which preference carries no information.
    `reference_solution`, where it is worked out, is the one chosen answer of a question without a correct attempt.
    """
    labelled = _distinct(attempts)
    if shuffle_labels and labelled:
        first = labelled[0][0]
        verdicts = [verdict for _, verdict in labelled]
        random.Random(draw_seed(run_seed, "shuffle", first.round, first.question_id)).shuffle(verdicts)
        labelled = [(trajectory, verdict) for (trajectory, _), verdict in zip(labelled, verdicts, strict=True)]
    correct = [trajectory for trajectory, verdict in labelled if verdict is Verdict.CORRECT]
    incorrect = [trajectory for trajectory, verdict in labelled if verdict is Verdict.INCORRECT]
    pairs = [
        PreferencePair(prompt, good.response, bad.response, good.question_id, good.attempt, bad.attempt, good.round)
        for good, bad in product(correct, incorrect)
    ]
    if not correct and is_worked_out(reference_solution):
        solution = _ANNOTATION.sub("", str(reference_solution)).strip()
        pairs = [
            PreferencePair(prompt, solution, bad.response, bad.question_id, REFERENCE_ATTEMPT, bad.attempt, bad.round)
            for bad in incorrect
        ]
    if most is not None and len(pairs) > most:
        pairs = sorted(pairs, key=lambda pair: _pick_order(run_seed, pair))[:most]
        pairs.sort(key=lambda pair: (pair.chosen_attempt, pair.rejected_attempt))
    return pairs


def is_worked_out(solution: str | None) -> bool:
    """Whether a solution shows its steps: a bare answer as the chosen one would teach to guess."""
    return solution is not None and len(_WORD.findall(solution)) >= MIN_STEP_WORDS


def _pick_order(run_seed: int, pair: PreferencePair) -> int:
    return draw_seed(run_seed, "pair", pair.round, pair.question_id, pair.chosen_attempt, pair.rejected_attempt)


def _distinct(attempts: Sequence[tuple[Trajectory, Grade]]) -> list[tuple[Trajectory, Verdict]]:
    """The first attempt of each distinct text with its verdict, without unknown or contradicted ones."""
    first: dict[str, Trajectory] = {}
    verdicts: dict[str, set[Verdict]] = {}
    for trajectory, grade in attempts:
        if grade.verdict is Verdict.UNKNOWN:
            continue
        first.setdefault(trajectory.response, trajectory)
        verdicts.setdefault(trajectory.response, set()).add(grade.verdict)
    return [(first[text], found.pop()) for text, found in verdicts.items() if len(found) == 1]
