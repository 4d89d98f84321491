"""What a training of verl is told: the sizes of its batches, its command line, the environment, and the run's name.

Pure but for the hashes of `run_of`. Written for verl 0.9.1, whose keys are checked against its real configuration
(`verl_environment.py`, before anything is spent).
"""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from prosetting.config import Settings
from prosetting.core.artifacts import digest
from prosetting.errors import ConfigError, TrainingError
from prosetting.trainers.base import TrainingJob
from prosetting.trainers.checkpoints import SEAL, sha256

FOLDER = Path(__file__).parent
REWARD_FILE, MANAGER_FILE, LAUNCHER = (
    FOLDER / name for name in ("worker_verl_reward.py", "worker_verl_manager.py", "worker_verl.py")
)
REWARD_WORKERS = 2
CHECKPOINTS_KEPT = 2
MOST_QUEUE_UNITS = 8
RELIED_ON = (
    "data.train_files",
    "reward.custom_reward_function",
    "reward.reward_manager",
    "trainer.default_local_dir",
    "trainer.resume_mode",
)
"""Of verl's keys, those that a user's own value would cut the run off from the training with."""
_PLAIN = re.compile(r"[\w./:+-]+", re.ASCII)
# Of the settings, those without which a checkpoint would go on as another training.
BINDING = (
    "training_framework",
    "verl_attempts_per_question",
    "attempts_per_question",
    "verl_batch_questions",
    "verl_mini_batch_questions",
    "verl_max_prompt_length",
    "verl_num_epochs",
    "verl_learning_rate",
    "verl_critic_learning_rate",
    "verl_kl_coef",
    "verl_overrides",
    "solver_max_new_tokens",
    "solver_temperature",
    "solver_top_p",
    "physical_grpo_gpu",
)


@dataclass(frozen=True, slots=True)
class Batches:
    """Questions of a step and of an update, all GPUs together; `steps` in an epoch."""

    questions: int
    mini: int
    steps: int


@dataclass(frozen=True, slots=True)
class Places:
    """Where a training keeps its things. All but the quarantine are gone once the model stands."""

    work: Path
    partial: Path
    quarantine: Path

    @classmethod
    def of(cls, job: TrainingJob) -> Places:
        work = job.output_dir.with_name(f"{job.output_dir.name}.work")
        return cls(work, work / "model", job.output_dir.with_name("quarantine") / job.output_dir.name)

    @property
    def run_file(self) -> Path:
        return self.work / "run.json"

    @property
    def checkpoints(self) -> Path:
        """verl's `default_local_dir`: a fresh one every round."""
        return self.work / "verl"


def attempts_of(settings: Settings) -> int:
    """Attempts drawn at each question of a step."""
    usual = settings.attempts_per_question if settings.training_framework == "VERL_GRPO" else 1
    return settings.verl_attempts_per_question or usual


def in_words(settings: Settings) -> str:
    """`GRPO by verl, 8 processes, 8 attempts a question drawn by vllm`: how a training runs."""
    name, processes = settings.training_framework.removeprefix("VERL_"), gpu_count(settings)
    attempts = attempts_of(settings)
    drawn = f"{attempts} attempt{'s' if attempts > 1 else ''} a question drawn by {settings.verl_rollout_engine}"
    return f"{name} by verl, {processes} process{'es' if processes > 1 else ''}, {drawn}"


def gpu_count(settings: Settings) -> int:
    """Training processes; one where a platform of the user's own stands in for GPUs."""
    return len(settings.physical_grpo_gpu) or 1


