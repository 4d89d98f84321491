"""What a run has come to, as its stages ask for it: what those before gave, and the weights that a round ends with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from prosetting.config import Settings
from prosetting.core import pausing
from prosetting.core.concurrency import in_thread
from prosetting.core.journal import Journal
from prosetting.core.state_manager import StateManager
from prosetting.core.workspace import Workspace
from prosetting.managers.round_gate import made_in
from prosetting.records import Checkpoint, Stage

T = TypeVar("T")
Inputs = dict[str, Any]
"""What a stage depends on, by name: settings as they are, content as digests."""


@dataclass(frozen=True, slots=True)
class RunSoFar:
    """The settings of a run, where it keeps things, and what they hold."""

    settings: Settings
    workspace: Workspace
    journal: Journal
    state: StateManager

    def output(self, round_: int, stage: Stage) -> dict[str, Any]:
        """What a stage that is done came to."""
        record = self.journal.stage(round_, stage)
        assert record is not None, f"round {round_} · {stage} is not done"
        return record.output

    def checkpoint(self, round_: int) -> Checkpoint:
        """The Solver after a round; round 0 is SOLVER_MODEL_PATH."""
        made = made_in(self.journal, round_)
        path = self.output(made, Stage.TRL_TRAINING)["checkpoint"] if made else self.settings.solver_model_path
        return Checkpoint(round_, path, trained=made == round_)

    def weights_hash(self, round_: int) -> str:
        """Names the weights after a round by what made them, so that a moved workspace still matches."""
        made = made_in(self.journal, round_)
        return self.state.stage_input_hash(made, Stage.TRL_TRAINING) if made else "base"

    def graded(self, round_: int) -> Inputs:
        """What a round's grading came to, for the stages that begin with it."""
        verdicts = self.output(round_, Stage.DATA_GRADING)["digest"]
        return {"verdicts": verdicts, "data_grading": self.state.stage_input_hash(round_, Stage.DATA_GRADING)}

    async def read_in_thread(self, work: Callable[[Journal], T]) -> T:
        """With a reader of its own: calls in flight must not wait for what reads or writes a whole round."""

        def read() -> T:
            with Journal(self.workspace.journal, read_only=True) as reader:
                return work(reader)

        with pausing.in_flight():
            return await in_thread(read)
