"""verl's own environment, looked at before anything is spent: is it there, of the right version, and does it take the
settings."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from prosetting.config import Settings
from prosetting.core.children import without_keys
from prosetting.core.machine import this_machine
from prosetting.core.text import printable
from prosetting.errors import ConfigError, TrainingError
from prosetting.trainers.base import TrainingJob
from prosetting.trainers.verl_job import LAUNCHER, batches_of, gpu_count, overrides, own_overrides

VERL_VERSION = "0.9.1"
NEEDED = ("torch", "transformers", "tensordict", "ray", "TransferQueue", "pyzmq", "msgspec", "cachetools", "fastapi")
ENGINES = ("vllm", "sglang")
"""Rollout engines that are packages of the same name."""
LEAST_TRANSFORMERS, TOO_NEW_TRANSFORMERS, TOO_NEW_TRL = (5, 5, 3), (5, 11), (1, 13)
CHECK_DEADLINE_S = 300
_BUILD_IT = "make verl-env, then set VERL_PYTHON=.venv-verl/bin/python (docs/verl.md)"


def check_verl(settings: Settings) -> None:
    """Raises ConfigError with the first thing that would keep verl from training. Takes some ten seconds."""
    python = verl_python(settings)
    _check_devices(settings)
    _check_chat_template(settings.solver_model_path)
    found = _ask(python, packages(settings), _trial_overrides(settings))
    check_packages(settings, python, found["packages"])
    if found["problem"]:
        raise ConfigError(
            f"verl refuses its configuration: {found['problem']}",
            next_step="mend VERL_OVERRIDES" if own_overrides(settings) else "see docs/verl.md",
        )


def verl_python(settings: Settings) -> Path:
    """The interpreter of verl's environment. Raises ConfigError where none is named or there is none."""
    if settings.verl_python is None:
        raise ConfigError(
            f"TRAINING_FRAMEWORK={settings.training_framework} but VERL_PYTHON is not set: verl lives in an environment"
            " of its own",
            next_step=_BUILD_IT,
        )
    # Not resolved: the link in an environment's bin folder is what makes it that environment.
    python = settings.verl_python.expanduser().absolute()
    if not (python.is_file() and os.access(python, os.X_OK)):
        raise ConfigError(f"VERL_PYTHON={python}: there is no such program", next_step=_BUILD_IT)
    return python


def resolved_configuration(settings: Settings, arguments: list[str]) -> dict[str, Any]:
    """verl's whole configuration with these arguments, composed and validated by verl. Raises ConfigError."""
    found = _ask(verl_python(settings), (), arguments)
    if found["problem"]:
        raise ConfigError(f"verl refuses its configuration: {found['problem']}", next_step="mend VERL_OVERRIDES")
    return dict(found["resolved"])


def packages(settings: Settings) -> tuple[str, ...]:
    """What is looked for in verl's environment."""
    engine = settings.verl_rollout_engine
    return ("verl", "trl", *NEEDED, *((engine,) if engine in ENGINES else ()), *_for_the_critic(settings))


def check_packages(settings: Settings, python: Path, versions: dict[str, str | None]) -> None:
    """Raises ConfigError for what is missing or of a version that does not go with verl VERL_VERSION."""

    def wrong(what: str, next_step: str = _BUILD_IT) -> ConfigError:
        return ConfigError(f"VERL_PYTHON={python}: {what}", next_step=next_step)

    if versions["verl"] is None:
        raise wrong("verl is not installed there")
    if versions["verl"] != VERL_VERSION:
        raise wrong(f"verl {versions['verl']} is installed there, and {VERL_VERSION} is what this version knows")
    engine = settings.verl_rollout_engine
    if missing := [name for name in NEEDED if versions[name] is None]:
        raise wrong(f"verl's environment lacks {', '.join(missing)}")
    if engine in ENGINES and versions[engine] is None:
        raise wrong(
            f"VERL_ROLLOUT_ENGINE={engine} is not installed there",
            f"{python} -m pip install 'verl[{engine}]=={VERL_VERSION}', or name another engine",
        )
    if missing := [name for name in _for_the_critic(settings) if versions[name] is None]:
        raise wrong(
            f"{missing[0]} is not installed there, without which verl {VERL_VERSION} cannot load the critic of PPO",
            f"{python} -m pip install {missing[0]}, or set TRAINING_FRAMEWORK=VERL_GRPO, which has no critic",
        )
    if not LEAST_TRANSFORMERS <= _numbers(versions["transformers"]) < TOO_NEW_TRANSFORMERS:
        raise wrong(f"transformers {versions['transformers']} is installed there; verl needs >=5.5.3,<5.11")
    if versions["trl"] and _numbers(versions["trl"]) >= TOO_NEW_TRL:
        raise wrong(
            f"trl {versions['trl']} is installed there, with which verl cannot build a model",
            f"{python} -m pip uninstall trl",
        )


