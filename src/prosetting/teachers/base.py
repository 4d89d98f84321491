"""What the run asks of a teacher, and nothing of how it is reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from prosetting.records import Question, QuestionKind, Verdict


@dataclass(frozen=True, slots=True)
class GradeReply:
    """Teacher1's verdict on one attempt; `unknown` when the teacher itself cannot tell.

    `final_answer` is what the teacher read as the attempt's final answer, None where it found none.
    """

    verdict: Verdict
    final_answer: str | None
    diagnosis: str


@dataclass(frozen=True, slots=True)
class ShownAttempt:
    """A graded attempt as Teacher2 sees it; `diagnosis` is empty for a correct one."""

    response: str
    verdict: Verdict
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

    async def analyse(self, question: Question, attempt: ShownAttempt) -> str:
        """What goes wrong in this failed attempt, in a sentence or two."""
        ...

    async def enhance(
        self, question: Question, attempt: ShownAttempt, analysis: str, kind: QuestionKind
    ) -> NewQuestion:
        """A new question: `harder`, from a successful attempt (`analysis` is empty then); `variant`, aimed at the
        mistake of a failed one; or `easier`, for a question that is out of reach."""
        ...

    async def solve(self, question_text: str) -> str | None:
        """The teacher's own final answer to a question, None when it does not know."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...
