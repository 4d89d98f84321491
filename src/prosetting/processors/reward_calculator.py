"""Stage 2, the grading cascade: the user's own function, rules where there is a reference, Teacher1 for the rest.

An attempt that none can decide is `unknown`: no reward, in no pair, tried again when the run resumes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prosetting.core.artifacts import draw_seed
from prosetting.core.concurrency import for_each
from prosetting.core.group_commit import GroupCommit
from prosetting.core.journal import Journal
from prosetting.core.journal_rows import JudgeCheckKind, Split
from prosetting.core.progress import Progress
from prosetting.processors.answer_extraction import holds_no_answer
from prosetting.processors.answer_verifier import AnswerVerifier
from prosetting.processors.reward_function import RewardFunction
from prosetting.processors.teacher_judge import Decision, JudgeCheck, TeacherJudge
from prosetting.records import Grade, JudgeHealth, Question, QuestionId, Trajectory, Verdict
from prosetting.teachers.base import Teacher

RULES_COMMIT_EVERY = 200
BATCH = 128
"""Attempts between two sets of canaries."""
REGRADED_A_ROUND = 24
"""Attempts decided by rules that Teacher1 grades too, to know how far the two agree."""


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
        self,
        journal: Journal,
        commits: GroupCommit,
        verifier: AnswerVerifier,
        teacher: Teacher | None,
        *,
        reward_function: RewardFunction | None,
        concurrent_workers: int,
        run_seed: int,
    ) -> None:
        self._journal = journal
        self._commits = commits
        self._verifier = verifier
        self._reward_function = reward_function
        self._judge = TeacherJudge(teacher, verifier, run_seed) if teacher is not None else None
        self._concurrent_workers = concurrent_workers
        self._run_seed = run_seed

    async def grade(self, split: Split, round_: int, questions: Mapping[QuestionId, Question]) -> None:
        """Raises TeacherUnavailable when Teacher1 as a whole is out of reach, and RunPaused when it fails a
        canary; what is graded stays."""
        progress = Progress(
            f"round {round_} · grading ({split})", sum(1 for _ in self._journal.ungraded(split, round_))
        )
        self._grade_without_teacher(split, round_, questions, progress)
        left_open = _equal_attempts(self._journal.left_to_teacher(split, round_))
        batches = list(enumerate(left_open[start : start + BATCH] for start in range(0, len(left_open), BATCH)))

        async def grade_batch(numbered: tuple[int, Sequence[_Equal]]) -> None:
            await self._grade_batch(split, round_, *numbered, questions, progress)

        # Two at a time, so that the canaries of one are asked while the other's attempts are.
        await for_each(batches, grade_batch, limit=1 + -(-self._concurrent_workers // BATCH))
        if split == "train":
            await self._regrade(round_, questions)

    def _grade_without_teacher(
        self, split: Split, round_: int, questions: Mapping[QuestionId, Question], progress: Progress
    ) -> None:
        batch: list[Grade] = []
        for group in _equal_attempts((t, None) for t in self._journal.ungraded(split, round_)):
            first = group.attempts[0]
            decision = decide_without_teacher(
                questions[first.question_id], first, self._verifier, self._reward_function
            )
            if decision is None:
                continue
            batch += _grades(group.attempts, decision)
            progress.advance(len(group.attempts))
            if len(batch) >= RULES_COMMIT_EVERY:
                self._journal.add_grades(split, batch)
                batch = []
        self._journal.add_grades(split, batch)

    async def _grade_batch(
        self,
        split: Split,
        round_: int,
        number: int,
        batch: Sequence[_Equal],
        questions: Mapping[QuestionId, Question],
        progress: Progress,
    ) -> None:
        """`batch` holds all attempts that were ever left to the teacher, so that a resumed run has the same ones."""
        todo = [group for group in batch if group.verdict in (None, Verdict.UNKNOWN)]
        if todo and self._judge is not None:
            await self._judge.check(
                self._batch_name(split, round_, number), lambda check: self._record(split, round_, "canary", check)
            )

        async def ask(group: _Equal) -> None:
            first = group.attempts[0]
            decision = (
                await self._judge.decide(questions[first.question_id], first.response)
                if self._judge is not None
                else Decision(Verdict.UNKNOWN, "rules", "the rules abstain")
            )
            await self._commits.write(lambda: self._journal.add_grades(split, _grades(group.attempts, decision)))
            progress.advance(len(group.attempts))

        await for_each(todo, ask, limit=self._concurrent_workers)

    def _batch_name(self, split: Split, round_: int, number: int) -> str:
        """After a failed canary the batch gets others: the recorded reply would fail it for ever."""
        prefix = f"{split}-{round_}-{number}"
        failed = [
            check
            for check in self._journal.judge_checks(split, round_)
            if check.kind == "canary" and check.name.startswith(f"{prefix}.") and check.failed
        ]
        return f"{prefix}.{len({check.name.rpartition('/')[0] for check in failed})}"

    async def _regrade(self, round_: int, questions: Mapping[QuestionId, Question]) -> None:
        """Let Teacher1 grade a drawn sample of what the rules decided: stored, never used as a verdict."""
        if self._judge is None:
            return
        judge = self._judge
        decided = [
            (trajectory, grade)
            for trajectory, grade in self._journal.graded_attempts("train", round_)
            if grade.decided_by == "rules"
            and grade.verdict is not Verdict.UNKNOWN
            and not holds_no_answer(trajectory.response)
        ]
        decided.sort(
            key=lambda item: draw_seed(self._run_seed, "regrade", round_, item[0].question_id, item[0].attempt)
        )
        known = {check.name for check in self._journal.judge_checks("train", round_) if check.kind == "regraded"}

        async def ask(item: tuple[Trajectory, Grade]) -> None:
            trajectory, grade = item
            name = f"{trajectory.question_id}/{trajectory.attempt}"
            if name not in known:
                question = questions[trajectory.question_id]
                check = await judge.ask_known(name, question, trajectory.response, grade.verdict)
                self._record("train", round_, "regraded", check)

        await for_each(decided[:REGRADED_A_ROUND], ask, limit=self._concurrent_workers)

    def _record(self, split: Split, round_: int, kind: JudgeCheckKind, check: JudgeCheck) -> None:
        self._journal.add_judge_check(split, round_, kind, *check)


def decide_without_teacher(
    question: Question,
    attempt: Trajectory,
    verifier: AnswerVerifier,
    reward_function: RewardFunction | None,
) -> Decision | None:
    """The verdict of the user's function, then of the rules; None where all abstain.

    `unknown` comes from a call of the function that failed: such an attempt goes to nobody else.
    """
    if reward_function is not None:
        found = reward_function.judge(question.text, question.reference, attempt.response)
        # A call that failed decides nothing, and in the user's domain the rules may not hold.
        if found.failed or found.verdict is not Verdict.UNKNOWN:
            return Decision(found.verdict, "reward_function", found.detail)
    if question.reference is not None:
        cut_off = attempt.finish_reason == "length"
        ruled = verifier.verify(question.text, question.reference, attempt.response, cut_off=cut_off)
        if ruled.verdict is not Verdict.UNKNOWN:
            return Decision(ruled.verdict, "rules", ruled.detail)
    if holds_no_answer(attempt.response):
        return Decision(Verdict.INCORRECT, "rules", "nothing in the attempt could be an answer")
    return None


@dataclass(frozen=True, slots=True)
class _Equal:
    """Attempts with the same text at the same question, graded once for all. `verdict`: what they have so far."""

    attempts: list[Trajectory]
    verdict: Verdict | None


def _equal_attempts(trajectories: Iterable[tuple[Trajectory, Verdict | None]]) -> list[_Equal]:
    groups: dict[tuple[QuestionId, str, str], _Equal] = {}
    for trajectory, verdict in trajectories:
        key = (trajectory.question_id, trajectory.response, trajectory.finish_reason)
        groups.setdefault(key, _Equal([], verdict)).attempts.append(trajectory)
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
        {name: decided[name] for name in ("rules", "teacher1", "reward_function")},
        sum(rewards) / len(rewards) if rewards else None,
    )


def judge_health(journal: Journal, round_: int) -> JudgeHealth:
    """A round's checks of the judge, as stored."""
    counts = Counter(
        (check.kind, check.verdict is Verdict.UNKNOWN, check.passed) for check in journal.judge_checks("train", round_)
    )

    def count(kind: JudgeCheckKind) -> tuple[int, int, int]:
        right, unknown = counts[kind, False, True], counts[kind, True, False]
        return right + unknown + counts[kind, False, False], right, unknown

    return JudgeHealth(*count("canary"), *count("regraded"))
