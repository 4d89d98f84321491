"""Stage 1: what is drawn, what is committed when, and how the stage behind hears of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator, Sequence

import pytest

from prosetting.collectors.solver import Sample, SampleRequest, SamplingParams
from prosetting.collectors.trajectory_collector import UNWRITTEN_BATCHES, TrajectoryCollector
from prosetting.config import Settings
from prosetting.core.concurrency import Frontier
from prosetting.core.group_commit import GroupCommit
from prosetting.core.journal import Journal
from prosetting.errors import SolverError
from prosetting.records import Question, Trajectory, question_id_of

QUESTIONS = [Question(question_id_of(text), text) for text in ("a", "b", "c")]


class Echo:
    """Answers each request with its prompt and seed; `most` ends it early, as a solver that is lost would."""

    def __init__(self, most: int | None = None) -> None:
        self.requests: list[SampleRequest] = []
        self._most = most
        self.closed = False

    def sample(self, requests: Iterable[SampleRequest], params: SamplingParams) -> Iterator[Sample]:
        for request in requests:
            if self._most is not None and len(self.requests) == self._most:
                raise SolverError("lost", next_step="start again")
            self.requests.append(request)
            yield Sample(request.question_id, request.attempt, f"{request.prompt} {request.seed}", "stop", 2)

    def close(self) -> None:
        self.closed = True


class Backwards(Echo):
    """Finishes what was asked last first."""

    def sample(self, requests: Iterable[SampleRequest], params: SamplingParams) -> Iterator[Sample]:
        yield from reversed(list(super().sample(requests, params)))


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "j.db") as journal:
        yield journal


def collect(journal: Journal, solver, sampled: Frontier | None = None, attempts: Sequence[int] = (0, 1)) -> Frontier:
    sampled = sampled or Frontier()
    collector = TrajectoryCollector(GroupCommit(journal), Settings(solver_model_path="m", solver_batch_size=2))
    asyncio.run(collector.collect("train", 1, QUESTIONS, attempts, lambda: solver, sampled))
    return sampled


def drawn(journal: Journal) -> list[Trajectory]:
    return list(journal.trajectories("train", 1))


def test_every_question_is_attempted_and_attempts_at_one_question_are_asked_for_together(journal):
    solver = Echo()
    assert collect(journal, solver).passed == len(QUESTIONS)
    assert [(r.question_id, r.attempt) for r in solver.requests] == [
        (question.question_id, attempt) for question in QUESTIONS for attempt in (0, 1)
    ]
    assert len(drawn(journal)) == 6


def test_what_comes_first_decides_nothing(tmp_path):
    found = []
    for solver in (Echo(), Backwards()):
        with Journal(tmp_path / f"{type(solver).__name__}.db") as journal:
            collect(journal, solver)
            found.append(drawn(journal))
    assert found[0] == found[1]


def test_a_solver_that_is_lost_leaves_what_came_before_and_the_next_draws_the_rest(journal):
    sampled = Frontier()
    with pytest.raises(SolverError):
        collect(journal, Echo(most=3), sampled)
    assert len(drawn(journal)) == 3
    assert sampled.passed == 1
    again = Echo()
    collect(journal, again)
    assert [(r.question_id, r.attempt) for r in again.requests] == [
        (QUESTIONS[1].question_id, 1),
        (QUESTIONS[2].question_id, 0),
        (QUESTIONS[2].question_id, 1),
    ]


def test_a_round_that_is_drawn_needs_no_solver(journal):
    collect(journal, Echo())
    assert collect(journal, None).passed == len(QUESTIONS)


def test_a_solver_that_gives_less_than_asked_for_is_no_finished_round(journal):
    class Short(Echo):
        def sample(self, requests: Iterable[SampleRequest], params: SamplingParams) -> Iterator[Sample]:
            return iter(list(super().sample(requests, params))[:-1])

    with pytest.raises(SolverError, match="before all attempts were drawn"):
        collect(journal, Short())


def test_the_solver_waits_for_the_disk_so_that_memory_holds_no_more_than_some_batches(journal, monkeypatch):
    waiting = most = 0
    add = journal.add_trajectories

    class Counting(Echo):
        def sample(self, requests: Iterable[SampleRequest], params: SamplingParams) -> Iterator[Sample]:
            nonlocal waiting, most
            for sample in super().sample(requests, params):
                waiting += 1
                most = max(most, waiting)
                yield sample

    def slow(split, trajectories) -> None:
        nonlocal waiting
        add(split, trajectories)
        waiting -= len(trajectories)

    monkeypatch.setattr(journal, "add_trajectories", slow)
    collect(journal, Counting(), attempts=range(50))
    assert most <= 2 * UNWRITTEN_BATCHES + 1
    assert len(drawn(journal)) == 150


def test_attempts_that_come_at_once_are_one_write_and_each_question_is_done_once(journal, monkeypatch):
    writes, passed = [], []
    add = journal.add_trajectories
    monkeypatch.setattr(
        journal, "add_trajectories", lambda split, rows: (writes.append(len(rows)), add(split, rows))[1]
    )

    class Watched(Frontier):
        def done(self, place: int) -> None:
            passed.append(place)
            super().done(place)

    class AtOnce(Echo):
        """Gives all it has while the event loop is held up."""

        def sample(self, requests: Iterable[SampleRequest], params: SamplingParams) -> Iterator[Sample]:
            held, go_on = threading.Event(), threading.Event()
            samples = list(super().sample(requests, params))
            loop.call_soon_threadsafe(lambda: (held.set(), go_on.wait(10)))
            held.wait(10)
            yield from samples
            go_on.set()

    collector = TrajectoryCollector(GroupCommit(journal), Settings(solver_model_path="m", solver_batch_size=8))
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        runner.run(collector.collect("train", 1, QUESTIONS, (0, 1), AtOnce, Watched()))
    assert writes == [6]
    assert passed == [0, 1, 2]
    assert len(drawn(journal)) == 6


def test_a_disk_that_takes_no_attempt_ends_the_stage_with_that_error(journal, monkeypatch):
    def full(split, trajectories) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal, "add_trajectories", full)
    with pytest.raises(OSError, match="No space left"):
        collect(journal, Echo())
