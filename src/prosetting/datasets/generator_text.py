"""What the Generator reads and what it writes, as text: the same for training and for sampling. Pure.

A question comes with its worked solution and its final answer, so that a reference stands beside it which the teacher,
who solves the question unseen, can agree with or not. What comes back is hostile text: nothing in it is obeyed, and
the gate looks at it as at any other question.
"""

from __future__ import annotations

from dataclasses import dataclass

from prosetting.records import QuestionKind, Verdict
from prosetting.teachers.prompts import cut_middle

MAX_ATTEMPT_CHARS = 2_000
SOLUTION, ANSWER = "\nSolution: ", "\nAnswer: "


@dataclass(frozen=True, slots=True)
class Draft:
    """A question as the Generator wrote it; `reference` is empty where it gave no answer."""

    text: str
    solution: str | None
    reference: str


def generator_prompt(question: str, attempt: str, verdict: Verdict, kind: QuestionKind) -> str:
    """The user's turn: what Teacher2 is shown too, less its own analysis."""
    return (
        f"Write the next question, of kind {kind}, for who made this attempt."
        " Then, on lines of their own, Solution: and Answer:\n"
        f"Question: {question}\nAttempt ({verdict.value}): {cut_middle(attempt, MAX_ATTEMPT_CHARS)}"
    )


def generator_completion(question: str, solution: str | None, reference: str) -> str:
    """What it is to write; `read_draft` reads it back."""
    return f"{question}{SOLUTION + solution if solution else ''}{ANSWER}{reference}"


def read_draft(text: str) -> Draft | None:
    """The question, and as much as there is of solution and answer; None where there is no question."""
    rest, answered, answer = text.rpartition(ANSWER)
    if not answered:
        rest, answer = text, ""
    question, _, solution = rest.partition(SOLUTION)
    question = question.removeprefix("Question: ").strip()
    return Draft(question, solution.strip() or None, answer.strip()) if question else None
