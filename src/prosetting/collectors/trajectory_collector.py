"""Stage 1: the Solver attempts every question n times.

Attempts are drawn in fixed batches, each committed whole. A resumed run draws exactly the batches that are
missing, composed as before, so that it ends with the attempts of an uninterrupted run, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from prosetting.collectors.solver import Sample, SampleRequest, SamplingParams, Solver
from prosetting.config import Settings
from prosetting.core import stopping
from prosetting.core.artifacts import draw_seed
from prosetting.core.journal import Journal
from prosetting.core.journal_rows import Split
from prosetting.core.progress import Progress
from prosetting.records import GREEDY_ATTEMPT, Question, QuestionId, Trajectory


def prompt_of(question: Question, settings: Settings) -> str:
    """The user's turn: the question and, on a line of its own, the instruction."""
    return f"{question.text}\n{settings.solver_instruction}" if settings.solver_instruction else question.text


def open_batches(
    questions: Sequence[Question],
    attempts: Sequence[int],
    done: AbstractSet[tuple[QuestionId, int]],
    settings: Settings,
    *,
    split: Split,
    round_: int,
) -> list[list[SampleRequest]]:
    """The batches of SOLVER_BATCH_SIZE of which some attempt is not `done`, prompts of similar length together."""
    ordered = sorted(questions, key=lambda question: (len(question.text), question.question_id))
    slots = [(question, attempt) for question in ordered for attempt in attempts]
    size = settings.solver_batch_size
    batches = (slots[start : start + size] for start in range(0, len(slots), size))
    return [
        [_request(*slot, settings, split=split, round_=round_) for slot in batch]
        for batch in batches
        if any((question.question_id, attempt) not in done for question, attempt in batch)
    ]


def _request(question: Question, attempt: int, settings: Settings, *, split: Split, round_: int) -> SampleRequest:
    greedy = attempt == GREEDY_ATTEMPT
    seed = None if greedy else draw_seed(settings.seed, split, round_, question.question_id, attempt)
    return SampleRequest(question.question_id, attempt, prompt_of(question, settings), seed)


class TrajectoryCollector:
    """Draws what the journal does not hold yet and commits it batch by batch."""

    def __init__(self, journal: Journal, settings: Settings) -> None:
        self._journal = journal
        self._settings = settings
        self._params = SamplingParams(
            settings.solver_max_new_tokens, settings.solver_temperature, settings.solver_top_p
        )

    def collect(
        self,
        split: Split,
        round_: int,
        questions: Sequence[Question],
        attempts: Sequence[int],
        solver: Callable[[], Solver],
    ) -> None:
        """`solver` is called only when something is left to draw."""
        done = self._journal.attempted(split, round_)
        batches = open_batches(questions, attempts, done, self._settings, split=split, round_=round_)
        progress = Progress(f"round {round_} · sampling ({split})", sum(len(batch) for batch in batches))
        for batch in batches:
            stopping.check()
            samples = solver().sample(batch, self._params)
            self._journal.add_trajectories(split, [_trajectory(round_, sample) for sample in samples])
            progress.advance(len(batch))


def _trajectory(round_: int, sample: Sample) -> Trajectory:
    return Trajectory(
        round_,
        sample.question_id,
        sample.attempt,
        sample.response,
        sample.finish_reason,
        sample.completion_tokens,
    )