def batches_of(settings: Settings, questions: int) -> Batches:
    """As few steps as VERL_BATCH_QUESTIONS allows, of equal size: verl leaves out what does not fill a last one.

    The attempts of an update are spread evenly over the GPUs. Raises TrainingError for fewer questions than that takes.
    """
    gpus = gpu_count(settings)
    least = gpus // math.gcd(gpus, attempts_of(settings))
    if questions < least:
        raise TrainingError(
            f"{questions} questions are too few to train on {gpus} GPUs: an update takes {least} at least",
            next_step="give more questions, or fewer GPUs in PHYSICAL_GRPO_GPU",
        )
    a_step = _even_part(questions, settings.verl_batch_questions, least)
    mini = _even_part(a_step, settings.verl_mini_batch_questions, least) // least * least
    size = a_step // mini * mini
    return Batches(size, mini, questions // size)


def _even_part(total: int, most: int, least: int) -> int:
    """The size of as few equal parts of `total` as have `most` each, and not less than `least`."""
    most = max(most, least)
    parts = min(math.ceil(total / most), total // least)
    return min(total // parts, most)


def count_questions(job: TrainingJob) -> int:
    """Rows to train on, from the footers of their files."""
    return sum(pq.ParquetFile(file).metadata.num_rows for file in job.training_files)


def own_overrides(settings: Settings) -> list[str]:
    """VERL_OVERRIDES, one by one. Raises ConfigError for quotes that are not closed and for what the run relies on."""
    try:
        found = shlex.split(settings.verl_overrides)
    except ValueError as error:
        raise ConfigError(
            f"VERL_OVERRIDES cannot be read: {error}", next_step="write it as on a command line: 'a.b=1 +c.d=2'"
        ) from None
    for override in found:
        key, _, value = override.lstrip("+~").partition("=")
        if key.startswith(RELIED_ON) or (key == "trainer.logger" and "file" not in value):
            raise ConfigError(
                f"VERL_OVERRIDES sets {key}, which the run relies on to grade, follow and resume the training",
                next_step="take it out (trainer.logger must keep file, such as [console,file,wandb])",
            )
    return found


def overrides(settings: Settings, job: TrainingJob, batches: Batches, *, cpu_count: int, ray_dir: str) -> list[str]:
    """The arguments of `verl.trainer.main_ppo`; the user's own come last and win."""
    places, model = Places.of(job), local_or_hub(job.model_path)
    grpo = settings.training_framework == "VERL_GRPO"
    values: dict[str, Any] = {
        "algorithm.adv_estimator": "grpo" if grpo else "gae",
        "data.train_files": list(map(str, job.training_files)),
        # verl wants validation files; nothing is asked of them: held-out questions are scored by the run.
        "data.val_files": [str(file) for file in job.training_files[:1]],
        "data.train_batch_size": batches.questions,
        "data.max_prompt_length": settings.verl_max_prompt_length,
        "data.max_response_length": settings.solver_max_new_tokens,
        "data.filter_overlong_prompts": True,
        "data.dataloader_num_workers": 0,
        "data.seed": job.seed % 2**31,
        "data.trust_remote_code": settings.trust_remote_code,
        **_actor(settings, model, batches),
        **({} if grpo else _critic(settings, model, batches)),
        "reward.num_workers": REWARD_WORKERS,
        "reward.custom_reward_function.path": str(REWARD_FILE),
        "reward.custom_reward_function.name": "compute_score",
        "reward.reward_manager.source": "importlib",
        "reward.reward_manager.name": "CutOffAwareRewardManager",
        "reward.reward_manager.module.path": str(MANAGER_FILE),
        "trainer.n_gpus_per_node": gpu_count(settings),
        "trainer.nnodes": 1,
        "trainer.total_epochs": settings.verl_num_epochs,
        "trainer.save_freq": settings.verl_save_steps,
        "trainer.test_freq": -1,
        "trainer.val_before_train": False,
        "trainer.resume_mode": "auto",
        "trainer.default_local_dir": str(places.checkpoints),
        "trainer.max_actor_ckpt_to_keep": CHECKPOINTS_KEPT,
        "trainer.max_critic_ckpt_to_keep": CHECKPOINTS_KEPT,
        "trainer.logger": ["console", "file"],
        "trainer.project_name": "prosetting",
        "trainer.experiment_name": f"round-{job.round}",
        # Each of these units takes a core for itself; where there are too few cores verl would wait for ever.
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": max(1, min(MOST_QUEUE_UNITS, cpu_count // 4)),
        # Without an address Ray joins whatever cluster it finds on this machine.
        "+ray_kwargs.ray_init.address": "local",
        "+ray_kwargs.ray_init.include_dashboard": False,
        "+ray_kwargs.ray_init._temp_dir": ray_dir,
        "hydra.run.dir": str(places.work),
        "hydra.output_subdir": None,
    }
    return [*(f"{key}={_hydra(value)}" for key, value in values.items()), *own_overrides(settings)]


def _actor(settings: Settings, model: str, batches: Batches) -> dict[str, Any]:
    """The Solver, its reference (the round's start) and what draws its attempts."""
    return {
        "actor_rollout_ref.model.path": model,
        "actor_rollout_ref.model.trust_remote_code": settings.trust_remote_code,
        "actor_rollout_ref.actor.strategy": "fsdp2",
        "actor_rollout_ref.actor.optim.lr": settings.verl_learning_rate,
        "actor_rollout_ref.actor.ppo_mini_batch_size": batches.mini,
        "actor_rollout_ref.actor.use_dynamic_bsz": True,
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": settings.verl_max_tokens_per_gpu,
        "actor_rollout_ref.actor.use_kl_loss": settings.verl_kl_coef > 0,
        "actor_rollout_ref.actor.kl_loss_coef": settings.verl_kl_coef,
        "actor_rollout_ref.rollout.name": settings.verl_rollout_engine,
        "actor_rollout_ref.rollout.n": attempts_of(settings),
        "actor_rollout_ref.rollout.temperature": settings.solver_temperature,
        "actor_rollout_ref.rollout.top_p": settings.solver_top_p,
        "actor_rollout_ref.rollout.tensor_model_parallel_size": settings.verl_tensor_parallel,
        "actor_rollout_ref.rollout.gpu_memory_utilization": settings.verl_gpu_memory,
    }


def _critic(settings: Settings, model: str, batches: Batches) -> dict[str, Any]:
    """The value model of PPO begins as the Solver does, with a new head, in every round."""
    return {
        "critic.strategy": "fsdp2",
        "critic.model.path": model,
        "critic.model.trust_remote_code": settings.trust_remote_code,
        "critic.optim.lr": settings.verl_critic_learning_rate,
        "critic.ppo_mini_batch_size": batches.mini,
        "critic.ppo_max_token_len_per_gpu": settings.verl_max_tokens_per_gpu,
    }


def _hydra(value: Any) -> str:
    """A value in hydra's grammar: a text that is more than a plain word is quoted."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, list):
        return f"[{','.join(map(_hydra, value))}]"
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    # A backslash is one unless it stands before a quote or ends the text; `${` would be an interpolation.
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return "'" + escaped.replace("${", "\\${") + "'"


def local_or_hub(model_path: str) -> str:
    folder = Path(model_path).expanduser()
    return str(folder.absolute()) if folder.is_dir() else model_path


def run_of(settings: Settings, job: TrainingJob) -> str:
    """Names a training by what decides its weights: the content of model and questions, and the arguments.

    Paths are not among them: a workspace may be moved.
    """
    folder = Path(job.model_path).expanduser()
    weights: Any = job.model_path
    if folder.is_dir():
        weights = {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.is_file() and file.name != SEAL}
    values = settings.model_dump(mode="json", include=set(BINDING))
    return digest(weights, [sha256(file) for file in job.training_files], values, job.seed)


def training_env(settings: Settings, job: TrainingJob) -> dict[str, str]:
    """What verl's processes see beyond the run's environment."""
    env = {
        "VERL_FILE_LOGGER_PATH": str(job.log_file.with_suffix(".progress.jsonl")),
        "HF_DATASETS_CACHE": str(Places.of(job).work / "datasets"),
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if settings.physical_grpo_gpu:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, settings.physical_grpo_gpu))
    if Path(job.model_path).expanduser().is_dir():
        env["HF_HUB_OFFLINE"] = "1"
    return env
