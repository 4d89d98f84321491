"""Every way to sample. A new engine is one file that implements `Solver`, and one line of ENGINES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prosetting.collectors.given_servers import GivenServers, check_servers
from prosetting.collectors.local_solver import LocalSolver, check_model_folder
from prosetting.collectors.ray_solver import check_ray_solver, open_ray_solver
from prosetting.collectors.server_solver import ServerSolver
from prosetting.collectors.solver import Solver
from prosetting.collectors.vllm_servers import VllmServers, check_vllm
from prosetting.config import Settings


@dataclass(frozen=True, slots=True)
class SolverEngine:
    """`check` refuses what cannot work before anything is spent (ConfigError, SolverError); `open` starts the engine on
    a model (a folder or a hub name) and returns at once, its logs go to the folder it is given. `samples_here`: it
    needs the model's files and PHYSICAL_SOLVER_GPU of this machine."""

    check: Callable[[Settings], None]
    open: Callable[[Settings, Path, str], Solver]
    samples_here: bool = True


def engine_of(settings: Settings) -> SolverEngine:
    """The engine that the settings choose."""
    return ENGINES["addresses" if settings.solver_base_urls else settings.solver_engine]


def _check_transformers(settings: Settings) -> None:
    check_model_folder(settings.solver_model_path)


def _open_transformers(settings: Settings, logs: Path, model: str) -> Solver:
    return LocalSolver(
        model,
        gpu_ids=settings.physical_solver_gpu,
        log_file=logs / "sampler.log",
        batch_size=settings.solver_batch_size,
        trust_remote_code=settings.trust_remote_code,
    )


def _open_addresses(settings: Settings, logs: Path, model: str) -> Solver:
    return ServerSolver(GivenServers(settings, model, log_file=logs / "solver_reload.log"))


def _open_vllm(settings: Settings, logs: Path, model: str) -> Solver:
    return ServerSolver(VllmServers(settings, model, logs))


ENGINES = {
    "transformers": SolverEngine(_check_transformers, _open_transformers),
    "vllm": SolverEngine(check_vllm, _open_vllm),
    "ray": SolverEngine(check_ray_solver, open_ray_solver),
    "addresses": SolverEngine(check_servers, _open_addresses, samples_here=False),
}
"""By SOLVER_ENGINE; `addresses` is what SOLVER_BASE_URLS names."""
