"""One session of a toy run (real loop, journal, teacher and signals; scripted engines), as a process of its own.

    python toy_session.py FOLDER ROUNDS MODE [SETTING=VALUE …]

FOLDER/inputs is made when it is missing; the workspace is FOLDER/run. Exits as `prosetting run` does.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from prosetting.collectors.solver import Sample, SampleRequest, SamplingParams
from prosetting.config import Settings
from prosetting.core.workspace import Workspace
from prosetting.errors import ProSettingError, TrainingError
from prosetting.managers.run import start_run
from prosetting.managers.toy_loop import ScriptedSolver, ScriptedTrainer, toy_settings, write_toy_inputs
from prosetting.trainers.base import TrainingJob, TrainingResult


class FailsOnce(ScriptedTrainer):
    """A training that fails as long as FOLDER/fail stands."""

    def __init__(self, folder: Path) -> None:
        self._order = folder / "fail"

    def train(self, job: TrainingJob) -> TrainingResult:
        if self._order.exists():
            raise TrainingError("training failed on order", next_step="try again")
        return super().train(job)


class Unhurried(ScriptedSolver):
    """Takes a moment for an attempt, so that there is something to be in the middle of."""

    def sample(self, requests: Iterable[SampleRequest], params: SamplingParams) -> Iterator[Sample]:
        for sample in super().sample(requests, params):
            time.sleep(0.01)
            yield sample


def _open_solver(settings: Settings, workspace: Workspace, model: str) -> ScriptedSolver:
    return Unhurried(model)


def main(folder: Path, rounds: int, mode: str, changes: dict[str, object]) -> int:
    inputs = (folder / "inputs").resolve()
    if not inputs.exists():
        write_toy_inputs(inputs)
    settings = toy_settings(inputs, folder / "run", rounds=rounds).model_copy(update=changes)
    try:
        return start_run(
            settings,
            (),
            "semi" if mode == "semi" else "auto",
            open_solver=_open_solver,
            open_trainer=lambda _: FailsOnce(folder),
        )
    except ProSettingError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    given = dict(part.split("=", 1) for part in sys.argv[4:])
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], {k: json.loads(v) for k, v in given.items()}))
