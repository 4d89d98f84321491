"""Stage 2, the grading cascade: the user's own function, rules where there is a reference, Teacher1 for the rest.

An attempt that none can decide is `unknown`: no reward, in no pair, tried again when the run resumes.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal
from weakref import WeakValueDictionary

from prosetting.core import pausing, stopping
from prosetting.core.artifacts import draw_seed
from prosetting.core.concurrency import Frontier, for_each, in_thread
from prosetting.core.group_commit import GroupCommit
from prosetting.core.journal import Journal
from prosetting.core.journal_rows import JudgeCheckKind, Split
from prosetting.core.progress import Progress
from prosetting.processors.answer_extraction import holds_no_answer
from prosetting.processors.answer_verifier import AnswerVerifier
from prosetting.processors.reward_function import RewardFunction
from prosetting.processors.teacher_judge import Decision, JudgeCheck, TeacherJudge
from prosetting.records import Grade, JudgeHealth, Question, Trajectory, Verdict
from prosetting.teachers.base import Teacher

ATTEMPTS_BETWEEN_CANARIES = 128
"""Of those that Teacher1 is expected to be asked about: all without a reference, few of the others."""
LEFT_OPEN_BY_RULES = 1 / 16
REGRADED_A_ROUND, DRAWN_TO_REGRADE = 24, 240
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
        # Attempts that Teacher1 is asked about at a time, of all the questions being graded.
        self._places = asyncio.Semaphore(concurrent_workers)
        # Rules take milliseconds and a reward function its time: calls in flight must not wait for them.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grading")

    def without_teacher(self) -> RewardCalculator:
        """One that grades with the same function and rules, and asks nobody."""
        return RewardCalculator(
            self._journal,
            self._commits,
            self._verifier,
            None,
            reward_function=self._reward_function,
            concurrent_workers=self._concurrent_workers,
            run_seed=self._run_seed,
        )

    async def grade(
        self,
        split: Split,
        round_: int,
        questions: Sequence[Question],
        *,
        attempts_a_question: int,
        sampled: Frontier | None = None,
        graded: Frontier | None = None,
    ) -> None:
        """Grade what is open, question by question in this order, each as soon as `sampled` has come past it.

        `attempts_a_question` says how many questions lie between two sets of canaries: a function of the pool, not
        of what is left of it, so that a resumed run meets the same ones, whose replies are kept.

        `graded` is told each question's place, and closed when not all come to be graded. Raises TeacherUnavailable
        when Teacher1 as a whole is out of reach, and RunPaused when it fails a canary; what is graded stays.
        """
        graded = graded or Frontier()
        progress = Progress(f"round {round_} · grading ({split})", len(questions))
        checks = _CanaryChecks(lambda number: self._check(split, round_, number))

        def in_order() -> Iterator[tuple[int, Question, int]]:
            """Each question with its place and its set of canaries."""
            expected = 0.0
            for place, question in enumerate(questions):
                yield place, question, int(expected) // ATTEMPTS_BETWEEN_CANARIES
                expected += attempts_a_question * (1 if question.reference is None else LEFT_OPEN_BY_RULES)

        async def grade_question(item: tuple[int, Question, int]) -> None:
            place, question, canaries = item
            if sampled is not None:
                await sampled.reached(place)
            with progress.busy():
                await self._grade_question(split, round_, question, lambda: checks.passed(canaries), progress)
            graded.done(place)
            progress.advance(1)

        try:
            with progress:
                await for_each(in_order(), grade_question, limit=self._concurrent_workers)
            if split == "train":
                await self._regrade(round_, questions, attempts_a_question)
        finally:
            if graded.passed < len(questions):
                graded.close()

    def in_training(self, round_: int) -> Callable[..., Coroutine[Any, Any, Decision]]:
        """A grader of attempts that a trainer draws: `await grade(question, response, cut_off=…)`.

        The same cascade and canaries as in `grade`, but such attempts are in no journal: there are many, and they
        are gone when the weights have moved. Raises as `grade` does.
        """
        checks = _CanaryChecks(lambda number: self._check("train", round_, number, stage="training-"))
        asked = 0

        async def grade(question: Question, response: str, *, cut_off: bool) -> Decision:
            nonlocal asked
            ended: Literal["stop", "length"] = "length" if cut_off else "stop"
            attempt = Trajectory(round_, question.question_id, 0, response, ended, 0)
            decision = await in_thread(
                lambda: decide_without_teacher(question, attempt, self._verifier, self._reward_function),
                executor=self._thread,
            )
            if decision is not None or self._judge is None:
                return decision or Decision(Verdict.UNKNOWN, "rules", "the rules abstain")
            number, asked = asked // ATTEMPTS_BETWEEN_CANARIES, asked + 1
            await checks.passed(number)
            async with self._places:
                stopping.check()
                return await self._judge.decide(question, response)

        return grade

    async def _grade_question(
        self,
        split: Split,
        round_: int,
        question: Question,
        judge_is_sound: Callable[[], Awaitable[None]],
        progress: Progress,
    ) -> None:
        """Attempts with the same text are decided once. Each verdict is committed as it falls."""
        found = self._journal.attempts_of(split, round_, question.question_id)
        left_open = _equal_attempts(t for t, grade in found if grade is None or grade.verdict is Verdict.UNKNOWN)
        if not left_open:
            return
        async with pausing.work():
            decisions = await in_thread(
                lambda: [
                    decide_without_teacher(question, same[0], self._verifier, self._reward_function)
                    for same in left_open
                ],
                executor=self._thread,
            )
        judged = list(zip(left_open, decisions, strict=True))
        decided = [grade for same, decision in judged if decision is not None for grade in _grades(same, decision)]
        if decided:
            await self._commits.write(lambda: self._journal.add_grades(split, decided))
            progress.count(Counter(grade.verdict for grade in decided))
        to_ask = [same for same, decision in judged if decision is None]
        if to_ask and self._judge is not None:
            await judge_is_sound()

        async def ask(same: Sequence[Trajectory]) -> None:
            decision = Decision(Verdict.UNKNOWN, "rules", "the rules abstain")
            if self._judge is not None:
                async with self._places, pausing.work():
                    stopping.check()
                    decision = await self._judge.decide(question, same[0].response)
            await self._commits.write(lambda: self._journal.add_grades(split, _grades(same, decision)))
            progress.count({decision.verdict: len(same)})

        await for_each(to_ask, ask, limit=len(to_ask))

    async def _check(self, split: Split, round_: int, number: int, stage: str = "") -> None:
        assert self._judge is not None
        async with pausing.work():
            await self._judge.check(
                self._batch_name(split, round_, number, stage),
                lambda check: self._record(split, round_, "canary", check),
            )

    def _batch_name(self, split: Split, round_: int, number: int, stage: str) -> str:
        """After a failed canary the batch gets others: the recorded reply would fail it for ever."""
        prefix = f"{split}-{stage}{round_}-{number}"
        failed = [
            check
            for check in self._journal.judge_checks(split, round_)
            if check.kind == "canary" and check.name.startswith(f"{prefix}.") and check.failed
        ]
        return f"{prefix}.{len({check.name.rpartition('/')[0] for check in failed})}"

    async def _regrade(self, round_: int, questions: Sequence[Question], attempts_a_question: int) -> None:
        """Let Teacher1 grade a drawn sample of what the rules decided: stored, never used as a verdict."""
        if self._judge is None:
            return
        judge = self._judge
        known = {check.name for check in self._journal.judge_checks("train", round_) if check.kind == "regraded"}

        async def ask(item: tuple[Question, Trajectory, Verdict]) -> None:
            question, trajectory, verdict = item
            name = f"{question.question_id}/{trajectory.attempt}"
            if name not in known:
                async with pausing.work():
                    check = await judge.ask_known(name, question, trajectory.response, verdict)
                self._record("train", round_, "regraded", check)

        drawn = islice(self._decided_by_rules(round_, questions, attempts_a_question), REGRADED_A_ROUND)
        await for_each(list(drawn), ask, limit=self._concurrent_workers)

    def _decided_by_rules(
        self, round_: int, questions: Sequence[Question], attempts_a_question: int
    ) -> Iterator[tuple[Question, Trajectory, Verdict]]:
        """Of attempts drawn from the seed, those that the rules decided and that hold an answer."""
        slots = range(len(questions) * attempts_a_question)
        rng = random.Random(draw_seed(self._run_seed, "regrade", round_))
        for slot in rng.sample(slots, min(len(slots), DRAWN_TO_REGRADE)):
            question = questions[slot // attempts_a_question]
            found = self._journal.attempts_of("train", round_, question.question_id)
            for trajectory, grade in found[slot % attempts_a_question :][:1]:
                decided = grade is not None and grade.decided_by == "rules" and grade.verdict is not Verdict.UNKNOWN
                if grade is not None and decided and not holds_no_answer(trajectory.response):
                    yield question, trajectory, grade.verdict

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


def _equal_attempts(trajectories: Iterable[Trajectory]) -> list[list[Trajectory]]:
    """Attempts at one question by text and end."""
    groups: dict[tuple[str, str], list[Trajectory]] = {}
    for trajectory in trajectories:
        groups.setdefault((trajectory.response, trajectory.finish_reason), []).append(trajectory)
    return list(groups.values())


class _CanaryChecks:
    """One check of the judge for each set of questions, asked for by whichever of them comes first."""

    def __init__(self, check: Callable[[int], Awaitable[None]]) -> None:
        self._check = check
        self._passed: set[int] = set()
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    async def passed(self, number: int) -> None:
        """Returns once set `number` has passed. Raises RunPaused when it has not."""
        if number in self._passed:
            return
        lock = self._locks.setdefault(number, asyncio.Lock())
        async with lock:
            if number not in self._passed:
                await self._check(number)
                self._passed.add(number)


def _grades(group: Sequence[Trajectory], decision: Decision) -> list[Grade]:
    return [Grade(t.round, t.question_id, t.attempt, *decision) for t in group]


def count_grades(counts: Mapping[tuple[str, str], int]) -> GradeCounts:
    """From the journal's `verdict_counts`; the average reward leaves unknown attempts out, an outage is not a zero."""
    verdicts, decided = Counter[str](), Counter[str]()
    for (verdict, who), count in counts.items():
        verdicts[verdict] += count
        decided[who] += count if verdict in (Verdict.CORRECT, Verdict.INCORRECT) else 0
    return GradeCounts(
        {verdict.value: verdicts[verdict.value] for verdict in Verdict},
        {name: decided[name] for name in ("rules", "teacher1", "reward_function")},
        verdicts[Verdict.CORRECT] / total if (total := decided.total()) else None,
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
