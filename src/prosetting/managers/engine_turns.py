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
        self._solver: Solver | None = None
        self._held: str | None = None

    def solver_of(self, model: str) -> Solver:
        """The open solver, with this model loaded if it can take another; else a new one."""
        if self._solver is None or not (self._held == model or self._solver.load(model)):
            self.close_solver()
            self._gpus.begin("sampling")
            self._solver = self._open_solver(model)
        self._held = model
        return self._solver

    def close_solver(self) -> None:
        """End the Solver: after a failure, at the end."""
        if self._solver is not None:
            self._solver.close()
            self._solver = self._held = None

    async def run_trainer(self, job: TrainingJob, trainer: Trainer) -> TrainingResult:
        """A training to its end, through pauses. The Solver holds no weights by then."""
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
        """Free the Solver's memory, which on a GPU takes its end, and see that its GPUs are free again."""
        if self._solver is not None and self._solver.load(None):
            self._held = None
        else:
            self.close_solver()
        self._gpus.wait_given_back("sampling")
