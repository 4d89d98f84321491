"""The loop. One round is five stages; automatic and semi-automatic modes differ by the gate alone.

Follow one question: `_collect` draws its attempts, `_grade` gives each a verdict, `_convert` makes pairs of correct
and incorrect ones, `SolverTraining` moves the weights, `_prepare_next` replays it and has Teacher2 write its successor.
Stages overlap where one can follow the other question by question; each is done when its marker is in the journal.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict, dataclass
from typing import Any

from prosetting.collectors.solver import Solver
from prosetting.collectors.trajectory_collector import TrajectoryCollector
from prosetting.core import pausing, progress, stopping
from prosetting.core.artifacts import digest
from prosetting.core.concurrency import Frontier, side_by_side
from prosetting.core.gpu_manager import GpuManager
from prosetting.core.journal import Journal
from prosetting.core.pool_questions import PoolQuestions
from prosetting.core.state_manager import CONCLUSION, GENERATOR_TRAINING, WRITING
from prosetting.datasets.data_saver import load_ahead
from prosetting.errors import GpuError, SolverError, TeacherUnavailable, TrainingError
from prosetting.managers.conclusion import conclude
from prosetting.managers.engine_turns import EngineTurns
from prosetting.managers.gates import AfterFailure, Gate
from prosetting.managers.generator_turn import GeneratorTurn
from prosetting.managers.preference_data import DECIDED_BY, convert, convert_for_verl
from prosetting.managers.question_files import QuestionFiles
from prosetting.managers.question_manager import POOL_DECIDED_BY, NewQuestions, QuestionManager
from prosetting.managers.question_sources import figures_of_round
from prosetting.managers.room import check_room_for
from prosetting.managers.round_files import RoundFiles
from prosetting.managers.run_so_far import Inputs, RunSoFar
from prosetting.managers.scoring import Scoring
from prosetting.managers.solver_training import SolverTraining
from prosetting.processors.answer_verifier import VERIFIER_VERSION
from prosetting.processors.reward_calculator import RewardCalculator, count_grades, judge_health
from prosetting.records import Stage
from prosetting.teachers.base import Teacher
from prosetting.teachers.prompts import PROMPT_VERSION
from prosetting.trainers.base import Trainer

log = logging.getLogger("prosetting")
RETRYABLE = (SolverError, TrainingError, GpuError, TeacherUnavailable)


@dataclass(frozen=True, slots=True)
class Engines:
    """Everything a round works with beside its journal. `open_solver` starts an engine on a model."""

    open_solver: Callable[[str], Solver]
    teacher2: Teacher
    trainer: Trainer
    collector: TrajectoryCollector
    rewards: RewardCalculator
    questions: QuestionManager
    gpus: GpuManager
    reward_fingerprint: str
    generator: GeneratorTurn | None = None


class RoundController:
    """Runs rounds until TOTAL_ROUNDS are done. Holds no GPU and imports no torch: engines are child processes."""

    def __init__(
        self,
        run: RunSoFar,
        engines: Engines,
        runner: asyncio.Runner,
        gate: Gate,
        questions: QuestionFiles,
        on_round_done: Callable[[], None],
    ) -> None:
        self._run = run
        self._settings = run.settings
        self._journal = run.journal
        self._engines = engines
        self._runner = runner
        self._gate = gate
        self._reports_score = bool(questions.reported)
        self._on_round_done = on_round_done
        self._turns = EngineTurns(engines.open_solver, engines.gpus)
        self._training = SolverTraining(run, engines.trainer, self._turns)
        self._scoring = Scoring(run, questions, engines.collector, engines.rewards, self._turns)

    def run(self, status: Callable[[], str]) -> None:
        """All rounds that are open. `status` is what the asking gate shows on `s`."""
        try:
            for round_ in range(1, self._settings.total_rounds + 1):
                if self._journal.stage(round_, CONCLUSION):
                    continue
                self._gate.before_round(round_, status)
                self._until_done(round_, lambda r=round_: self.run_round(r))  # type: ignore[misc]
            if self._reports_score:
                self._until_done(self._settings.total_rounds, lambda: self._to_end(self._scoring.score_reported()))
        finally:
            self._turns.close_solver()
            self._close_trainers()

    def _until_done(self, round_: int, work: Callable[[], None]) -> None:
        """Every try goes on from the stage that failed; what was committed stays."""
        failures = 0
        while True:
            try:
                return work()
            except RETRYABLE as error:
                failures += 1
                self._turns.close_solver()
                self._journal.add_failure(*self._run.state.current, error.what)
                log.error("round %d failed: %s", round_, error)
                decision = self._gate.after_failure(round_, error, failures)
                self._journal.decide_failure(decision.name.lower())
                if decision is AfterFailure.STOP:
                    raise
                if decision is AfterFailure.SKIP_TRAINING:
                    self._give_up_training(round_)

    def _give_up_training(self, round_: int) -> None:
        if self._engines.generator and self._run.state.current[1] == GENERATOR_TRAINING:
            self._engines.generator.give_up_training(round_)
        else:
            self._training.give_up(round_)

    def _to_end(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            stopping.run(self._runner, work)
        finally:
            progress.close_all()

    def run_round(self, round_: int) -> None:
        """THE round: sample, grade, pair, train, score, write the next questions."""
        self._to_end(self._round(round_))
        self._on_round_done()

    async def _round(self, round_: int) -> None:
        """Grading follows sampling, Teacher2 follows grading, and it goes on while pairs are made and trained on. The
        Generator has its turn before the Solver is trained, and what it drafted is tried by the trained one."""
        await self._scoring.score_start(round_)
        self._get_trainers_ready(round_)
        load_ahead()  # now, and not while a training waits for its pairs
        sampled, graded, drafted = Frontier(), Frontier(), Frontier()
        writing = asyncio.ensure_future(self._write_questions(round_, sampled, graded, drafted))
        try:
            await self._collect_and_grade(round_, sampled, graded)
            await self._stage(round_, Stage.DPO_CONVERSION, self._conversion_inputs, self._convert)
            await self._generators_turn(round_)
            await self._stage(round_, Stage.TRL_TRAINING, self._training.inputs, self._training.train)
            if round_ < self._settings.total_rounds:
                self._get_trainers_ready(round_ + 1)  # libraries take long to load
            else:
                self._close_trainers()
            await self._try_drafts(round_, drafted)
            await self._scoring.score_weights(round_)
        except BaseException as error:
            self._close_trainers()
            graded.close()
            drafted.close()
            if not isinstance(error, stopping.StopRequested):
                writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            raise
        await self._stage(round_, Stage.NEXT_ROUND_PREP, self._next_inputs, lambda r: self._prepare_next(r, writing))
        await writing
        await self._scoring.judge_weights(round_)
        weights = {"weights": self._run.weights_hash(round_)}
        await self._run.state.run_stage(round_, CONCLUSION, weights, lambda: self._conclude(round_))

    async def _stage(
        self,
        round_: int,
        stage: Stage,
        inputs: Callable[[int], Inputs],
        work: Callable[[int], Awaitable[dict[str, Any]]],
    ) -> None:
        if self._journal.stage(round_, stage) is None:
            await pausing.let_go_on()
            model = self._run.checkpoint(round_ - 1).path
            check_room_for(stage, round_, self._settings, self._run.workspace, self._journal, model)
        await self._run.state.run_stage(round_, stage, inputs(round_), lambda: work(round_))

    async def _collect_and_grade(self, round_: int, sampled: Frontier, graded: Frontier) -> None:
        questions = PoolQuestions(self._journal, round_)

        async def collect() -> None:
            await self._stage(
                round_, Stage.DATA_COLLECTION, self._collection_inputs, lambda r: self._collect(r, questions, sampled)
            )
            sampled.complete()

        async def grade() -> None:
            await self._stage(
                round_, Stage.DATA_GRADING, self._grading_inputs, lambda r: self._grade(r, questions, sampled, graded)
            )
            graded.complete()

        await side_by_side(collect(), grade())

    def _get_trainers_ready(self, round_: int) -> None:
        self._training.get_ready(round_)
        if self._engines.generator:
            self._engines.generator.get_ready(round_)

    def _close_trainers(self) -> None:
        self._training.close()
        if self._engines.generator:
            self._engines.generator.trainer.close()

    # 1 · data_collection

    def _collection_inputs(self, round_: int) -> Inputs:
        s = self._settings
        return {
            "questions of the pool": digest(self._journal.pool_ids(round_)),
            "weights": self._run.weights_hash(round_ - 1),
            "attempts_per_question": s.attempts_per_question,
            "solver_max_new_tokens": s.solver_max_new_tokens,
            "solver_temperature": s.solver_temperature,
            "solver_top_p": s.solver_top_p,
        }

    async def _collect(self, round_: int, questions: PoolQuestions, sampled: Frontier) -> dict[str, Any]:
        await self._run.read_in_thread(lambda reader: self._files(reader).questions(round_))
        attempts, model = range(self._settings.attempts_per_question), self._run.checkpoint(round_ - 1).path
        await self._engines.collector.collect(
            "train", round_, questions, attempts, lambda: self._turns.solver_of(model), sampled
        )
        await self._run.read_in_thread(lambda reader: self._files(reader).trajectories(round_))
        return {"questions": len(questions), "attempts": len(questions) * len(attempts)}

    # 2 · data_grading

    def _grading_inputs(self, round_: int) -> Inputs:
        return {
            "attempts": digest(Stage.DATA_COLLECTION, self._collection_inputs(round_)),
            "verifier version": VERIFIER_VERSION,
            "prompt contract": PROMPT_VERSION,
            "teacher_model_name": self._settings.teacher_model_name,
            "reward_function (content)": self._engines.reward_fingerprint,
        }

    async def _grade(
        self, round_: int, questions: PoolQuestions, sampled: Frontier, graded: Frontier
    ) -> dict[str, Any]:
        attempts = self._settings.attempts_per_question
        await self._engines.rewards.grade(
            "train", round_, questions, attempts_a_question=attempts, sampled=sampled, graded=graded
        )
        await sampled.reached(len(questions))  # the marker of the stage before comes first
        await self._run.read_in_thread(lambda reader: self._files(reader).rewards(round_))
        counts = count_grades(self._journal.verdict_counts("train", round_))
        return {
            **counts.verdicts,
            "by_rules": counts.decided_by["rules"],
            "by_teacher1": counts.decided_by["teacher1"],
            "by_reward_function": counts.decided_by["reward_function"],
            "average_reward": counts.average_reward,
            "judge": asdict(judge_health(self._journal, round_)),
            "digest": await self._run.read_in_thread(lambda reader: reader.verdicts_digest("train", round_)),
        }

    # 3 · dpo_conversion

    def _conversion_inputs(self, round_: int) -> Inputs:
        return {**self._run.graded(round_), **self._settings.values_of(DECIDED_BY)}

    async def _convert(self, round_: int) -> dict[str, Any]:
        workspace, settings = self._run.workspace, self._settings
        if settings.trains_with_verl:
            name = f"solver_r{round_}_{time.strftime('%Y%m%d_%H%M%S')}"
            return await self._run.read_in_thread(
                lambda reader: convert_for_verl(workspace, reader, round_, settings, name)
            )
        return await self._run.read_in_thread(lambda reader: convert(workspace, reader, round_, settings))

    # 4 · trl_training is SolverTraining. Before it:

    async def _generators_turn(self, round_: int) -> None:
        if self._engines.generator:
            graded, turns = self._run.graded(round_), self._turns
            await self._engines.generator.take(round_, graded, self._run.state, turns.solver_of, turns.run_trainer)

    async def _try_drafts(self, round_: int, drafted: Frontier) -> None:
        if self._engines.generator:
            # Of the training, whatever the round gate makes of its weights later.
            trained = {"weights": self._run.state.stage_input_hash(round_, Stage.TRL_TRAINING)}
            model, turns = self._run.checkpoint(round_).path, self._turns
            await self._engines.generator.try_drafts(round_, trained, self._run.state, lambda: turns.solver_of(model))
        drafted.complete()

    # 5 · next_round_prep

    def _next_inputs(self, round_: int) -> Inputs:
        return {**self._run.graded(round_), **self._settings.values_of(POOL_DECIDED_BY)}

    async def _write_questions(
        self, round_: int, sampled: Frontier, graded: Frontier, drafted: Frontier
    ) -> NewQuestions | None:
        """From the first graded question on; None when the stage is done."""
        if self._journal.stage(round_, Stage.NEXT_ROUND_PREP):
            return None
        with self._run.state.span(round_, WRITING):
            teacher2 = self._engines.teacher2
            return await self._engines.questions.write_questions(round_, sampled, graded, teacher2, drafted)

    async def _prepare_next(self, round_: int, writing: Awaitable[NewQuestions | None]) -> dict[str, Any]:
        new = await writing
        assert new is not None, "the stage is not done, so its questions were written"
        await self._run.read_in_thread(lambda reader: self._write_question_files(round_, self._files(reader)))
        by_source = await self._run.read_in_thread(lambda reader: figures_of_round(reader, round_))
        pool = self._engines.questions.next_pool(round_, new.admitted)
        if not pool:
            log.warning("round %d: every question is solved and none is replayed; the pool is played again", round_)
            pool = [(question_id, "other_replay") for question_id in sorted(self._journal.pool_ids(round_))]
        self._journal.fill_pool(round_ + 1, pool)
        return {
            "questions": len(pool),
            **dict(sorted(Counter(reason for _, reason in pool).items())),
            "new_questions": new.counts,
            "diversity": asdict(new.diversity),
            **by_source,
        }

    def _write_question_files(self, round_: int, files: RoundFiles) -> None:
        files.enhanced_questions(round_)
        files.generator_training(round_)
        if round_ > 1:
            # This round has measured the questions that the round before wrote.
            files.generator_training(round_ - 1)

    # After the five

    async def _conclude(self, round_: int) -> dict[str, Any]:
        conclude(self._run, round_)
        return {}

    def _files(self, reader: Journal) -> RoundFiles:
        return RoundFiles(self._run.workspace, reader)
