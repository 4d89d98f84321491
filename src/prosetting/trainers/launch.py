"""How `accelerate launch` starts a training: one process, DDP, FSDP2, or as a file of the user's own says.

accelerate turns some orders into others without a word: FSDP on a CPU becomes DDP, several processes of type NO
become one. So what was ordered is checked here before anything is spent, and in the worker against what came of it.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prosetting.config import Settings
from prosetting.core.accelerate_config import AccelerateConfig, read_accelerate_config
from prosetting.errors import ConfigError
from prosetting.trainers.losses import OF_A_BATCH, check_losses, loss_of

LAUNCHER = "accelerate.commands.launch"
DPO_WORKER = "prosetting.trainers.worker_dpo"
QUIET_ENV = {"TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
"""What a worker's libraries read when they are imported."""
ALL_LINEAR = "all-linear"
"""peft's word for all linear layers but the output."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a training must run as; `kind` is accelerate's distributed type, MULTI_GPU standing for DDP on CPUs too."""

    kind: str
    processes: int
    mixed_precision: str


def order_of(settings: Settings) -> Order:
    """What the settings, or the user's own file, order."""
    if config := _own_config(settings):
        return Order(config.kind, config.processes, config.mixed_precision)
    several = settings.trl_num_processes > 1
    kind = "FSDP" if settings.trl_sharding == "fsdp" else "MULTI_GPU" if several else "NO"
    return Order(kind, settings.trl_num_processes, settings.trl_mixed_precision)


def order_json(settings: Settings) -> dict[str, Any]:
    return asdict(order_of(settings))


def in_words(settings: Settings) -> str:
    """`DDP, 8 processes, bf16`: how a training runs."""
    order = order_of(settings)
    name = {"NO": "one process", "MULTI_GPU": "DDP", "FSDP": "FSDP2", "DEEPSPEED": "DeepSpeed"}[order.kind]
    several = f", {order.processes} processes" if order.processes > 1 else ""
    precision = "float32" if order.mixed_precision == "no" else order.mixed_precision
    adapters = f", LoRA of rank {settings.trl_lora_rank}" if settings.trl_lora_rank else ""
    return f"{name}{several}, {precision}{adapters}, {engine_of(settings)} engine"


def engine_of(settings: Settings) -> str:
    """`grouped`, or `stock` where that is set or where a loss or DeepSpeed leaves no other way."""
    if OF_A_BATCH & set(loss_of(settings).types) or order_of(settings).kind == "DEEPSPEED":
        return "stock"
    return settings.dpo_engine


def may_fork(settings: Settings, model_path: str) -> bool:
    """Whether a training may be a fork of the run's fork server: one process on the CPU. Not where a model is to be
    fetched first: the server's libraries ask no hub."""
    alone = order_of(settings).kind == "NO" and settings.accelerate_config_file is None
    return alone and not settings.physical_grpo_gpu and Path(model_path).expanduser().is_dir()


def config_file(settings: Settings, generated: Path) -> Path:
    """The file for `accelerate launch`: the user's own, or one that is written to `generated`."""
    if settings.accelerate_config_file:
        return settings.accelerate_config_file.expanduser()
    generated.write_text(json.dumps(launch_config(settings), indent=1), encoding="utf-8")
    return generated


def other_machines(settings: Settings, file: Path) -> tuple[int, str] | None:
    """How many machines the user's file names beside this one, and what starts their share of a training."""
    config = _own_config(settings)
    if config is None or config.machines == 1:
        return None
    return config.machines - 1, f"accelerate launch --config_file {file} --machine_rank N"


def launch_config(settings: Settings) -> dict[str, Any]:
    """accelerate's configuration, in a file of its own so that one of the user's has no say.

    `MULTI_GPU` is what makes accelerate start several processes, on CPUs too: `--cpu --num_processes 2`
    starts one and says nothing. On CPUs the worker's `use_cpu` makes them a gloo group.
    """
    order = order_of(settings)
    config = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": order.kind,
        "num_machines": 1,
        "num_processes": order.processes,
        "machine_rank": 0,
        "gpu_ids": "all",
        "main_process_port": 0,
        "mixed_precision": order.mixed_precision,
        "use_cpu": not settings.physical_grpo_gpu,
    }
    return config | ({"fsdp_config": _fsdp2(settings)} if order.kind == "FSDP" else {})


def _fsdp2(settings: Settings) -> dict[str, Any]:
    return {
        "fsdp_version": 2,
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_reshard_after_forward": True,
        # Each process writes its own share of a checkpoint; the model itself is gathered once, at the end.
        "fsdp_state_dict_type": "SHARDED_STATE_DICT",
        "fsdp_offload_params": False,
        # Only the first process reads the weights. trl's own reference model would stay empty on all others.
        "fsdp_cpu_ram_efficient_loading": engine_of(settings) == "grouped",
        "fsdp_sync_module_states": True,
    }


def check_training(settings: Settings) -> None:
    """Raises ConfigError for settings of training that do not go together, or would run as something else."""
    check_losses(settings)
    if config := _own_config(settings):
        _check_own(settings, config)
    for found, next_step in _contradictions(settings):
        raise ConfigError(found, next_step=next_step)
    if settings.trl_lora_rank:
        _check_lora(settings)


def _own_config(settings: Settings) -> AccelerateConfig | None:
    return read_accelerate_config(settings.accelerate_config_file) if settings.accelerate_config_file else None


