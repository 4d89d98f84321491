"""The question pool: stage 5, the next round's questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

from prosetting.config import Settings
from prosetting.core import pausing
from prosetting.core.artifacts import draw_seed
from prosetting.core.concurrency import Frontier, for_each
from prosetting.core.group_commit import GroupCommit
from prosetting.core.journal import Journal
from prosetting.core.pool_questions import QuestionsById
from prosetting.core.progress import Progress
from prosetting.errors import TeacherReplyError
from prosetting.managers.generator_drafts import DRAFTED_AHEAD, GeneratorDrafts
from prosetting.managers.pool_policy import POOL_POLICIES, Candidates
from prosetting.processors.curriculum import curriculum_of
from prosetting.processors.question_enhancer import (
    Enhancement,
    Written,
    enhance_question,
    plan_enhancement,
    solve_draft,
)
from prosetting.processors.question_gate import REPEATS, QuestionGate, same_answer
from prosetting.processors.question_similarity import Diversity, diversity
from prosetting.records import Grade, PoolReason, Question, QuestionId, Trajectory, Verdict, question_id_of
from prosetting.teachers.base import NewQuestion, Teacher

POOL_DECIDED_BY = (
    "seed",
    "pool_policy",
    "curriculum",
    "curriculum_band",
    "enhance_too_hard",
    "new_questions_per_round",
    "replay_failed_share",
    "replay_other_share",
    "max_pool_questions",
)
"""The settings that decide the next pool."""
WAVE = 128
"""Questions put to the gate together: the event loop waits for it meanwhile."""
DIVERSITY_SAMPLE = 2_000
GRADING_BEHIND = 2
"""Sampled questions that wait to be graded, for each one being graded, beyond which Teacher2 waits too."""


@dataclass(frozen=True, slots=True)
class QuestionOutcome:
    """A question of the pool with its graded attempts of the round."""

    question: Question
    attempts: Sequence[tuple[Trajectory, Grade]]

    @property
    def pass_rate(self) -> float:
        """Share of correct among the decided attempts."""
        rewards = [grade.reward for _, grade in self.attempts if grade.reward is not None]
        return sum(rewards) / len(rewards) if rewards else 0.0


def outcomes(journal: Journal, round_: int) -> Iterator[QuestionOutcome]:
    """The questions of a round's pool with their graded attempts, in question-id order."""
    for entry, attempts in journal.pool_with_attempts(round_):
        yield QuestionOutcome(entry.question, attempts)


@dataclass(frozen=True, slots=True)
class NewQuestions:
    """What stage 5 came to: the admitted questions in question-id order, and how many were turned away and why."""

    admitted: list[QuestionId]
    counts: dict[str, int]
    diversity: Diversity


@dataclass(frozen=True, slots=True)
class WritersShare:
    """The questions on which one writer builds, in their order, and how many new ones it may bring."""

    parents: list[QuestionId]
    most: int


