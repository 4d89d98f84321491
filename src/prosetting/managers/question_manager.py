"""The question pool: the first round's questions, the held-out ones, and stage 5, the next round's pool."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prosetting.collectors.data_normalizer import load_questions
from prosetting.config import Settings
from prosetting.core.artifacts import draw_seed
from prosetting.core.concurrency import for_each
from prosetting.core.group_commit import GroupCommit
from prosetting.core.journal import Journal
from prosetting.core.progress import Progress
from prosetting.errors import DataError, TeacherReplyError
from prosetting.processors.question_enhancer import Enhancement, enhance_question, plan_enhancement
from prosetting.processors.question_gate import REPEATS, QuestionGate
from prosetting.processors.question_similarity import Diversity, diversity
from prosetting.records import Grade, PoolEntry, Question, QuestionId, Trajectory, Verdict
from prosetting.teachers.base import NewQuestion, Teacher


@dataclass(frozen=True, slots=True)
class QuestionOutcome:
    """A question of the pool with its graded attempts of the round."""

    question: Question
    attempts: Sequence[tuple[Trajectory, Grade]]

    @property
    def failed(self) -> bool:
        """Any attempt graded incorrect; an unknown verdict is no failure."""
        return any(grade.verdict is Verdict.INCORRECT for _, grade in self.attempts)

    @property
    def decided(self) -> bool:
        """Any attempt with a verdict other than unknown."""
        return any(grade.reward is not None for _, grade in self.attempts)

    @property
    def pass_rate(self) -> float:
        """Share of correct among the decided attempts."""
        rewards = [grade.reward for _, grade in self.attempts if grade.reward is not None]
        return sum(rewards) / len(rewards) if rewards else 0.0


def load_pool_and_heldout(settings: Settings) -> tuple[list[Question], list[Question]]:
    """QUESTIONS_FILE and VALIDATION_DATA_FILE. Raises DataError when they share a question."""
    pool = load_questions(settings.questions_file)
    heldout = load_questions(settings.validation_data_file) if settings.validation_data_file else []
    shared = {question.question_id for question in pool} & {question.question_id for question in heldout}
    if shared:
        text = next(question.text for question in heldout if question.question_id in shared)
        raise DataError(
            f"{len(shared)} questions of {settings.validation_data_file} are also in {settings.questions_file},"
            f" such as {text[:80]!r}: scores on them would not be held out",
            next_step="take them out of one of the two files",
        )
    return pool, heldout


@dataclass(frozen=True, slots=True)
class NewQuestions:
    """What stage 5 came to: the admitted questions in question-id order, and how many were turned away and why."""

    admitted: list[Question]
    counts: dict[str, int]
    diversity: Diversity


class QuestionManager:
    """Builds the pool of the next round: Teacher2's new questions, failed replays, replays of others."""

    def __init__(
        self, journal: Journal, commits: GroupCommit, settings: Settings, held_out: Iterable[Question]
    ) -> None:
        self._journal = journal
        self._commits = commits
        self._settings = settings
        self._held_out = list(held_out)

    def outcomes(self, round_: int) -> list[QuestionOutcome]:
        """The round's questions with their graded attempts, in question-id order."""
        attempts: dict[QuestionId, list[tuple[Trajectory, Grade]]] = defaultdict(list)
        for trajectory, grade in self._journal.graded_attempts("train", round_):
            attempts[trajectory.question_id].append((trajectory, grade))
        return [
            QuestionOutcome(entry.question, attempts[entry.question.question_id])
            for entry in self._journal.pool(round_)
        ]

    async def write_questions(
        self, round_: int, outcomes: Iterable[QuestionOutcome], teacher2: Teacher
    ) -> NewQuestions:
        """Teacher2's admitted questions. Asked in waves until the cap is reached or the questions are used up.

        Who answers first decides nothing: parents stand in an order drawn from the run's seed, and each wave is
        admitted in question-id order. Replies are committed one by one, so a resumed run asks only for the rest.
        """
        plans = [plan for outcome in outcomes if (plan := self._plan(outcome))]
        plans.sort(key=lambda plan: self._draw(round_, "enhance", plan.parent.question_id))
        most = self._settings.new_questions_per_round or len(plans)
        gate = QuestionGate(known=self._journal.known_questions(round_), held_out=self._held_out)
        admitted: list[Question] = []
        counts: Counter[str] = Counter()
        while plans and len(admitted) < most:
            wave, plans = plans[: most - len(admitted)], plans[most - len(admitted) :]
            await self._ask_for(round_, wave, teacher2)
            admitted += self._admit(round_, wave, gate, counts)
        admitted.sort(key=lambda question: question.question_id)
        spread = diversity(
            [question.text for question in admitted],
            duplicates=sum(counts[reason.value] for reason in REPEATS),
            written=counts["written"],
        )
        return NewQuestions(admitted, dict(sorted(counts.items())), spread)

    def _plan(self, outcome: QuestionOutcome) -> Enhancement | None:
        return plan_enhancement(
            outcome.question,
            outcome.attempts,
            outcome.pass_rate,
            too_hard=self._settings.enhance_too_hard,
            run_seed=self._settings.seed,
        )

    async def _ask_for(self, round_: int, wave: Sequence[Enhancement], teacher2: Teacher) -> None:
        done = self._journal.enhancements(round_)
        todo = [plan for plan in wave if plan.parent.question_id not in done]
        progress = Progress(f"round {round_} · new questions", len(todo))

        async def ask(plan: Enhancement) -> None:
            found: dict[str, Any] = {
                "kind": plan.kind,
                "attempt": plan.attempt,
                "verdict": plan.shown.verdict.value,
                "pass_rate": plan.pass_rate,
            }
            try:
                written = await enhance_question(teacher2, plan)
                found |= {"status": "written", **asdict(written)} if written else {"status": "declined"}
            except TeacherReplyError as error:
                found |= {"status": "failed", "reason": str(error)}
            await self._commits.write(lambda: self._journal.add_enhancement(round_, plan.parent.question_id, found))
            progress.advance(1)

        await for_each(todo, ask, limit=self._settings.teacher_concurrent_workers)

    def _admit(
        self, round_: int, wave: Sequence[Enhancement], gate: QuestionGate, counts: Counter[str]
    ) -> list[Question]:
        """Put a wave's questions to the gate, in question-id order, and store what became of each."""
        admitted: list[Question] = []
        outcomes = self._journal.enhancements(round_)
        with self._journal.transaction():
            for parent_id in sorted(plan.parent.question_id for plan in wave):
                found = outcomes[parent_id]
                counts[found["status"]] += 1
                if found["status"] != "written":
                    continue
                decision = gate.admit(
                    NewQuestion(**found["new"]), parent_id=parent_id, teacher_answer=found["teacher_answer"]
                )
                if isinstance(decision, Question):
                    found |= {"gate": "admitted", "gate_detail": ""}
                    admitted.append(decision)
                    self._journal.add_questions([decision])
                    self._journal.add_enhancement(round_, parent_id, found, decision.question_id)
                else:
                    found |= {"gate": decision.reason.value, "gate_detail": decision.detail}
                    self._journal.add_enhancement(round_, parent_id, found)
                counts[found["gate"]] += 1
        return admitted

    def next_pool(
        self, round_: int, outcomes: Sequence[QuestionOutcome], new_questions: Sequence[Question]
    ) -> list[PoolEntry]:
        """The new questions, then a drawn share of the failed and of the other ones; in question-id order."""
        s = self._settings
        failed = self._drawn(round_, [o.question for o in outcomes if o.failed], s.replay_failed_share)
        others = self._drawn(round_, [o.question for o in outcomes if not o.failed], s.replay_other_share)
        entries = [PoolEntry(question, "enhanced") for question in self._drawn(round_, new_questions, 1.0)]
        entries += [PoolEntry(question, "failed_replay") for question in failed]
        entries += [PoolEntry(question, "other_replay") for question in others]
        return sorted(entries[: s.max_pool_questions], key=lambda entry: entry.question.question_id)

    def _drawn(self, round_: int, questions: Sequence[Question], share: float) -> list[Question]:
        drawn = sorted(questions, key=lambda question: self._draw(round_, "replay", question.question_id))
        return drawn[: round(share * len(drawn))]

    def _draw(self, round_: int, what: str, question_id: QuestionId) -> int:
        return draw_seed(self._settings.seed, what, round_, question_id)


def by_id(questions: Iterable[Question]) -> Mapping[QuestionId, Question]:
    return {question.question_id: question for question in questions}
