"""The Generator's turn in a round: it learns from the questions that the round has measured, then writes its share.

The turn falls between grading and the Solver's training: what it learns from is measured then. After that training the
Solver tries what was drafted, with the weights that will play it, before Teacher2 solves it and the gate looks at it.
The Generator's weights carry over from round to round, as the Solver's do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from prosetting.collectors.solver import Solver
from prosetting.collectors.trajectory_collector import TrajectoryCollector
from prosetting.config import Settings
from prosetting.core.artifacts import write_json
from prosetting.core.concurrency import Frontier, in_thread, side_by_side
from prosetting.core.group_commit import GroupCommit
from prosetting.core.journal import Journal
from prosetting.core.pool_questions import QuestionsById
from prosetting.core.state_manager import GENERATOR_DRAFTS, GENERATOR_TRAINING, GENERATOR_TRIALS, StateManager
from prosetting.core.storage import check_room
from prosetting.core.workspace import Workspace
from prosetting.datasets.generator_text import generator_prompt
from prosetting.managers.generator_drafts import DRAFTS
from prosetting.managers.question_manager import QuestionManager
from prosetting.managers.question_sources import measured
from prosetting.managers.room import MODELS_OF_A_TRAINING, weights_bytes
from prosetting.managers.round_files import RoundFiles
from prosetting.processors.reward_calculator import RewardCalculator
from prosetting.records import Question, QuestionId
from prosetting.trainers.base import Trainer, TrainingJob, TrainingResult

Inputs = dict[str, Any]


class GeneratorTurn:
    """`rules` grades without Teacher1: what the Solver makes of a draft is a hint, and not worth a call."""

    def __init__(
        self,
        settings: Settings,
        workspace: Workspace,
        journal: Journal,
        trainer: Trainer,
        commits: GroupCommit,
        questions: QuestionManager,
        rules: RewardCalculator,
    ) -> None:
        assert settings.generator_model_path
        self._base = settings.generator_model_path
        self._settings = settings
        self._workspace = workspace
        self._journal = journal
        self.trainer = trainer
        self._questions = questions
        self._rules = rules
        self._solvers_collector = TrajectoryCollector(commits, settings)
        # As the Solver's, with the Generator's own length and nothing after the prompt.
        self._collector = TrajectoryCollector(
            commits,
            settings.model_copy(
                update={"solver_instruction": "", "solver_max_new_tokens": settings.generator_max_new_tokens}
            ),
        )
        self._given_up: set[int] = set()

    def give_up_training(self, round_: int) -> None:
        """The weights of the round before carry over."""
        self._given_up.add(round_)

    def get_ready(self, round_: int) -> None:
        """While attempts are drawn: libraries take long to load."""
        if round_ > 1 and round_ not in self._given_up and not self._journal.stage(round_, GENERATOR_TRAINING):
            self.trainer.get_ready(self._job(round_))

    async def take(
        self,
        round_: int,
        graded: Inputs,
        state: StateManager,
        open_solver: Callable[[str], Solver],
        run_trainer: Callable[[TrainingJob, Trainer], Awaitable[TrainingResult]],
    ) -> None:
        """Learn and write, each unless it is done. `graded`: what the round's grading came to, by name."""
        inputs = {**graded, "weights": self._weights_hash(round_ - 1, state), "generator_model_path": self._base}
        await state.run_stage(round_, GENERATOR_TRAINING, inputs, lambda: self._train(round_, run_trainer))
        if self._settings.generator_share:
            inputs = {**graded, "weights": self._weights_hash(round_, state)}
            await state.run_stage(round_, GENERATOR_DRAFTS, inputs, lambda: self._draft(round_, open_solver))

    async def try_drafts(
        self, round_: int, trained: Inputs, state: StateManager, open_solver: Callable[[], Solver]
    ) -> None:
        """The Solver's attempts at the drafts. `trained`: what its training came to, by name."""
        trials = self._settings.generator_trials
        if self._settings.generator_share and trials:
            inputs = {**trained, "drafts": state.stage_input_hash(round_, GENERATOR_DRAFTS), "generator_trials": trials}
            await state.run_stage(round_, GENERATOR_TRIALS, inputs, lambda: self._try(round_, open_solver))

    def model(self, round_: int) -> str:
        """The Generator after its training in a round."""
        trained = self._last_trained(round_)
        return str(self._workspace.generator_dir(trained)) if trained else self._base

    async def _train(
        self, round_: int, run_trainer: Callable[[TrainingJob, Trainer], Awaitable[TrainingResult]]
    ) -> dict[str, Any]:
        rows = await in_thread(lambda: self._write_rows(round_ - 1)) if round_ > 1 else 0
        reason = self._reason_not_to_train(round_, rows)
        result = None
        if reason:
            self.trainer.close()
        else:
            self._check_room(round_)
            result = await run_trainer(self._job(round_), self.trainer)
        told = f"trained on {result.train_pairs} questions of round {round_ - 1}" if result else reason
        if result and (left_out := rows - result.train_pairs):
            told += f" ({left_out} longer than TRL_MAX_LENGTH left out)"
        output = {
            "trained": result is not None,
            "reason": "; ".join([told, *(result.notes if result else ())]),
            "rows": rows,
            "steps": result.steps if result else 0,
            "metrics": result.metrics if result else {},
        }
        seconds = result.duration_seconds if result else 0.0
        write_json(self._workspace.generator_result(round_), {"round": round_, **output}, training_seconds=seconds)
        return output

    def _write_rows(self, round_: int) -> int:
        """Write the questions of `round_` with the pass rates that are measured now; how many have one."""
        with Journal(self._workspace.journal, read_only=True) as reader:
            RoundFiles(self._workspace, reader).generator_training(round_)
            return sum(made.pass_rate is not None for made in reader.admitted_with_parents(round_))

    def _reason_not_to_train(self, round_: int, rows: int) -> str:
        """Empty when there is no such reason. None of them is an error: the weights carry over."""
        if round_ == 1:
            return "no new question is measured before the second round"
        if round_ in self._given_up:
            return "training failed and was given up: the weights of the round before carry over"
        return "" if rows else f"no question that round {round_ - 1} brought was measured"

    def _check_room(self, round_: int) -> None:
        needed = MODELS_OF_A_TRAINING["TRL_DPO"] * weights_bytes(Path(self.model(round_ - 1)).expanduser())
        check_room(self._workspace.root, needed, f"round {round_} · {GENERATOR_TRAINING}")

    def _job(self, round_: int) -> TrainingJob:
        return TrainingJob(
            round=round_,
            model_path=self.model(round_ - 1),
            dataset_dirs=[],
            output_dir=self._workspace.generator_dir(round_),
            log_file=self._workspace.logs / "generator_trainer.log",
            seed=self._settings.seed + round_,
            training_files=[self._workspace.round_data(round_ - 1, "generator_training")],
        )

    async def _draft(self, round_: int, open_solver: Callable[[str], Solver]) -> dict[str, Any]:
        prompts = _prompts(self._questions, round_)
        model = self.model(round_)
        await self._collector.collect("generator", round_, prompts, DRAFTS, lambda: open_solver(model), Frontier())
        return {"drafts": len(prompts) * len(DRAFTS), "tokens": self._journal.completion_tokens("generator", round_)}

    async def _try(self, round_: int, open_solver: Callable[[], Solver]) -> dict[str, Any]:
        drafts = self._questions.to_try(round_)
        attempts, sampled = range(self._settings.generator_trials), Frontier()
        await side_by_side(
            self._solvers_collector.collect("trial", round_, drafts, attempts, open_solver, sampled),
            self._rules.grade("trial", round_, drafts, attempts_a_question=len(attempts), sampled=sampled),
        )
        tallies = [tally for tally in self._journal.tallies("trial", round_) if tally.correct + tally.incorrect]
        return {
            "attempts": len(drafts) * len(attempts),
            "tokens": self._journal.completion_tokens("trial", round_),
            "measured": asdict(measured([tally.correct / (tally.correct + tally.incorrect) for tally in tallies])),
        }

    def _last_trained(self, round_: int) -> int:
        """The last round that trained it, 0 for none. A fork may have begun with another base."""
        for r in range(round_, 0, -1):
            record = self._journal.stage(r, GENERATOR_TRAINING)
            if record and record.output["trained"] and record.inputs["generator_model_path"] == self._base:
                return r
        return 0

    def _weights_hash(self, round_: int, state: StateManager) -> str:
        """Names the weights by what made them."""
        trained = self._last_trained(round_)
        return state.stage_input_hash(trained, GENERATOR_TRAINING) if trained else "base"


def _prompts(questions: QuestionManager, round_: int) -> QuestionsById:
    """What the Generator is given, as questions under the ids of those that it builds on."""

    def read(question_id: QuestionId) -> Question:
        plan = questions.plan(round_, question_id)
        assert plan is not None, "only questions with a plan are drafted"
        text = generator_prompt(plan.parent.text, plan.shown.response, plan.shown.verdict, plan.kind)
        return replace(plan.parent, text=text)

    return QuestionsById(questions.to_draft(round_), read)
