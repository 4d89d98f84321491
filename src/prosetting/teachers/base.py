"""What the run asks of a teacher, and nothing of how it is reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from prosetting.records import Question, QuestionKind, Verdict


@dataclass(frozen=True, slots=True)
class GradeReply:
    """Teacher1's verdict on one attempt; `unknown` when the teacher itself cannot tell."""

    verdict: Verdict
    diagnosis: str


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """An attempt that was graded incorrect, as Teacher2 sees it."""

    response: str
    diagnosis: str


@dataclass(frozen=True, slots=True)
class NewQuestion:
    """A question that Teacher2 wrote, with its reference answer and, where it gave one, a worked solution."""

    text: str
    reference: str
    solution: str | None
    kind: QuestionKind


class Teacher(Protocol):
    """Teacher1 grades; Teacher2 analyses, enhances and solves. One object may be both.

    Every method raises TeacherReplyError when this one item got no usable reply (it stays open),
    and TeacherUnavailable when the teacher as a whole is out of reach.
    """

    async def grade(self, question: Question, response: str) -> GradeReply:
        """Is the attempt's final answer right?"""
        ...

    async def analyse(self, question: Question, failures: Sequence[FailedAttempt]) -> str:
        """What goes wrong in these attempts, in a sentence or two."""
        ...

    async def enhance(
        self, question: Question, failures: Sequence[FailedAttempt], analysis: str, kind: QuestionKind
    ) -> NewQuestion:
        """A new question from these failures: `easier`, `variant` (same with other numbers) or `harder`."""
        ...

    async def solve(self, question_text: str) -> str | None:
        """The teacher's own final answer to a question, None when it does not know."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...