class QuestionManager:
    """Builds the pool of the next round: new questions of Teacher2 and the Generator, failed replays, other replays."""

    def __init__(
        self, journal: Journal, commits: GroupCommit, settings: Settings, held_out: Iterable[Question]
    ) -> None:
        self._journal = journal
        self._commits = commits
        self._settings = settings
        self._held_out = list(held_out)
        self._drafts = GeneratorDrafts(journal, self._held_out)
        self._policy = POOL_POLICIES[settings.pool_policy]

    def parents(self, round_: int) -> list[QuestionId]:
        """The questions of a round in the order in which they are built on: drawn from the run's seed."""
        in_pool_order = self._journal.pool_ids(round_)
        return sorted(in_pool_order, key=lambda question_id: self._draw(round_, "enhance", question_id))

    def shares(self, round_: int) -> tuple[WritersShare, WritersShare]:
        """Teacher2's and the Generator's: who builds on which questions does not depend on how they went."""
        parents, share = self.parents(round_), self._settings.generator_share
        most = self._settings.new_questions_per_round or len(parents)
        generators, its_most = generators_share(parents, share), int(most * share)
        return (
            WritersShare([parent for parent in parents if parent not in generators], most - its_most),
            WritersShare([parent for parent in parents if parent in generators][: DRAFTED_AHEAD * its_most], its_most),
        )

    def to_draft(self, round_: int) -> list[QuestionId]:
        """The questions on which the Generator builds in one turn, in their order. The round must be graded."""
        if not self._policy.asks_teacher2:
            return []
        return [parent for parent in self.shares(round_)[1].parents if self.plan(round_, parent)]

    def to_try(self, round_: int) -> QuestionsById:
        """The Generator's drafts for the Solver to try, as questions."""
        return self._drafts.to_try(round_, self.to_draft(round_))

    async def write_questions(
        self, round_: int, sampled: Frontier, graded: Frontier, teacher2: Teacher, drafted: Frontier | None = None
    ) -> NewQuestions:
        """The admitted questions, Teacher2's first. Asked for in waves until a share is full or its questions are used
        up; neither makes up for what the other is short of.

        Begins while the round is still being graded: of a question that `graded` has come past Teacher2 is asked at
        once where it will be asked in any case. Who answers first decides nothing: parents stand in an order drawn
        from the run's seed, and each wave is admitted in question-id order. Replies are committed one by one, so a
        resumed run asks only for the rest. What the Generator wrote is there when `drafted` is complete.
        """
        if not self._policy.asks_teacher2:
            return NewQuestions([], {}, self._diversity(round_, [], Counter()))
        in_pool_order, (of_teacher2, of_generator) = self._journal.pool_ids(round_), self.shares(round_)
        admitted: list[QuestionId] = []
        counts: Counter[str] = Counter()
        with Progress(f"round {round_} · questions that Teacher2 was asked about", len(in_pool_order)) as progress:
            first = frozenset(of_teacher2.parents[: of_teacher2.most])
            await self._ask_early(round_, in_pool_order, first, sampled, graded, teacher2, progress)
            gate = QuestionGate(self._journal, round_, held_out=self._held_out)
            admitted += await self._fill(round_, of_teacher2, gate, teacher2, counts, progress, drafted=False)
            if of_generator.most and drafted:
                await drafted.reached(0)
                in_order = self._drafts.most_promising_first(round_, of_generator.parents)
                of_generator = replace(of_generator, parents=in_order)
                admitted += await self._fill(round_, of_generator, gate, teacher2, counts, progress, drafted=True)
        return NewQuestions(sorted(admitted), dict(sorted(counts.items())), self._diversity(round_, admitted, counts))

    async def _fill(
        self,
        round_: int,
        share: WritersShare,
        gate: QuestionGate,
        teacher2: Teacher,
        counts: Counter[str],
        progress: Progress,
        *,
        drafted: bool,
    ) -> list[QuestionId]:
        """The admitted questions of one share."""
        admitted: list[QuestionId] = []
        plans = (plan for parent in share.parents if (plan := self.plan(round_, parent)))
        while wave := list(islice(plans, min(share.most - len(admitted), WAVE))):
            await for_each(
                wave,
                lambda plan: self._ask(round_, plan, teacher2, progress, drafted=drafted),
                limit=self._settings.teacher_concurrent_workers,
            )
            new = self._admit(round_, wave, gate, counts)
            progress.count({"admitted": len(new)})
            admitted += new
        return admitted

    async def _ask_early(
        self,
        round_: int,
        in_pool_order: Sequence[QuestionId],
        first: AbstractSet[QuestionId],
        sampled: Frontier,
        graded: Frontier,
        teacher2: Teacher,
        progress: Progress,
    ) -> None:
        """Returns when the round is graded and `first`, whose turn surely comes, were asked about.

        An unknown verdict may still become another one when the run is resumed, and another plan with it. Where
        grading falls behind it goes first: training waits for it, and for new questions only the next round does.
        """
        workers = self._settings.teacher_concurrent_workers

        async def ask(place: int) -> None:
            await graded.reached(place)
            question_id = in_pool_order[place]
            if question_id not in first:
                return
            while min(sampled.passed, len(in_pool_order)) - graded.passed > GRADING_BEHIND * workers:
                await graded.reached(graded.passed)
            found = self._journal.attempts_of("train", round_, question_id)
            if any(grade is None or grade.verdict is Verdict.UNKNOWN for _, grade in found):
                return
            if plan := self._plan(question_id, found):
                await self._ask(round_, plan, teacher2, progress)

        await for_each(range(len(in_pool_order)), ask, limit=workers)

    def plan(self, round_: int, question_id: QuestionId) -> Enhancement | None:
        """What is to be built on a graded question, None for nothing."""
        return self._plan(question_id, self._journal.attempts_of("train", round_, question_id))

    def _plan(self, question_id: QuestionId, found: Sequence[tuple[Trajectory, Grade | None]]) -> Enhancement | None:
        question = self._journal.question(question_id)
        assert question is not None, f"{question_id} is in a pool but not in the journal"
        outcome = QuestionOutcome(question, [(attempt, grade) for attempt, grade in found if grade is not None])
        return plan_enhancement(
            question,
            outcome.attempts,
            outcome.pass_rate,
            kind_for=curriculum_of(self._settings),
            run_seed=self._settings.seed,
        )

    async def _ask(
        self, round_: int, plan: Enhancement, teacher2: Teacher, progress: Progress, *, drafted: bool = False
    ) -> None:
        """Have one question written and keep what came of it, unless that is kept already."""
        parent_id = plan.parent.question_id
        if self._journal.enhancement(round_, parent_id) is not None:
            return
        found: dict[str, Any] = {
            "source": "generator" if drafted else "teacher2",
            "kind": plan.kind,
            "attempt": plan.attempt,
            "verdict": plan.shown.verdict.value,
            "pass_rate": plan.pass_rate,
        }
        try:
            async with pausing.work():
                with progress.busy():
                    if drafted:
                        written: Written | None
                        written, found["solved"] = await self._drafted(round_, plan, teacher2)
                    else:
                        written = await enhance_question(teacher2, plan)
            found |= {"status": "written", **asdict(written)} if written else {"status": "declined"}
        except TeacherReplyError as error:
            found |= {"status": "failed", "reason": str(error)}
        await self._commits.write(lambda: self._journal.add_enhancement(round_, parent_id, found))
        progress.advance(1)

    async def _drafted(self, round_: int, plan: Enhancement, teacher2: Teacher) -> tuple[Written, int]:
        """The first draft with whose answer the teacher agrees, else the last one that it solved or any, and how many
        it solved. Raises TeacherReplyError where there is no whole question."""
        written, solved = None, 0
        for one in self._drafts.after(round_, plan.parent.question_id):
            draft = one.draft
            new = NewQuestion(draft.text, draft.reference, draft.solution, plan.kind)
            if not one.worth_a_call:
                written = written or Written("", new, None)
                continue
            written = await solve_draft(teacher2, new)
            solved += 1
            if written.teacher_answer is not None and same_answer(draft.reference, written.teacher_answer):
                break
        if written is None:
            raise TeacherReplyError("the Generator wrote no question, or was cut off at its limit")
        return written, solved

    def _admit(
        self, round_: int, wave: Sequence[Enhancement], gate: QuestionGate, counts: Counter[str]
    ) -> list[QuestionId]:
        """Put a wave's questions to the gate, in question-id order, and store what became of each.

        What is stored already stays: a question that was admitted is known, and would be a duplicate of itself.
        """
        admitted: list[QuestionId] = []
        with self._journal.transaction():
            for parent_id in sorted(plan.parent.question_id for plan in wave):
                found = self._journal.enhancement(round_, parent_id)
                assert found is not None, f"nobody was asked about {parent_id}"
                counts[found["status"]] += 1
                if found["status"] != "written":
                    continue
                new = NewQuestion(**found["new"])
                if "gate" not in found:
                    decision = gate.admit(new, parent_id=parent_id, teacher_answer=found["teacher_answer"])
                    if isinstance(decision, Question):
                        found |= {"gate": "admitted", "gate_detail": ""}
                        self._journal.add_enhancement(round_, parent_id, found, decision.question_id)
                    else:
                        found |= {"gate": decision.reason.value, "gate_detail": decision.detail}
                        self._journal.add_enhancement(round_, parent_id, found)
                if found["gate"] == "admitted":
                    admitted.append(question_id_of(new.text))
                counts[found["gate"]] += 1
        return admitted

    def _diversity(self, round_: int, admitted: Sequence[QuestionId], counts: Counter[str]) -> Diversity:
        """Of a drawn sample where there are very many, so that figures of large and small rounds compare."""
        drawn = self._drawn(round_, admitted)[:DIVERSITY_SAMPLE]
        questions = [self._journal.question(question_id) for question_id in sorted(drawn)]
        return diversity(
            [question.text for question in questions if question],
            duplicates=sum(counts[reason.value] for reason in REPEATS),
            written=counts["written"],
        )

    def next_pool(self, round_: int, new_questions: Sequence[QuestionId]) -> list[tuple[QuestionId, PoolReason]]:
        """What POOL_POLICY chooses, in question-id order."""
        s = self._settings
        failed: list[QuestionId] = []
        others: list[QuestionId] = []
        for question_id, _, incorrect in self._journal.verdicts_by_question(round_):
            (failed if incorrect else others).append(question_id)
        new, failed, others = (self._drawn(round_, questions) for questions in (new_questions, failed, others))
        found = Candidates(new, failed, others, s.replay_failed_share, s.replay_other_share)
        return sorted(self._policy.choose(found)[: s.max_pool_questions])

    def _drawn(self, round_: int, questions: Sequence[QuestionId]) -> list[QuestionId]:
        return sorted(questions, key=lambda question_id: self._draw(round_, "replay", question_id))

    def _draw(self, round_: int, what: str, question_id: QuestionId) -> int:
        return draw_seed(self._settings.seed, what, round_, question_id)


def generators_share(parents: Sequence[QuestionId], share: float) -> frozenset[QuestionId]:
    """The parents whose successor the Generator writes: its share of any first ones, evenly among the others."""
    return frozenset(parent for place, parent in enumerate(parents) if int((place + 1) * share) > int(place * share))
