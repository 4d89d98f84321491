"""The Solver on the nodes of a Ray cluster: replicas as actors, told apart from the local Solver by its child alone.

The child (worker_ray_solver.py) is a Ray driver that speaks the sampling child's protocol. So nothing of Ray is in the
run's own process, a killed run's child ends by itself, and with it Ray ends its replicas.
"""

from __future__ import annotations

from pathlib import Path

from prosetting.collectors.local_solver import LocalSolver, check_model_folder
from prosetting.config import Settings
from prosetting.core.ray_cluster import check_cluster, solver_demand

WORKER = "prosetting.collectors.worker_ray_solver"


def check_ray_solver(settings: Settings) -> None:
    """Refuse what cannot work before anything is spent. Raises ConfigError."""
    check_model_folder(settings.solver_model_path)
    check_cluster(settings, solver_demand(settings))


def open_ray_solver(settings: Settings, logs: Path, model: str) -> LocalSolver:
    worker = [
        WORKER,
        *("--address", settings.ray_cluster_address or ""),
        *("--replicas", str(settings.ray_solver_replicas or 0)),
        *("--gpus", str(settings.ray_solver_gpus)),
        *("--cpus", str(settings.ray_solver_cpus)),
        *("--node-timeout", str(settings.ray_node_timeout)),
    ]
    return LocalSolver(
        model,
        gpu_ids=settings.physical_solver_gpu,  # of a cluster that is started on this machine
        log_file=logs / "sampler.log",
        batch_size=settings.solver_batch_size,
        trust_remote_code=settings.trust_remote_code,
        worker=worker,
    )
