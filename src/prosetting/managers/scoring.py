"""Scores of a run's weights on questions kept apart: after each training, at the gate, and at the end."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from prosetting.collectors.trajectory_collector import TrajectoryCollector
from prosetting.core.artifacts import digest
from prosetting.core.state_manager import EVAL_FILES, EVALUATION, ROUND_GATE
from prosetting.managers.engine_turns import EngineTurns
from prosetting.managers.heldout import draw_and_grade, score_heldout
from prosetting.managers.question_files import QuestionFiles
from prosetting.managers.reported import reported_inputs, reported_scores, write_reported
from prosetting.managers.round_gate import act_on, judge_weights, made_in, worth_telling
from prosetting.managers.run_so_far import RunSoFar
from prosetting.processors.reward_calculator import RewardCalculator
from prosetting.records import Stage

log = logging.getLogger("prosetting")


class Scoring:
    """By the Solver, the collector and the cascade that the rounds use."""

    def __init__(
        self,
        run: RunSoFar,
        questions: QuestionFiles,
        collector: TrajectoryCollector,
        rewards: RewardCalculator,
        turns: EngineTurns,
    ) -> None:
        self._run = run
        self._settings = run.settings
        self._questions = questions
        self._collector = collector
        self._rewards = rewards
        self._turns = turns

    async def score_start(self, round_: int) -> None:
        """The weights that a round starts from, where they have no score: the base, or a fork with other questions."""
        made = made_in(self._run.journal, round_ - 1)
        if self._run.journal.stage(made, EVALUATION) is None:
            await self.score_weights(made)

    async def score_weights(self, round_: int) -> None:
        """The weights after a round (0: the untrained base), unless unchanged or without held-out questions."""
        run = self._run
        if not self._questions.heldout or (round_ and not run.output(round_, Stage.TRL_TRAINING)["trained"]):
            return
        inputs = {
            "held-out questions": digest([question.question_id for question in self._questions.heldout]),
            "eval_attempts": self._settings.eval_attempts,
            # Of the training, whatever the round gate makes of its weights later.
            "weights": run.state.stage_input_hash(round_, Stage.TRL_TRAINING) if round_ else "base",
        }
        await run.state.run_stage(round_, EVALUATION, inputs, lambda: self._heldout(round_))

    async def _heldout(self, round_: int) -> dict[str, Any]:
        model = self._run.checkpoint(round_).path
        found = await score_heldout(
            self._run.journal,
            self._collector,
            self._rewards,
            self._settings,
            round_,
            self._questions.heldout,
            lambda: self._turns.solver_of(model),
        )
        if found is None:
            return {"heldout": None, "reason": "no held-out attempt could be graded"}
        return {"heldout": asdict(found), "pass_at_1": found.pass_at_1, "greedy": found.greedy}

    async def judge_weights(self, round_: int) -> None:
        """ROUND_GATE on weights that were scored; last, so that all that speaks for or against them is known."""
        run = self._run
        if self._settings.round_gate == "off" or run.journal.stage(round_, EVALUATION) is None:
            return
        inputs = {
            "weights before": run.weights_hash(round_ - 1),
            "weights after": run.state.stage_input_hash(round_, Stage.TRL_TRAINING),
        }
        await run.state.run_stage(round_, ROUND_GATE, inputs, lambda: self._judge(round_))

    async def _judge(self, round_: int) -> dict[str, Any]:
        decision = await self._run.read_in_thread(lambda reader: judge_weights(reader, round_, self._settings))
        output = act_on(decision, round_, self._settings.round_gate)
        if worth_telling(output):
            log.warning("round %d: %s · %s", round_, output["action"].replace("_", " "), output["evidence"])
        return output

    async def score_reported(self) -> None:
        """The last weights on EVAL_FILES."""
        round_ = self._settings.total_rounds
        weights = self._run.weights_hash(round_)
        inputs = reported_inputs(self._questions.reported, self._settings.eval_attempts, weights)
        await self._run.state.run_stage(round_, EVAL_FILES, inputs, lambda: self._reported(round_))
        write_reported(self._run.workspace, self._run.journal, round_, self._questions.reported)

    async def _reported(self, round_: int) -> dict[str, Any]:
        model = self._run.checkpoint(round_).path
        await draw_and_grade(
            self._collector,
            self._rewards,
            self._settings,
            "reported",
            round_,
            self._questions.all_reported,
            lambda: self._turns.solver_of(model),
        )
        reported, seed = self._questions.reported, self._settings.seed
        return await self._run.read_in_thread(lambda reader: reported_scores(reader, round_, reported, seed))
