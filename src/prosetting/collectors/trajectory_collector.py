"""Stage 1: the Solver attempts every question n times.

The Solver works in a thread of its own: it asks for the next question's requests as it has room and gives each
attempt back as it is finished. The journal is written on the event loop, many attempts a commit. An attempt is
drawn by a seed of its own, so a resumed run draws what is missing and nothing else.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from prosetting.collectors.solver import Sample, SampleRequest, SamplingParams, Solver
from prosetting.config import Settings
from prosetting.core import pausing, stopping
from prosetting.core.artifacts import draw_seed
from prosetting.core.concurrency import Frontier, in_thread
from prosetting.core.group_commit import GroupCommit
from prosetting.core.journal_rows import Split
from prosetting.core.progress import Progress
from prosetting.errors import SolverError
from prosetting.records import GREEDY_ATTEMPT, Question, QuestionId, Trajectory

UNWRITTEN_BATCHES = 2
"""Batches of attempts that may wait for the disk before the Solver waits too."""


def prompt_of(question: Question, settings: Settings) -> str:
    """The user's turn: the question and, on a line of its own, the instruction."""
    return f"{question.text}\n{settings.solver_instruction}" if settings.solver_instruction else question.text


class TrajectoryCollector:
    """Draws what the journal does not hold yet and commits each attempt as it comes."""

    def __init__(self, commits: GroupCommit, settings: Settings) -> None:
        self._commits = commits
        self._settings = settings

    async def collect(
        self,
        split: Split,
        round_: int,
        questions: Sequence[Question],
        attempts: Sequence[int],
        open_solver: Callable[[], Solver],
        sampled: Frontier,
    ) -> None:
        """`open_solver` is called only when something is left to draw. `sampled` is told each question's place in
        `questions` once all its attempts are committed, and closed when that will not happen for all of them."""
        sampling = _Sampling(self._commits, self._settings, split, round_, questions, attempts, sampled)
        try:
            if sampling.something_is_left:
                await sampling.run(open_solver)
            if sampled.passed < len(questions):
                stopping.check()
                raise SolverError("the Solver ended before all attempts were drawn", next_step="start the run again")
        finally:
            sampling.close()
            if sampled.passed < len(questions):
                sampled.close()


class _Sampling:
    """What is left to draw of one split of one round."""

    def __init__(
        self,
        commits: GroupCommit,
        settings: Settings,
        split: Split,
        round_: int,
        questions: Sequence[Question],
        attempts: Sequence[int],
        sampled: Frontier,
    ) -> None:
        self._commits = commits
        self._settings = settings
        self._split, self._round = split, round_
        self._questions, self._attempts = questions, attempts
        self._sampled = sampled
        self._progress = Progress(f"round {round_} · sampling ({split})", len(questions) * len(attempts))
        self._open = self._open_questions()
        self._next = next(self._open, None)
        self._undrawn: dict[QuestionId, tuple[int, int]] = {}  # in flight: place, and attempts not committed yet
        self._arrived: deque[Sample] = deque()  # from the Solver's thread
        self._unwritten = threading.Semaphore(UNWRITTEN_BATCHES * settings.solver_batch_size)
        self._failure: BaseException | None = None
        self._held = False

    @property
    def something_is_left(self) -> bool:
        return self._next is not None

    async def run(self, open_solver: Callable[[], Solver]) -> None:
        """Until nothing is left or the run is to stop. In a pause the Solver finishes what it has in flight."""
        self._held = True
        while self._held:
            async with pausing.work():
                self._held = False
                with self._progress.busy():
                    await self._draw(open_solver())

    def close(self) -> None:
        self._progress.close()

    async def _draw(self, solver: Solver) -> None:
        params = SamplingParams(
            self._settings.solver_max_new_tokens, self._settings.solver_temperature, self._settings.solver_top_p
        )
        loop = asyncio.get_running_loop()

        def draw() -> None:
            for sample in solver.sample(self._requests(loop), params):
                self._unwritten.acquire()
                self._arrived.append(sample)
                # Who finds others there knows that they are about to be taken, with this one.
                if len(self._arrived) == 1:
                    loop.call_soon_threadsafe(self._take_arrived)

        try:
            await in_thread(draw, end=solver.close)
        finally:
            await self._commits.write(lambda: None)  # after all that has arrived, also from a Solver that is lost
        if self._failure:
            raise self._failure

    def _open_questions(self) -> Iterator[tuple[int, list[SampleRequest]]]:
        """Places in `questions` with the requests for the attempts that are missing there."""
        journal = self._commits.journal
        begun = journal.has_attempts(self._split, self._round)
        for place, question in enumerate(self._questions):
            present = journal.attempted(self._split, self._round, question.question_id) if begun else set()
            missing = [attempt for attempt in self._attempts if attempt not in present]
            self._progress.skip(len(self._attempts) - len(missing))
            if missing:
                yield place, [self._request(question, attempt) for attempt in missing]
            else:
                self._sampled.done(place)

    def _request(self, question: Question, attempt: int) -> SampleRequest:
        seed = draw_seed(self._settings.seed, self._split, self._round, question.question_id, attempt)
        prompt = prompt_of(question, self._settings)
        return SampleRequest(question.question_id, attempt, prompt, None if attempt == GREEDY_ATTEMPT else seed)

    def _requests(self, loop: asyncio.AbstractEventLoop) -> Iterator[SampleRequest]:
        """Read in the Solver's thread; the journal is read on the event loop."""
        while requests := asyncio.run_coroutine_threadsafe(self._next_requests(), loop).result():
            yield from requests

    async def _next_requests(self) -> list[SampleRequest]:
        """All missing attempts at the next questions; none when there is nothing more to draw, or not now.

        An eighth of a batch at a time: who asks waits for its turn on the event loop.
        """
        found: list[SampleRequest] = []
        while self._next is not None and len(found) <= self._settings.solver_batch_size // 8:
            if self._failure or stopping.requested():
                break
            if pausing.requested():
                self._held = True
                break
            place, requests = self._next
            self._undrawn[requests[0].question_id] = (place, len(requests))
            self._next = next(self._open, None)
            found += requests
        return found

    def _take_arrived(self) -> None:
        """All that has come since the last time, as one write."""
        samples = []
        while self._arrived:
            samples.append(self._arrived.popleft())
        if not samples:
            return  # they were taken with others
        trajectories = [
            Trajectory(self._round, s.question_id, s.attempt, s.response, s.finish_reason, s.completion_tokens)
            for s in samples
        ]
        write = partial(self._commits.journal.add_trajectories, self._split, trajectories)
        self._commits.submit(write).add_done_callback(partial(self._written, trajectories))

    def _written(self, trajectories: Sequence[Trajectory], written: asyncio.Future[None]) -> None:
        self._unwritten.release(len(trajectories))
        if error := written.exception():
            self._failure = self._failure or error
            return
        self._progress.advance(len(trajectories))
        for trajectory in trajectories:
            place, undrawn = self._undrawn.pop(trajectory.question_id)
            if undrawn > 1:
                self._undrawn[trajectory.question_id] = (place, undrawn - 1)
            else:
                self._sampled.done(place)
