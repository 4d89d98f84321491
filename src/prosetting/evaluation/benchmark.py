"""The scores of graded attempts, all questions together and one by one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prosetting.evaluation.scores import CORRECT, Metric, QuestionVotes, Vote, majority_at_k, metrics, score
from prosetting.records import GREEDY_ATTEMPT, Grade, HeldoutScore, Question, QuestionId, Trajectory, Verdict

VoteOf = Callable[[str], str | None]
"""The final answer that a response states, in one spelling; None where it states none."""


def score_of_grades(grades: Iterable[Grade], seed: int) -> HeldoutScore | None:
    """The score of graded attempts; unknown verdicts are left out. None without any sampled, decided attempt."""
    sampled_Q: dict[str, list[float]] = {}
    greedy_Q: list[float] = []
    for grade in grades:
        if grade.reward is None:
            continue
        if grade.attempt == GREEDY_ATTEMPT:
            greedy_Q.append(grade.reward)
        else:
            sampled_Q.setdefault(grade.question_id, []).append(grade.reward)
    return score(list(sampled_Q.values()), greedy_Q, seed) if sampled_Q else None


def pass_rates(grades: Iterable[Grade]) -> dict[QuestionId, float]:
    """The share of correct among a question's sampled, decided attempts, for each question that has one."""
    rewards: dict[QuestionId, list[float]] = {}
    for grade in grades:
        if grade.reward is not None and grade.attempt != GREEDY_ATTEMPT:
            rewards.setdefault(grade.question_id, []).append(grade.reward)
    return {question_id: sum(found) / len(found) for question_id, found in rewards.items()}


class QuestionScores:
    """Gathers graded attempts, a question at a time or in any order, and tells what they come to."""

    def __init__(self, vote_of: VoteOf) -> None:
        self._vote_of = vote_of
        self._questions: dict[QuestionId, Question] = {}
        self._attempts: dict[QuestionId, list[dict[str, Any]]] = {}
        self._votes: dict[QuestionId, list[Vote]] = {}
        self._greedy: dict[QuestionId, bool] = {}

    def add(self, question: Question, attempt: Trajectory, grade: Grade) -> None:
        """An unknown verdict is told and counts for nothing."""
        question_id = question.question_id
        self._questions.setdefault(question_id, question)
        answer = self._vote_of(attempt.response)
        row = {"attempt": attempt.attempt, "verdict": grade.verdict.value, "decided_by": grade.decided_by}
        self._attempts.setdefault(question_id, []).append({**row, "answer": answer, "response": attempt.response})
        correct = grade.verdict is Verdict.CORRECT
        if grade.verdict is Verdict.UNKNOWN:
            return
        if attempt.attempt == GREEDY_ATTEMPT:
            self._greedy[question_id] = correct
        else:
            self._votes.setdefault(question_id, []).append(CORRECT if correct else answer)

    def _of(self, question_id: QuestionId) -> QuestionVotes:
        return QuestionVotes(tuple(self._votes.get(question_id, ())), self._greedy.get(question_id))

    def metrics(self, seed: int) -> list[Metric]:
        return metrics([self._of(question_id) for question_id in self._questions], seed)

    def rows(self) -> Iterable[dict[str, Any]]:
        """One row a question, JSON-ready, with its attempts."""
        for question_id, question in self._questions.items():
            found = self._of(question_id)
            n = len(found.votes_A)
            yield {
                "question_id": question_id,
                "question": question.text,
                "reference": question.reference,
                "decided": n,
                "correct": found.correct,
                "pass_rate": found.pass_rate if n else None,
                "majority": majority_at_k(found.votes_A, n) if n else None,
                "greedy": found.greedy,
                "attempts": self._attempts[question_id],
            }

    @property
    def questions(self) -> int:
        return len(self._questions)

    @property
    def sampled(self) -> int:
        """Sampled attempts that are decided."""
        return sum(map(len, self._votes.values()))


def table(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Lines for a terminal: a task a file, as lm-eval prints its tasks, with 95 % intervals.

    Each result has `task`, `questions` and `metrics` (dicts of `Metric`).
    """
    rows = [["Task", "Metric", "Value", "95 % interval", "By", "Questions"]]
    for result in results:
        told = [_cells(line) for line in result["metrics"]]
        told = told or [["no attempt could be graded", "", "", "", str(result["questions"])]]
        rows += [["" if place else result["task"], *cells] for place, cells in enumerate(told)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return [f"| {lines[0]} |", f"|{'|'.join('-' * (width + 2) for width in widths)}|", *(f"| {x} |" for x in lines[1:])]


def _cells(line: Mapping[str, Any]) -> list[str]:
    interval = f"[{line['low']:.4f}, {line['high']:.4f}]"
    return [line["name"], f"{line['value']:.4f}", interval, line["interval"], str(line["questions"])]
