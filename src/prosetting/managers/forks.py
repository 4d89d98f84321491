"""Which workers of a run are forks of its fork server: what samples and trains on the CPU, where it would load the
same libraries several times a round. Light to import: the server loads while the run itself is loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from prosetting.collectors import local_solver
from prosetting.config import Settings
from prosetting.core import orphans
from prosetting.core.fork_server import fork_server
from prosetting.core.gpu_manager import gpu_env
from prosetting.trainers.launch import DPO_WORKER, LAUNCHER, QUIET_ENV, may_fork


@contextlib.contextmanager
def fork_server_of(settings: Settings) -> Iterator[None]:
    """Inside, workers of these settings are forked where they can be."""
    offline = {"HF_HUB_OFFLINE": "1"}  # a model in a folder asks no hub, and the worker of another is not forked
    with (
        _mark_of(settings.workspace_dir) as mark,
        fork_server(modules_of(settings), {**gpu_env(()), **QUIET_ENV, **offline, **mark}),
    ):
        yield


def modules_of(settings: Settings) -> list[str]:
    """In the order in which they are needed."""
    here = Path(settings.solver_model_path).expanduser().is_dir()
    samples = settings.solver_engine == "transformers" and not settings.solver_base_urls
    sampler = [local_solver.WORKER] if here and samples and not settings.physical_solver_gpu else []
    launched = settings.trl_launcher == "accelerate" and may_fork(settings, settings.solver_model_path)
    return [
        *sampler,
        *([LAUNCHER, DPO_WORKER] if settings.trains and not settings.trains_with_verl and launched else []),
    ]


@contextlib.contextmanager
def _mark_of(workspace: Path) -> Iterator[dict[str, str]]:
    """By which a later run finds what this one leaves behind. It is of the folder itself: one that is not there yet is
    made, and is gone again if the run writes nothing."""
    made, mark = [folder for folder in (workspace, *workspace.parents) if not folder.exists()], {}
    with contextlib.suppress(OSError):  # which the run will tell
        workspace.mkdir(parents=True, exist_ok=True)
        mark = {orphans.MARK: orphans.mark_of(workspace)}
    try:
        yield mark
    finally:
        with contextlib.suppress(OSError):  # it is in use
            for folder in made:
                folder.rmdir()
