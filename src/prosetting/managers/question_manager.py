"""The question pool: the first round's questions, the held-out ones, and stage 5, the next round's pool."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from prosetting.collectors.data_normalizer import load_questions
from prosetting.config import Settings
from prosetting.core.artifacts import draw_seed
from prosetting.core.concurrency import for_each
from prosetting.core.journal import Journal
from prosetting.core.progress import Progress
from prosetting.errors import DataError, TeacherReplyError
from prosetting.processors.question_enhancer import enhance_question
from prosetting.processors.question_gate import HeldOut, admit
from prosetting.records import Grade, PoolEntry, Question, QuestionId, Trajectory, Verdict
from prosetting.teachers.base import FailedAttempt, NewQuestion, Teacher


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
    def pass_rate(self) -> float:
        """Share of correct among the decided attempts."""
        rewards = [grade.reward for _, grade in self.attempts if grade.reward is not None]
        return sum(rewards) / len(rewards) if rewards else 0.0

    @property
    def failures(self) -> list[FailedAttempt]:
        return [
            FailedAttempt(trajectory.response, grade.diagnosis)
            for trajectory, grade in self.attempts
            if grade.verdict is Verdict.INCORRECT
        ]


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


class QuestionManager:
    """Builds the pool of the next round: failed replays, replays of others, Teacher2's new questions."""

    def __init__(self, journal: Journal, settings: Settings, heldout: Iterable[Question]) -> None:
        self._journal = journal
        self._settings = settings
        self._held_out = HeldOut.of(heldout)

    def outcomes(self, round_: int) -> list[QuestionOutcome]:
        """The round's questions with their graded attempts, in question-id order."""
        attempts: dict[QuestionId, list[tuple[Trajectory, Grade]]] = defaultdict(list)
        for trajectory, grade in self._journal.graded_attempts("train", round_):
            attempts[trajectory.question_id].append((trajectory, grade))
        return [
            QuestionOutcome(entry.question, attempts[entry.question.question_id])
            for entry in self._journal.pool(round_)
        ]

    async def write_questions(self, round_: int, teacher2: Teacher) -> list[Question]:
        """Teacher2's admitted questions. Asked in waves until the cap is reached or the failures are used up.

        Who answers first decides nothing: candidates stand in an order drawn from the run's seed, and each
        wave is admitted in that order. Replies are committed one by one, so a resumed run asks only for the rest.
        """
        failed = [outcome for outcome in self.outcomes(round_) if outcome.failed]
        failed.sort(key=lambda outcome: self._draw(round_, "enhance", outcome.question.question_id))
        most = self._settings.new_questions_per_round or len(failed)
        admitted: list[Question] = []
        known = self._known_before(round_)
        while failed and len(admitted) < most:
            wave, failed = failed[: most - len(admitted)], failed[most - len(admitted) :]
            await self._ask_for(round_, wave, teacher2)
            admitted += self._admit(round_, wave, known)
        return sorted(admitted, key=lambda question: question.question_id)

    def _known_before(self, round_: int) -> set[QuestionId]:
        """Every question of this and earlier pools."""
        return {entry.question.question_id for r in range(1, round_ + 1) for entry in self._journal.pool(r)}

    async def _ask_for(self, round_: int, wave: Sequence[QuestionOutcome], teacher2: Teacher) -> None:
        done = self._journal.enhancements(round_)
        todo = [outcome for outcome in wave if outcome.question.question_id not in done]
        progress = Progress(f"round {round_} · new questions", len(todo))

        async def ask(outcome: QuestionOutcome) -> None:
            try:
                written = await enhance_question(teacher2, outcome.question, outcome.failures, outcome.pass_rate)
                found = {"status": "written", **asdict(written)} if written else {"status": "declined"}
            except TeacherReplyError as error:
                found = {"status": "failed", "reason": str(error)}
            self._journal.add_enhancement(round_, outcome.question.question_id, found)
            progress.advance(1)

        await for_each(todo, ask, limit=self._settings.teacher_concurrent_workers)

    def _admit(self, round_: int, wave: Sequence[QuestionOutcome], known: set[QuestionId]) -> list[Question]:
        admitted: list[Question] = []
        outcomes = self._journal.enhancements(round_)
        for outcome in wave:
            parent_id = outcome.question.question_id
            found = outcomes[parent_id]
            if found["status"] != "written":
                continue
            verdict = admit(
                NewQuestion(**found["new"]),
                parent_id=parent_id,
                known=known,
                held_out=self._held_out,
                teacher_answer=found["teacher_answer"],
            )
            found["gate"] = "admitted" if isinstance(verdict, Question) else verdict
            self._journal.add_enhancement(round_, parent_id, found)
            if isinstance(verdict, Question):
                admitted.append(verdict)
                known.add(verdict.question_id)
        return admitted

    def next_pool(self, round_: int, new_questions: Iterable[Question]) -> list[PoolEntry]:
        """All failed questions, a drawn share of the others, and the new ones, in question-id order."""
        outcomes = self.outcomes(round_)
        others = sorted(
            (outcome.question for outcome in outcomes if not outcome.failed),
            key=lambda question: self._draw(round_, "replay", question.question_id),
        )
        replayed = others[: round(self._settings.replay_other_share * len(others))]
        entries = [PoolEntry(outcome.question, "failed_replay") for outcome in outcomes if outcome.failed]
        entries += [PoolEntry(question, "other_replay") for question in replayed]
        entries += [PoolEntry(question, "enhanced") for question in new_questions]
        return sorted(entries, key=lambda entry: entry.question.question_id)

    def _draw(self, round_: int, what: str, question_id: QuestionId) -> int:
        return draw_seed(self._settings.seed, what, round_, question_id)


def by_id(questions: Iterable[Question]) -> Mapping[QuestionId, Question]:
    return {question.question_id: question for question in questions}
