"""Whose turn it is on the GPUs: the one open Solver's, which stays open between stages, or a trainer's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from prosetting.collectors.solver import Solver
from prosetting.core import pausing
from prosetting.core.concurrency import in_thread
from prosetting.core.gpu_manager import GpuManager
from prosetting.trainers.base import Trainer, TrainingJob, TrainingResult


class EngineTurns:
    """`open_solver` starts an engine on a model."""

    def __init__(self, open_solver: Callable[[str], Solver], gpus: GpuManager) -> None:
        self._open_solver = open_solver
        self._gpus = gpus
        self._solver: tuple[str, Solver] | None = None

    def solver_of(self, model: str) -> Solver:
        """The open solver if it holds this model, else a new one."""
        if self._solver is None or self._solver[0] != model:
            self.close_solver()
            self._gpus.begin("sampling")
            self._solver = (model, self._open_solver(model))
        return self._solver[1]

    def close_solver(self) -> None:
        """End the Solver and free its memory: before training on its GPUs, after a failure, at the end."""
        if self._solver is not None:
            self._solver[1].close()
            self._solver = None

    async def run_trainer(self, job: TrainingJob, trainer: Trainer) -> TrainingResult:
        """A training to its end, through pauses. The Solver is closed by then."""
        result = None
        while result is None:
            async with pausing.work():
                if self._gpus.allocation.take_turns:
                    await in_thread(self._end_sampling)
                self._gpus.begin("training")
                with suppress(pausing.PauseRequested):
                    result = await in_thread(lambda: trainer.train(job))
                await in_thread(lambda: self._gpus.wait_given_back("training"))
        await in_thread(self._end_sampling)  # the weights it holds are those of before
        return result

    def _end_sampling(self) -> None:
        """End the Solver and see that its GPUs are free again."""
        self.close_solver()
        self._gpus.wait_given_back("sampling")
