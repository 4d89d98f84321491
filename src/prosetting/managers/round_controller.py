"""The loop. One round is five stages; automatic and semi-automatic modes differ by the gate alone.

Follow one question: `collect` draws its attempts, `grade` gives each a verdict, `convert` makes pairs of correct
and incorrect ones, `train` moves the weights, `prepare_next` replays it and has Teacher2 write its successor.
Stages overlap where one can follow the other question by question; each is done when its marker is in the journal.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from prosetting.collectors.solver import Solver
from prosetting.collectors.trajectory_collector import TrajectoryCollector, prompt_of
from prosetting.config import Settings
from prosetting.core import pausing, progress, stopping
from prosetting.core.artifacts import digest, write_json
from prosetting.core.concurrency import Frontier, in_thread, side_by_side
from prosetting.core.gpu_manager import GpuManager
from prosetting.core.journal import Journal
from prosetting.core.pool_questions import PoolQuestions
from prosetting.core.state_manager import (
    CONCLUSION,
    EVAL_FILES,
    EVALUATION,
    GENERATOR_TRAINING,
    ROUND_GATE,
    WRITING,
    StateManager,
)
from prosetting.core.workspace import Workspace
from prosetting.datasets.data_saver import save_pairs, save_verl_rows
from prosetting.datasets.verl_data import verl_row
from prosetting.errors import GpuError, SolverError, TeacherUnavailable, TrainingError
from prosetting.managers.binding import bound_to
from prosetting.managers.gates import AfterFailure, Gate
from prosetting.managers.generator_turn import GeneratorTurn
from prosetting.managers.heldout import draw_and_grade, score_heldout
from prosetting.managers.preference_data import DECIDED_BY, preference_rows
from prosetting.managers.question_files import QuestionFiles
from prosetting.managers.question_manager import POOL_DECIDED_BY, NewQuestions, QuestionManager, outcomes
from prosetting.managers.question_sources import figures_of_round
from prosetting.managers.reported import reported_inputs, reported_scores, write_reported
from prosetting.managers.room import check_room_for
from prosetting.managers.round_files import RoundFiles
from prosetting.managers.round_gate import act_on, judge_weights, made_in, was_kept
from prosetting.managers.run_summary import round_summary
from prosetting.managers.training_rounds import TRAIN_ON
from prosetting.processors.answer_verifier import VERIFIER_VERSION
from prosetting.processors.reward_calculator import RewardCalculator, count_grades, judge_health
from prosetting.records import Checkpoint, Stage
from prosetting.teachers.base import Teacher
from prosetting.teachers.prompts import PROMPT_VERSION
from prosetting.trainers.base import Trainer, TrainingJob, TrainingResult
from prosetting.trainers.losses import loss_of

log = logging.getLogger("prosetting")
T = TypeVar("T")
Inputs = dict[str, Any]
"""What a stage depends on, by name: settings as they are, content as digests."""
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
        settings: Settings,
        workspace: Workspace,
        journal: Journal,
        engines: Engines,
        runner: asyncio.Runner,
        gate: Gate,
        questions: QuestionFiles,
        on_round_done: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._workspace = workspace
        self._journal = journal
        self._engines = engines
        self._runner = runner
        self._gate = gate
        self._questions = questions
        self._on_round_done = on_round_done
        self.state = StateManager(workspace, journal, settings.total_rounds)
        self._solver: tuple[str, Solver] | None = None
        self._give_up_training: set[int] = set()

    def run(self, status: Callable[[], str]) -> None:
        """All rounds that are open. `status` is what the asking gate shows on `s`."""
        try:
            for round_ in range(1, self._settings.total_rounds + 1):
                if self._journal.stage(round_, CONCLUSION):
                    continue
                self._gate.before_round(round_, status)
                self._run_until_done(round_, lambda r=round_: self.run_round(r))  # type: ignore[misc]
            if self._questions.reported:
                self._run_until_done(self._settings.total_rounds, self.report_score)
        finally:
            self.close_solver()
            self._close_trainers()

    def _run_until_done(self, round_: int, work: Callable[[], None]) -> None:
        """Every try goes on from the stage that failed; what was committed stays."""
        failures = 0
        while True:
            try:
                return work()
            except RETRYABLE as error:
                failures += 1
                self.close_solver()
                self._journal.add_failure(*self.state.current, error.what)
                log.error("round %d failed: %s", round_, error)
                decision = self._gate.after_failure(round_, error, failures)
                self._journal.decide_failure(decision.name.lower())
                if decision is AfterFailure.STOP:
                    raise
                if decision is AfterFailure.SKIP_TRAINING:
                    if self._engines.generator and self.state.current[1] == GENERATOR_TRAINING:
                        self._engines.generator.give_up_training(round_)
                    else:
                        self._give_up_training.add(round_)

    def run_round(self, round_: int) -> None:
        """THE round: sample, grade, pair, train, score, write the next questions."""
        try:
            stopping.run(self._runner, self._round(round_))
        finally:
            progress.close_all()
        self._on_round_done()

    async def _round(self, round_: int) -> None:
        """Grading follows sampling, Teacher2 follows grading, and it goes on while pairs are made and trained on. The
        Generator has its turn before the Solver is trained, so that its questions go the same way meanwhile."""
        await self._score_start(round_)
        self._get_trainer_ready(round_)
        sampled, graded, drafted = Frontier(), Frontier(), Frontier()
        writing = asyncio.ensure_future(self._write_questions(round_, sampled, graded, drafted))
        try:
            await self._collect_and_grade(round_, sampled, graded)
            await self._stage(round_, Stage.DPO_CONVERSION, self._conversion_inputs, self._convert)
            await self._generators_turn(round_, drafted)
            await self._stage(round_, Stage.TRL_TRAINING, self._training_inputs, self.train)
            await self.evaluate(round_)
        except BaseException as error:
            self._close_trainers()
            graded.close()
            drafted.close()
            if not isinstance(error, stopping.StopRequested):
                writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            raise
        await self._stage(round_, Stage.NEXT_ROUND_PREP, self._next_inputs, lambda r: self.prepare_next(r, writing))
        await writing
        await self.judge_weights(round_)
        await self.state.run_stage(
            round_, CONCLUSION, {"weights": self._weights_hash(round_)}, lambda: self._conclude(round_)
        )

    async def _stage(
        self,
        round_: int,
        stage: Stage,
        inputs: Callable[[int], Inputs],
        work: Callable[[int], Awaitable[dict[str, Any]]],
    ) -> None:
        if self._journal.stage(round_, stage) is None:
            await pausing.let_go_on()
            model = self.checkpoint(round_ - 1).path
            check_room_for(stage, round_, self._settings, self._workspace, self._journal, model)
        await self.state.run_stage(round_, stage, inputs(round_), lambda: work(round_))

    async def _collect_and_grade(self, round_: int, sampled: Frontier, graded: Frontier) -> None:
        questions = PoolQuestions(self._journal, round_)

        async def collect() -> None:
            await self._stage(
                round_, Stage.DATA_COLLECTION, self._collection_inputs, lambda r: self.collect(r, questions, sampled)
            )
            sampled.complete()

        async def grade() -> None:
            await self._stage(
                round_, Stage.DATA_GRADING, self._grading_inputs, lambda r: self.grade(r, questions, sampled, graded)
            )
            graded.complete()

        await side_by_side(collect(), grade())

    # 1 · data_collection

    def _collection_inputs(self, round_: int) -> Inputs:
        s = self._settings
        return {
            "questions of the pool": digest(self._journal.pool_ids(round_)),
            "weights": self._weights_hash(round_ - 1),
            "attempts_per_question": s.attempts_per_question,
            "solver_max_new_tokens": s.solver_max_new_tokens,
            "solver_temperature": s.solver_temperature,
            "solver_top_p": s.solver_top_p,
        }

    async def collect(self, round_: int, questions: PoolQuestions, sampled: Frontier) -> dict[str, Any]:
        await self._read_in_thread(lambda reader: RoundFiles(self._workspace, reader).questions(round_))
        attempts, model = range(self._settings.attempts_per_question), self.checkpoint(round_ - 1).path
        await self._engines.collector.collect(
            "train", round_, questions, attempts, lambda: self._solver_of(model), sampled
        )
        await self._read_in_thread(lambda reader: RoundFiles(self._workspace, reader).trajectories(round_))
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

    async def grade(self, round_: int, questions: PoolQuestions, sampled: Frontier, graded: Frontier) -> dict[str, Any]:
        attempts = self._settings.attempts_per_question
        await self._engines.rewards.grade(
            "train", round_, questions, attempts_a_question=attempts, sampled=sampled, graded=graded
        )
        await sampled.reached(len(questions))  # the marker of the stage before comes first
        await self._read_in_thread(lambda reader: RoundFiles(self._workspace, reader).rewards(round_))
        counts = count_grades(self._journal.verdict_counts("train", round_))
        return {
            **counts.verdicts,
            "by_rules": counts.decided_by["rules"],
            "by_teacher1": counts.decided_by["teacher1"],
            "by_reward_function": counts.decided_by["reward_function"],
            "average_reward": counts.average_reward,
            "judge": asdict(judge_health(self._journal, round_)),
            "digest": await self._read_in_thread(lambda reader: reader.verdicts_digest("train", round_)),
        }

    def _graded_inputs(self, round_: int) -> Inputs:
        verdicts = self._output(round_, Stage.DATA_GRADING)["digest"]
        return {"verdicts": verdicts, "data_grading": self._done(round_, Stage.DATA_GRADING)}

    # 3 · dpo_conversion

    def _conversion_inputs(self, round_: int) -> Inputs:
        return {**self._graded_inputs(round_), **self._settings.values_of(DECIDED_BY)}

    async def _convert(self, round_: int) -> dict[str, Any]:
        if self._settings.trains_with_verl:
            name = f"solver_r{round_}_{time.strftime('%Y%m%d_%H%M%S')}"
            return await self._read_in_thread(lambda reader: self.convert_for_verl(round_, reader, name))
        return await self._read_in_thread(lambda reader: self.convert(round_, reader))

    def convert_for_verl(self, round_: int, journal: Journal, name: str) -> dict[str, Any]:
        """Write a round's questions for verl, as `training_data/NAME.json` and `.parquet`, instead of pairs.

        A question of which no attempt has a verdict is left out. `journal` may be a reader of its own.
        """
        settings = self._as_made(round_, journal)
        rows = (
            verl_row(
                outcome.question,
                [grade for _, grade in outcome.attempts],
                prompt=prompt_of(outcome.question, settings),
                round_=round_,
                index=index,
            )
            for index, outcome in enumerate(outcomes(journal, round_))
        )
        json_file, parquet_file = (self._workspace.training_data(f"{name}.{kind}") for kind in ("json", "parquet"))
        questions = save_verl_rows(json_file, parquet_file, filter(None, rows))
        RoundFiles(self._workspace, journal).solver_training(round_, outcomes(journal, round_))
        return {"pairs": 0, "train": questions, "validation": 0, "questions": questions, "training_data": name}

    def _as_made(self, round_: int, journal: Journal) -> Settings:
        """The settings that a round's data were made with: a lost file of a round that a fork was given is written
        again as it was."""
        made_with = bound_to(journal, round_) or {}
        return self._settings.model_copy(update={name: made_with[name] for name in DECIDED_BY if name in made_with})

    def convert(self, round_: int, journal: Journal) -> dict[str, Any]:
        """Write a round's preference data. `journal` may be a reader of its own."""
        rows = preference_rows(journal, round_, self._as_made(round_, journal))
        counts = save_pairs(self._workspace.dataset_dir(round_), round_, rows)
        RoundFiles(self._workspace, journal).solver_training(round_, outcomes(journal, round_))
        pairs = {"pairs": counts.pairs, "train": counts.train, "validation": counts.validation}
        supervised = {"supervised_rows": counts.supervised_rows, "supervised_train": counts.supervised_train}
        return {**pairs, **(supervised if counts.supervised_rows else {}), "questions": counts.questions}

    # 4 · trl_training

    def _training_inputs(self, round_: int) -> Inputs:
        rounds = self._rounds_to_train_on(round_)
        pairs = {f"pairs of round {r}": self._done(r, Stage.DPO_CONVERSION) for r in rounds}
        loss = {} if self._settings.trains_with_verl else {"loss": loss_of(self._settings).in_words()}
        return {
            **pairs,
            "weights": self._weights_hash(round_ - 1),
            "train_on": self._settings.train_on,
            **loss,
        }

    async def train(self, round_: int) -> dict[str, Any]:
        rounds = self._rounds_to_train_on(round_)
        converted = [self._output(r, Stage.DPO_CONVERSION) for r in rounds]
        train_pairs = sum(output["train"] for output in converted)
        supervised = sum(output.get("supervised_train", 0) for output in converted)
        reason = self._reason_not_to_train(round_, train_pairs)
        result = None if reason else await self._run_trainer(self._training_job(round_, rounds), self._engines.trainer)
        self._engines.trainer.close()
        unit = "questions" if self._settings.trains_with_verl else "pairs"
        rows = f" and {supervised} supervised rows" if supervised else ""
        told = f"trained on {train_pairs} {unit}{rows} of rounds {', '.join(map(str, rounds))}"
        output = {
            "trained": result is not None,
            "reason": "; ".join([told, *result.notes]) if result else reason,
            "rounds_used": rounds if result else [],
            "checkpoint": str(result.model_dir) if result else self.checkpoint(round_ - 1).path,
            "metrics": result.metrics if result else {},
            "steps": result.steps if result else 0,
            "train_pairs": train_pairs,
            **({"supervised_rows": supervised} if supervised else {}),
        }
        write_json(
            self._workspace.training_result(round_),
            {"round": round_, **output},
            training_seconds=result.duration_seconds if result else 0.0,
        )
        return output

    def _reason_not_to_train(self, round_: int, train_pairs: int) -> str:
        """Empty when there is no such reason. None of them is an error: the weights carry over."""
        if reason := self._reason_not_to_train_at_all(round_):
            return reason
        if not train_pairs and self._settings.trains_with_verl:
            return "no questions: none had an attempt with a verdict"
        return "" if train_pairs else "no pairs: no question had both a correct and an incorrect attempt"

    def _reason_not_to_train_at_all(self, round_: int) -> str:
        """As `_reason_not_to_train`, of what is known before the round's pairs are."""
        first = self._settings.first_training_round
        if round_ < first:
            return f"gathering data: training starts in round {first}"
        if round_ in self._give_up_training:
            return "training failed and was given up: the weights of the round before carry over"
        return ""

    def _get_trainer_ready(self, round_: int) -> None:
        """While attempts are drawn: libraries take long to load."""
        if self._journal.stage(round_, Stage.TRL_TRAINING) is None and not self._reason_not_to_train_at_all(round_):
            self._engines.trainer.get_ready(self._training_job(round_, self._rounds_to_train_on(round_)))
        if self._engines.generator:
            self._engines.generator.get_ready(round_)

    def _close_trainers(self) -> None:
        self._engines.trainer.close()
        if self._engines.generator:
            self._engines.generator.trainer.close()

    def _training_job(self, round_: int, rounds: list[int]) -> TrainingJob:
        """Before stage 3 is done the round's own file of verl has no name yet."""
        verl = self._settings.trains_with_verl
        converted = [record for r in rounds if verl and (record := self._journal.stage(r, Stage.DPO_CONVERSION))]
        names = [record.output["training_data"] for record in converted]
        return TrainingJob(
            round=round_,
            model_path=self.checkpoint(round_ - 1).path,
            dataset_dirs=[] if verl else [self._workspace.dataset_dir(r) for r in rounds],
            output_dir=self._workspace.model_dir(round_),
            log_file=self._workspace.logs / ("verl_trainer.log" if verl else "trl_trainer.log"),
            seed=self._settings.seed + round_,
            training_files=[self._workspace.training_data(f"{name}.parquet") for name in names],
        )

    async def _run_trainer(self, job: TrainingJob, trainer: Trainer) -> TrainingResult:
        gpus, result = self._engines.gpus, None
        while result is None:
            async with pausing.work():
                if gpus.allocation.take_turns:
                    await in_thread(self._end_sampling)
                gpus.begin("training")
                with suppress(pausing.PauseRequested):
                    result = await in_thread(lambda: trainer.train(job))
                await in_thread(lambda: gpus.wait_given_back("training"))
        await in_thread(self._end_sampling)  # the weights it holds are those of before
        return result

    def _rounds_to_train_on(self, round_: int) -> list[int]:
        used, kept = set[int](), set[int]()
        for r in range(1, round_):
            of_training = self._output(r, Stage.TRL_TRAINING)["rounds_used"]
            used.update(of_training)
            kept.update(of_training if was_kept(self._journal, r) else ())
        # What only trainings that were turned down were on may be why.
        rounds = [r for r in TRAIN_ON[self._settings.train_on](round_, used) if r in kept or r not in used]
        # A fork may go on with another framework, whose data the rounds before it do not have.
        verl = self._settings.trains_with_verl
        return [r for r in rounds if r == round_ or ("training_data" in self._output(r, Stage.DPO_CONVERSION)) == verl]

    # 5 · next_round_prep

    def _next_inputs(self, round_: int) -> Inputs:
        return {**self._graded_inputs(round_), **self._settings.values_of(POOL_DECIDED_BY)}

    async def _generators_turn(self, round_: int, drafted: Frontier) -> None:
        if self._engines.generator:
            inputs = self._graded_inputs(round_)
            await self._engines.generator.take(round_, inputs, self.state, self._solver_of, self._run_trainer)
        drafted.complete()

    async def _write_questions(
        self, round_: int, sampled: Frontier, graded: Frontier, drafted: Frontier
    ) -> NewQuestions | None:
        """From the first graded question on; None when the stage is done."""
        if self._journal.stage(round_, Stage.NEXT_ROUND_PREP):
            return None
        with self.state.span(round_, WRITING):
            teacher2 = self._engines.teacher2
            return await self._engines.questions.write_questions(round_, sampled, graded, teacher2, drafted)

    async def prepare_next(self, round_: int, writing: Awaitable[NewQuestions | None]) -> dict[str, Any]:
        new = await writing
        assert new is not None, "the stage is not done, so its questions were written"
        await self._read_in_thread(lambda reader: self._write_teacher2_files(round_, reader))
        by_source = await self._read_in_thread(lambda reader: figures_of_round(reader, round_))
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

    def _write_teacher2_files(self, round_: int, journal: Journal) -> None:
        files = RoundFiles(self._workspace, journal)
        files.enhanced_questions(round_)
        files.generator_training(round_)
        if round_ > 1:
            # This round has measured the questions that the round before wrote.
            files.generator_training(round_ - 1)

    # Scores on held-out questions

    async def evaluate(self, round_: int) -> None:
        """Score the weights after a round (0: the untrained base), unless unchanged or without held-out questions."""
        if not self._questions.heldout or (round_ and not self._output(round_, Stage.TRL_TRAINING)["trained"]):
            return
        inputs = {
            "held-out questions": digest([question.question_id for question in self._questions.heldout]),
            "eval_attempts": self._settings.eval_attempts,
            # Of the training, whatever the round gate makes of its weights later.
            "weights": self._done(round_, Stage.TRL_TRAINING) if round_ else "base",
        }
        await self.state.run_stage(round_, EVALUATION, inputs, lambda: self._score(round_))

    async def _score_start(self, round_: int) -> None:
        """The weights that a round starts from, where they have no score: the base, or a fork with other questions."""
        made = made_in(self._journal, round_ - 1)
        if self._journal.stage(made, EVALUATION) is None:
            await self.evaluate(made)

    async def _score(self, round_: int) -> dict[str, Any]:
        model = self.checkpoint(round_).path
        found = await score_heldout(
            self._journal,
            self._engines.collector,
            self._engines.rewards,
            self._settings,
            round_,
            self._questions.heldout,
            lambda: self._solver_of(model),
        )
        if found is None:
            return {"heldout": None, "reason": "no held-out attempt could be graded"}
        return {"heldout": asdict(found), "pass_at_1": found.pass_at_1, "greedy": found.greedy}

    async def judge_weights(self, round_: int) -> None:
        """ROUND_GATE on weights that were scored; last, so that all that speaks for or against them is known."""
        if self._settings.round_gate == "off" or self._journal.stage(round_, EVALUATION) is None:
            return
        inputs = {
            "weights before": self._weights_hash(round_ - 1),
            "weights after": self._done(round_, Stage.TRL_TRAINING),
        }
        await self.state.run_stage(round_, ROUND_GATE, inputs, lambda: self._judge(round_))

    async def _judge(self, round_: int) -> dict[str, Any]:
        decision = await self._read_in_thread(lambda reader: judge_weights(reader, round_, self._settings))
        output = act_on(decision, round_, self._settings.round_gate)
        if output["action"] != "passed" or output["alarms"]:
            log.warning("round %d: %s · %s", round_, output["action"].replace("_", " "), output["evidence"])
        return output

    def report_score(self) -> None:
        """Score the last weights on EVAL_FILES, by the same Solver and cascade as every other score."""
        round_, reported = self._settings.total_rounds, self._questions.reported
        inputs = reported_inputs(reported, self._settings.eval_attempts, self._weights_hash(round_))
        try:
            scoring = self.state.run_stage(round_, EVAL_FILES, inputs, lambda: self._score_reported(round_))
            stopping.run(self._runner, scoring)
        finally:
            progress.close_all()
        write_reported(self._workspace, self._journal, round_, reported)

    async def _score_reported(self, round_: int) -> dict[str, Any]:
        model = self.checkpoint(round_).path
        await draw_and_grade(
            self._engines.collector,
            self._engines.rewards,
            self._settings,
            "reported",
            round_,
            self._questions.all_reported,
            lambda: self._solver_of(model),
        )
        reported, seed = self._questions.reported, self._settings.seed
        return await self._read_in_thread(lambda reader: reported_scores(reader, round_, reported, seed))

    # What is shared

    def checkpoint(self, round_: int) -> Checkpoint:
        """The Solver after a round; round 0 is SOLVER_MODEL_PATH."""
        made = made_in(self._journal, round_)
        path = self._output(made, Stage.TRL_TRAINING)["checkpoint"] if made else self._settings.solver_model_path
        return Checkpoint(round_, path, trained=made == round_)

    def _weights_hash(self, round_: int) -> str:
        """Names the weights after a round by what made them, so that a moved workspace still matches."""
        made = made_in(self._journal, round_)
        return self._done(made, Stage.TRL_TRAINING) if made else "base"

    def _done(self, round_: int, stage: Stage) -> str:
        return self.state.stage_input_hash(round_, stage)

    def _output(self, round_: int, stage: Stage) -> dict[str, Any]:
        record = self._journal.stage(round_, stage)
        assert record is not None, f"round {round_} · {stage} is not done"
        return record.output

    async def _read_in_thread(self, work: Callable[[Journal], T]) -> T:
        """With a reader of its own: calls in flight must not wait for what reads or writes a whole round."""

        def read() -> T:
            with Journal(self._workspace.journal, read_only=True) as reader:
                return work(reader)

        with pausing.in_flight():
            return await in_thread(read)

    async def _conclude(self, round_: int) -> dict[str, Any]:
        return self.conclude(round_)

    def conclude(self, round_: int) -> dict[str, Any]:
        """The round's result file and, every CHECKPOINT_INTERVAL rounds, its checkpoint record."""
        summary = asdict(round_summary(self._journal, round_))
        seconds = {"duration_seconds": summary.pop("duration_seconds")}
        RoundFiles(self._workspace, self._journal).results(round_, summary, seconds)
        if self.records_checkpoint(round_):
            write_json(
                self._workspace.checkpoint_record(round_),
                {**asdict(self.checkpoint(round_)), "next_round": round_ + 1},
            )
        return {}

    def records_checkpoint(self, round_: int) -> bool:
        return round_ % self._settings.checkpoint_interval == 0 or round_ == self._settings.total_rounds

    def _solver_of(self, model: str) -> Solver:
        """The open solver if it holds this model, else a new one."""
        if self._solver is None or self._solver[0] != model:
            self.close_solver()
            self._engines.gpus.begin("sampling")
            self._solver = (model, self._engines.open_solver(model))
        return self._solver[1]

    def _end_sampling(self) -> None:
        """End the Solver and see that its GPUs are free again."""
        self.close_solver()
        self._engines.gpus.wait_given_back("sampling")

    def close_solver(self) -> None:
        """End the Solver and free its memory: before training on its GPUs, after a failure, at the end."""
        if self._solver is not None:
            self._solver[1].close()
            self._solver = None
