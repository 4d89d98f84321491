"""Stage 2, the grading cascade: rules where there is a reference, Teacher1 for all they leave open.

An attempt that neither can decide is `unknown`: no reward, in no pair, tried again when the run resumes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prosetting.core.concurrency import for_each
from prosetting.core.journal import Journal, Split
from prosetting.core.progress import Progress
from prosetting.errors import TeacherReplyError
from prosetting.processors.answer_verifier import AnswerVerifier
from prosetting.records import DecidedBy, Grade, Question, QuestionId, Trajectory, Verdict
from prosetting.teachers.base import Teacher

RULES_COMMIT_EVERY = 200


class Decision(NamedTuple):
    """A verdict, who gave it, and why."""

    verdict: Verdict
    decided_by: DecidedBy
    diagnosis: str


@dataclass(frozen=True, slots=True)
class GradeCounts:
    """How a round's attempts were decided. `decided_by` counts correct and incorrect verdicts only."""

    verdicts: dict[str, int]
    decided_by: dict[str, int]
    average_reward: float | None


class RewardCalculator:
    """Grades what the journal holds ungraded and commits each verdict as it falls.

    `teacher` None leaves to `unknown` what the rules cannot decide.
    """

    def __init__(
        self, journal: Journal, verifier: AnswerVerifier, teacher: Teacher | None, concurrent_workers: int
    ) -> None:
        self._journal = journal
        self._verifier = verifier
        self._teacher = teacher
        self._concurrent_workers = concurrent_workers

    async def grade(self, split: Split, round_: int, questions: Mapping[QuestionId, Question]) -> None:
        """Raises TeacherUnavailable when Teacher1 as a whole is out of reach; what is graded stays."""
        groups = _equal_attempts(self._journal.ungraded(split, round_))
        progress = Progress(f"round {round_} · grading ({split})", sum(map(len, groups)))
        left_open: list[list[Trajectory]] = []
        batch: list[Grade] = []
        for group in groups:
            decision = decide_by_rules(self._verifier, questions[group[0].question_id], group[0].response)
            if decision is None:
                left_open.append(group)
                continue
            batch += _grades(group, decision)
            progress.advance(len(group))
            if len(batch) >= RULES_COMMIT_EVERY:
                self._journal.add_grades(split, batch)
                batch = []
        self._journal.add_grades(split, batch)

        async def ask(group: Sequence[Trajectory]) -> None:
            decision = await decide_by_teacher(self._teacher, questions[group[0].question_id], group[0].response)
            self._journal.add_grades(split, _grades(group, decision))
            progress.advance(len(group))

        await for_each(left_open, ask, limit=self._concurrent_workers)


def decide_by_rules(verifier: AnswerVerifier, question: Question, response: str) -> Decision | None:
    """The rules' verdict; None where they abstain or there is no reference to compare with."""
    if question.reference is None:
        return None
    found = verifier.verify(question.text, question.reference, response)
    return None if found.verdict is Verdict.UNKNOWN else Decision(found.verdict, "rules", found.detail)


async def decide_by_teacher(teacher: Teacher | None, question: Question, response: str) -> Decision:
    """Teacher1's verdict, `unknown` when it gave no usable reply or there is no teacher."""
    if teacher is None:
        return Decision(Verdict.UNKNOWN, "rules", "the rules abstain")
    try:
        reply = await teacher.grade(question, response)
    except TeacherReplyError as error:
        return Decision(Verdict.UNKNOWN, "teacher1", str(error))
    return Decision(reply.verdict, "teacher1", reply.diagnosis)


def _equal_attempts(trajectories: Sequence[Trajectory]) -> list[list[Trajectory]]:
    """Attempts with the same text at the same question, graded once for all."""
    groups: dict[tuple[QuestionId, str], list[Trajectory]] = {}
    for trajectory in trajectories:
        groups.setdefault((trajectory.question_id, trajectory.response), []).append(trajectory)
    return list(groups.values())


def _grades(group: Sequence[Trajectory], decision: Decision) -> list[Grade]:
    return [Grade(t.round, t.question_id, t.attempt, *decision) for t in group]


def count_grades(grades: Sequence[Grade]) -> GradeCounts:
    """Counts of one round; the average reward leaves unknown attempts out, an outage is not a zero."""
    rewards = [grade.reward for grade in grades if grade.reward is not None]
    decided = Counter(str(grade.decided_by) for grade in grades if grade.reward is not None)
    verdicts = Counter(str(grade.verdict) for grade in grades)
    return GradeCounts(
        {verdict.value: verdicts[verdict.value] for verdict in Verdict},
        {"rules": decided["rules"], "teacher1": decided["teacher1"]},
        sum(rewards) / len(rewards) if rewards else None,
    )