def _for_the_critic(settings: Settings) -> tuple[str, ...]:
    """verl loads a critic with FlashAttention 2 and nothing else; a platform of the user's own may do otherwise."""
    on_a_plug_in = bool(os.environ.get("VERL_PLATFORM"))
    return ("flash-attn",) if settings.training_framework == "VERL_PPO" and not on_a_plug_in else ()


def _check_devices(settings: Settings) -> None:
    gpus, spread = settings.physical_grpo_gpu, settings.verl_tensor_parallel
    # A plug-in platform of the user's own (docs/verl.md) says itself what it computes on.
    if not gpus and not os.environ.get("VERL_PLATFORM"):
        raise ConfigError(
            f"TRAINING_FRAMEWORK={settings.training_framework} trains on GPUs, and there is none to train on",
            next_step="set PHYSICAL_GRPO_GPU to GPUs that nvidia-smi lists, or TRAINING_FRAMEWORK=TRL_DPO, which also"
            " trains on a CPU",
        )
    if gpu_count(settings) % spread:
        raise ConfigError(
            f"VERL_TENSOR_PARALLEL={spread} does not divide the {gpu_count(settings)} GPUs of PHYSICAL_GRPO_GPU",
            next_step="set it to a divisor, such as 1",
        )


def _check_chat_template(model: str) -> None:
    """verl renders every prompt with the model's chat template. A hub name is not looked at."""
    folder = Path(model).expanduser()
    if not folder.is_dir() or (folder / "chat_template.jinja").is_file():
        return
    try:
        known = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if not known.get("chat_template"):
        raise ConfigError(
            f"{folder} has no chat template, and verl needs one",
            next_step="add chat_template.jinja to the folder, or set TRAINING_FRAMEWORK=TRL_DPO",
        )


def _trial_overrides(settings: Settings) -> list[str]:
    """The command line of a training to come, with files that are not there yet: verl composes it all the same."""
    nowhere = settings.workspace_dir.expanduser().absolute() / "training_data" / "solver_r1.parquet"
    job = TrainingJob(
        round=1,
        model_path=settings.solver_model_path,
        dataset_dirs=(),
        output_dir=nowhere.with_name("model"),
        log_file=nowhere.with_name("verl_trainer.log"),
        seed=settings.seed,
        training_files=[nowhere],
    )
    try:
        batches = batches_of(settings, settings.verl_batch_questions)
    except TrainingError as error:
        raise ConfigError(
            f"VERL_BATCH_QUESTIONS={settings.verl_batch_questions}: {error.what}",
            next_step="raise it, or set fewer GPUs in PHYSICAL_GRPO_GPU",
        ) from None
    return overrides(settings, job, batches, cpu_count=this_machine().cpu_count, ray_dir="/tmp/ray")


def _ask(python: Path, names: tuple[str, ...], arguments: list[str]) -> dict[str, Any]:
    """What `worker_verl.py check` says. Raises ConfigError where the program does not run as a Python."""
    said = ""
    try:
        done = subprocess.run(
            [str(python), str(LAUNCHER), "check"],
            input=json.dumps({"packages": names, "overrides": arguments}),
            capture_output=True,
            text=True,
            timeout=CHECK_DEADLINE_S,
            check=False,
            env=without_keys(),
        )
        said = (done.stderr.strip().splitlines() or [""])[-1]
        return dict(json.loads(done.stdout.splitlines()[-1]))
    except (OSError, ValueError, IndexError, TypeError, subprocess.TimeoutExpired) as error:
        raise ConfigError(
            f"VERL_PYTHON={python} does not run as a Python interpreter: {printable(said or str(error))[:300]}",
            next_step=_BUILD_IT,
        ) from None


def _numbers(version: str | None) -> tuple[int, ...]:
    """The leading numbers of a version: 5.10.4 → (5, 10, 4)."""
    parts = []
    for part in (version or "0").split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)