def _contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    """What was found and what to do, for each pair of settings that do not agree."""
    order, on_cpu = order_of(settings), not settings.physical_grpo_gpu
    if on_cpu and order.mixed_precision == "fp16":
        yield "TRL_MIXED_PRECISION=fp16 but training is on the CPU, which has no fp16", "set TRL_MIXED_PRECISION=no"
    if settings.trl_sharding == "fsdp" and order.processes == 1:
        yield (
            "TRL_SHARDING=fsdp but TRL_NUM_PROCESSES=1: one process has nobody to share the model with",
            "set TRL_SHARDING=none, or TRL_NUM_PROCESSES to the number of your GPUs",
        )
    if order.kind == "FSDP" and on_cpu:
        yield (
            "FSDP is ordered but training is on the CPU, where accelerate would run DDP without a word",
            "set TRL_SHARDING=none, or PHYSICAL_GRPO_GPU to the GPUs that train",
        )
    if not settings.trl_lora_rank and (settings.trl_lora_alpha is not None):
        yield "TRL_LORA_ALPHA is set but TRL_LORA_RANK is 0: all weights are trained", "set TRL_LORA_RANK=16"
    if settings.trl_lora_rank and order.kind == "DEEPSPEED":
        yield (
            "TRL_LORA_RANK with DeepSpeed: adapters that DeepSpeed holds are not merged here",
            "set TRL_LORA_RANK=0, or train with TRL_SHARDING=fsdp",
        )
    if settings.trl_lora_rank and order.kind == "FSDP" and engine_of(settings) == "stock":
        yield (
            "TRL_LORA_RANK with FSDP and stock TRL (DPO_ENGINE, or a loss that compares pairs): stock TRL computes"
            " the reference with the whole model in each process",
            "set DPO_ENGINE=grouped, which shares it, or TRL_SHARDING=none",
        )


def _check_own(settings: Settings, config: AccelerateConfig) -> None:
    """The user's file against the settings and against what accelerate makes of it."""
    name = f"ACCELERATE_CONFIG_FILE={config.file}"
    if config.processes != settings.trl_num_processes:
        raise ConfigError(
            f"{name} names {config.processes} processes but TRL_NUM_PROCESSES={settings.trl_num_processes}",
            next_step=f"set TRL_NUM_PROCESSES={config.processes}, or leave it out",
        )
    if config.mixed_precision != settings.trl_mixed_precision:
        raise ConfigError(
            f"{name} names mixed_precision {config.mixed_precision}"
            f" but TRL_MIXED_PRECISION={settings.trl_mixed_precision}",
            next_step=f"set TRL_MIXED_PRECISION={config.mixed_precision}, or leave it out",
        )
    if settings.trl_sharding != "none" and config.kind != "FSDP":
        raise ConfigError(
            f"TRL_SHARDING={settings.trl_sharding} but {name} orders {config.kind}", next_step="leave TRL_SHARDING out"
        )
    if config.kind == "NO" and config.processes > 1:
        raise ConfigError(
            f"{name} names {config.processes} processes of distributed_type NO: accelerate would start one",
            next_step="put distributed_type: MULTI_GPU into it",
        )
    if config.kind == "FSDP" and (config.use_cpu or config.fsdp_version != 2):
        found = "use_cpu: true, which runs as DDP" if config.use_cpu else f"fsdp_version {config.fsdp_version}"
        raise ConfigError(
            f"{name} orders FSDP with {found}", next_step="put use_cpu: false and, in fsdp_config, fsdp_version: 2"
        )
    if config.kind == "FSDP" and config.loads_once and engine_of(settings) == "stock":
        raise ConfigError(
            f"{name} has one process load the weights: stock TRL's reference model would be empty on all others",
            next_step="put fsdp_cpu_ram_efficient_loading: false into its fsdp_config",
        )
    if config.kind == "DEEPSPEED" and importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(f"{name} orders DeepSpeed, which is not installed", next_step="pip install deepspeed")


def _check_lora(settings: Settings) -> None:
    """peft must be there, and the model must have the layers that are named (as far as it is a folder here)."""
    if importlib.util.find_spec("peft") is None:
        raise ConfigError("TRL_LORA_RANK needs the package peft", next_step="pip install 'prosetting[train]'")
    targets = settings.trl_lora_targets
    if not targets or (ALL_LINEAR in targets and len(targets) > 1):
        raise ConfigError(
            f"TRL_LORA_TARGETS={','.join(targets)} names {'other layers beside ' + ALL_LINEAR if targets else 'none'}",
            next_step=f"set TRL_LORA_TARGETS={ALL_LINEAR}, or names of layers such as q_proj,v_proj",
        )
    layers = _layers(Path(settings.solver_model_path).expanduser())
    for target in targets if layers else ():
        if target != ALL_LINEAR and target not in layers:
            raise ConfigError(
                f"TRL_LORA_TARGETS names {target}, which {settings.solver_model_path} has not",
                next_step=f"choose from {', '.join(sorted(layers))}",
            )


def _layers(model: Path) -> set[str]:
    """The names of the layers with matrices in a model folder, `q_proj` for one, from the headers of its weights."""
    found = set()
    for file in model.glob("*.safetensors"):
        try:
            with file.open("rb") as stream:
                header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
            matrices = [name.split(".") for name, entry in header.items() if len(entry.get("shape", ())) == 2]
        except (OSError, ValueError, AttributeError):
            continue  # whoever loads it says what is wrong with it
        found |= {parts[-2] for parts in matrices if len(parts) > 1 and parts[-1] == "weight"}
    return found - {"embed_tokens", "lm_head"}
