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
from prosetting.records import REFERENCE_ATTEMPT, Grade, QuestionId, QuestionPairs, Trajectory, Verdict

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
) -> QuestionPairs | None:
    """The pairs of one question's attempts in one round, by chosen and rejected attempt; None where there are none.

    `most` keeps that many, picked by a hash of the pair's name. `shuffle_labels` permutes the verdicts among the
    distinct texts first: the control experiment, in which preference carries no information.
    `reference_solution`, where it is worked out, is the one chosen answer of a question without a correct attempt.
    """
    labelled = _distinct(attempts)
    if not labelled:
        return None
    round_, question_id = labelled[0][0].round, labelled[0][0].question_id
    verdicts = [verdict for _, verdict in labelled]
    if shuffle_labels:
        random.Random(draw_seed(run_seed, "shuffle", round_, question_id)).shuffle(verdicts)
    texts = {trajectory.attempt: trajectory.response for trajectory, _ in labelled}
    correct = [attempt for attempt, verdict in zip(texts, verdicts, strict=True) if verdict is Verdict.CORRECT]
    incorrect = [attempt for attempt, verdict in zip(texts, verdicts, strict=True) if verdict is Verdict.INCORRECT]
    if not correct and is_worked_out(reference_solution):
        texts[REFERENCE_ATTEMPT] = _ANNOTATION.sub("", str(reference_solution)).strip()
        correct = [REFERENCE_ATTEMPT]
    pairs = list(product(correct, incorrect))
    if most is not None and len(pairs) > most:
        pairs = sorted(sorted(pairs, key=lambda pair: draw_seed(run_seed, "pair", round_, question_id, *pair))[:most])
    if not pairs:
        return None
    chosen, rejected = zip(*pairs, strict=True)
    place = {attempt: index for index, attempt in enumerate(dict.fromkeys(chosen + rejected))}
    return QuestionPairs(
        prompt,
        question_id,
        round_,
        completions=tuple(texts[attempt] for attempt in place),
        attempts=tuple(place),
        chosen=tuple(place[attempt] for attempt in chosen),
        rejected=tuple(place[attempt] for attempt in rejected),
    )


def is_worked_out(solution: str | None) -> bool:
    """Whether a solution shows its steps: a bare answer as the chosen one would teach to guess."""
    return solution is not None and len(_WORD.findall(solution)) >= MIN_STEP_WORDS


def _distinct(attempts: Sequence[tuple[Trajectory, Grade]]) -> list[tuple[Trajectory, Verdict]]:
    """The first attempt of each distinct text with its verdict, without unknown or contradicted ones."""
    found: dict[str, tuple[Trajectory, Verdict | None]] = {}
    for trajectory, grade in attempts:
        if grade.verdict is Verdict.UNKNOWN:
            continue
        first, verdict = found.setdefault(trajectory.response, (trajectory, grade.verdict))
        if verdict is not grade.verdict:
            found[trajectory.response] = (first, None)
    return [(trajectory, verdict) for trajectory, verdict in found.values() if verdict is not None]
