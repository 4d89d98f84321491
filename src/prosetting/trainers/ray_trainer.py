"""Stage 4 on the nodes of a Ray cluster: TRL's DPO as Ray Train starts it, around the same worker.

All but the launcher is TrlTrainer's: the job file, the progress file, checkpoints, the finished model. They lie in the
workspace, which all nodes share.
"""

from __future__ import annotations

from prosetting.config import Settings
from prosetting.core.ray_cluster import check_cluster, trainer_demand
from prosetting.errors import ConfigError
from prosetting.trainers.base import TrainingJob
from prosetting.trainers.trl_job import launch_env
from prosetting.trainers.trl_trainer import TrlTrainer, job_file_of

LAUNCHER = "prosetting.trainers.worker_ray_train"
OF_THIS_MACHINE = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
"""What Ray decides for each training process."""


class RayTrainer(TrlTrainer):
    """Trains one round with `TRL_NUM_PROCESSES` processes, each on RAY_TRAINER_GPUS of any node."""

    @classmethod
    def check(cls, settings: Settings) -> None:
        super().check(settings)
        for name, given in (
            ("TRL_SHARDING=fsdp", settings.trl_sharding == "fsdp"),
            ("ACCELERATE_CONFIG_FILE", settings.accelerate_config_file is not None),
        ):
            if given:
                raise ConfigError(
                    f"{name} with TRL_LAUNCHER=ray: Ray starts DDP only, {name.split('=')[0]} is accelerate's",
                    next_step=f"leave {name} out, or set TRL_LAUNCHER=accelerate (several machines: docs/scaling.md)",
                )
        check_cluster(settings, trainer_demand(settings))

    def _may_fork(self, job: TrainingJob) -> bool:
        return False

    def _command(self, job: TrainingJob) -> list[str]:
        settings = self._settings
        env = launch_env(settings, job)
        return [
            LAUNCHER,
            *("--job", str(job_file_of(job))),
            *("--address", settings.ray_cluster_address or ""),
            *("--processes", str(settings.trl_num_processes)),
            *("--gpus", str(settings.ray_trainer_gpus)),
            *("--cpus", str(settings.ray_trainer_cpus)),
            *("--node-timeout", str(settings.ray_node_timeout)),
            *(part for name in env.keys() - set(OF_THIS_MACHINE) for part in ("--env", f"{name}={env[name]}")),
        ]
