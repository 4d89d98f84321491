"""Stage 4 of a round: on which pairs the Solver is trained, whether it is trained at all, and what that came to."""

from __future__ import annotations

from typing import Any

from prosetting.core.artifacts import write_json
from prosetting.managers.engine_turns import EngineTurns
from prosetting.managers.round_gate import was_kept
from prosetting.managers.run_so_far import Inputs, RunSoFar
from prosetting.managers.training_rounds import TRAIN_ON
from prosetting.records import Stage
from prosetting.trainers.base import Trainer, TrainingJob, TrainingResult
from prosetting.trainers.losses import loss_of


class SolverTraining:
    """The Solver's training in each round of a run."""

    def __init__(self, run: RunSoFar, trainer: Trainer, turns: EngineTurns) -> None:
        self._run = run
        self._settings = run.settings
        self._trainer = trainer
        self._turns = turns
        self._given_up: set[int] = set()

    def give_up(self, round_: int) -> None:
        """The weights of the round before carry over."""
        self._given_up.add(round_)

    def get_ready(self, round_: int) -> None:
        """While attempts are drawn: libraries take long to load."""
        if self._run.journal.stage(round_, Stage.TRL_TRAINING) is None and not self._reason_without_pairs(round_):
            self._trainer.get_ready(self._job(round_, self._rounds_to_train_on(round_)))

    def close(self) -> None:
        self._trainer.close()

    def inputs(self, round_: int) -> Inputs:
        converted = {
            f"pairs of round {r}": self._run.state.stage_input_hash(r, Stage.DPO_CONVERSION)
            for r in self._rounds_to_train_on(round_)
        }
        return {
            **converted,
            "weights": self._run.weights_hash(round_ - 1),
            "train_on": self._settings.train_on,
            **({} if self._settings.trains_with_verl else {"loss": loss_of(self._settings).in_words()}),
        }

    async def train(self, round_: int) -> dict[str, Any]:
        """The stage's output. Where there is a reason not to train, the weights of the round before carry over."""
        rounds = self._rounds_to_train_on(round_)
        converted = [self._run.output(r, Stage.DPO_CONVERSION) for r in rounds]
        train_pairs = sum(output["train"] for output in converted)
        supervised = sum(output.get("supervised_train", 0) for output in converted)
        reason = self._reason_not_to_train(round_, train_pairs)
        result = None
        if reason:
            self._trainer.close()
        else:
            result = await self._turns.run_trainer(self._job(round_, rounds), self._trainer)
        told = self._told(rounds, train_pairs, supervised)
        output = {
            "trained": result is not None,
            "reason": "; ".join([told, *result.notes]) if result else reason,
            "rounds_used": rounds if result else [],
            "checkpoint": str(result.model_dir) if result else self._run.checkpoint(round_ - 1).path,
            "metrics": result.metrics if result else {},
            "steps": result.steps if result else 0,
            "train_pairs": train_pairs,
            **({"supervised_rows": supervised} if supervised else {}),
        }
        self._write_result(round_, output, result)
        return output

    def _told(self, rounds: list[int], train_pairs: int, supervised: int) -> str:
        unit = "questions" if self._settings.trains_with_verl else "pairs"
        rows = f" and {supervised} supervised rows" if supervised else ""
        return f"trained on {train_pairs} {unit}{rows} of rounds {', '.join(map(str, rounds))}"

    def _write_result(self, round_: int, output: dict[str, Any], result: TrainingResult | None) -> None:
        seconds = result.duration_seconds if result else 0.0
        write_json(self._run.workspace.training_result(round_), {"round": round_, **output}, training_seconds=seconds)

    def _reason_not_to_train(self, round_: int, train_pairs: int) -> str:
        """Empty when there is no such reason. None of them is an error."""
        if reason := self._reason_without_pairs(round_):
            return reason
        if not train_pairs and self._settings.trains_with_verl:
            return "no questions: none had an attempt with a verdict"
        return "" if train_pairs else "no pairs: no question had both a correct and an incorrect attempt"

    def _reason_without_pairs(self, round_: int) -> str:
        """As `_reason_not_to_train`, of what is known before the round's pairs are."""
        first = self._settings.first_training_round
        if round_ < first:
            return f"gathering data: training starts in round {first}"
        if round_ in self._given_up:
            return "training failed and was given up: the weights of the round before carry over"
        return ""

    def _rounds_to_train_on(self, round_: int) -> list[int]:
        used, kept = set[int](), set[int]()
        for r in range(1, round_):
            of_training = self._run.output(r, Stage.TRL_TRAINING)["rounds_used"]
            used.update(of_training)
            kept.update(of_training if was_kept(self._run.journal, r) else ())
        # What only trainings that were turned down were on may be why.
        rounds = [r for r in TRAIN_ON[self._settings.train_on](round_, used) if r in kept or r not in used]
        # A fork may go on with another framework, whose data the rounds before it do not have.
        verl = self._settings.trains_with_verl
        made = Stage.DPO_CONVERSION
        return [r for r in rounds if r == round_ or ("training_data" in self._run.output(r, made)) == verl]

    def _job(self, round_: int, rounds: list[int]) -> TrainingJob:
        """Before stage 3 is done the round's own file of verl has no name yet."""
        verl, workspace = self._settings.trains_with_verl, self._run.workspace
        converted = [record for r in rounds if verl and (record := self._run.journal.stage(r, Stage.DPO_CONVERSION))]
        names = [record.output["training_data"] for record in converted]
        return TrainingJob(
            round=round_,
            model_path=self._run.checkpoint(round_ - 1).path,
            dataset_dirs=[] if verl else [workspace.dataset_dir(r) for r in rounds],
            output_dir=workspace.model_dir(round_),
            log_file=workspace.logs / ("verl_trainer.log" if verl else "trl_trainer.log"),
            seed=self._settings.seed + round_,
            training_files=[workspace.training_data(f"{name}.parquet") for name in names],
        )
