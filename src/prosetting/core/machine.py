"""What this machine has, and settings made to fit it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from prosetting.config import Settings, env_name
from prosetting.core.accelerate_config import read_accelerate_config
from prosetting.core.gpu_manager import usable_ids
from prosetting.core.nvml import Gpu, read_gpus
from prosetting.errors import ConfigError, GpuError
from prosetting.settings_sources import LoadedSettings


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run can have here. `gpu_problem`: why no GPU is known although there is a driver."""

    gpu_ids: tuple[int, ...]
    cpu_count: int
    gpus: tuple[Gpu, ...] = ()
    gpu_problem: str = ""


def usable_cores() -> int:
    """The CPU cores that this process may use; no driver of a GPU is asked."""
    return (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()) or 1


def this_machine() -> Machine:
    """The GPUs and the CPU cores that this process may use."""
    try:
        gpus = read_gpus()
    except GpuError as error:
        return Machine((), usable_cores(), gpu_problem=error.what)
    ids = usable_ids(gpus, os.environ)
    return Machine(ids, usable_cores(), tuple(gpu for gpu in gpus if gpu.index in ids))


def fit_to_machine(loaded: LoadedSettings, machine: Machine) -> tuple[Settings, list[str]]:
    """Clamp defaults that the machine cannot hold, with a notice each; an explicit one is a ConfigError."""
    changes = _of_a_cluster(loaded.settings)
    notices: list[str] = []

    def change(name: str, value: Any, shown: str) -> None:
        changes[name] = value
        notices.append(f"{env_name(name)}: {shown} (this machine has {_gpus(machine)})")

    for name in ("physical_solver_gpu", "physical_grpo_gpu"):
        if name in changes:
            continue
        wanted: tuple[int, ...] = getattr(loaded.settings, name)
        kept = _gpus_to_keep(name, wanted, loaded, machine)
        if kept != wanted:
            change(name, kept, f"{_listed(wanted)} → {_listed(kept) or 'CPU'}")
    if file := loaded.settings.accelerate_config_file:
        config = read_accelerate_config(file)
        for name, value in (("trl_num_processes", config.processes), ("trl_mixed_precision", config.mixed_precision)):
            if name not in loaded.explicit and value != getattr(loaded.settings, name):
                changes[name] = value
                notices.append(f"{env_name(name)}: {value}, as {file} says")
        return loaded.settings.model_copy(update=changes), notices
    training_gpus = len(changes.get("physical_grpo_gpu", loaded.settings.physical_grpo_gpu))
    processes = loaded.settings.trl_num_processes
    if loaded.settings.trl_launcher == "ray" and loaded.settings.ray_cluster_address:
        pass  # the cluster's nodes are counted when they are looked at
    elif "trl_num_processes" in loaded.explicit:
        _check_processes(processes, training_gpus, machine)
    elif processes > max(training_gpus, 1):
        change("trl_num_processes", max(training_gpus, 1), f"{processes} → {max(training_gpus, 1)}")
    precision = loaded.settings.trl_mixed_precision
    if not training_gpus and precision != "no" and "trl_mixed_precision" not in loaded.explicit:
        change("trl_mixed_precision", "no", f"{precision} → no")
    return loaded.settings.model_copy(update=changes), notices


def _of_a_cluster(settings: Settings) -> dict[str, Any]:
    """The GPU settings that Ray's decide, without regard to this machine."""
    changes: dict[str, Any] = {}
    if settings.solver_engine == "ray" and settings.ray_cluster_address:
        changes["physical_solver_gpu"] = ()
    if settings.trl_launcher == "ray" and (settings.ray_cluster_address or not settings.ray_trainer_gpus):
        changes["physical_grpo_gpu"] = tuple(range(settings.trl_num_processes * settings.ray_trainer_gpus))
    return changes


def _gpus_to_keep(name: str, wanted: tuple[int, ...], loaded: LoadedSettings, machine: Machine) -> tuple[int, ...]:
    """Those of the wanted GPUs that are there, or the first there is."""
    if all(gpu in machine.gpu_ids for gpu in wanted):
        return wanted
    if name in loaded.explicit:
        raise ConfigError(
            f"{env_name(name)}={_listed(wanted)} but this machine has {_gpus(machine)}",
            next_step=f"set {env_name(name)} to GPUs that nvidia-smi lists, or to nothing for the CPU",
        )
    return tuple(gpu for gpu in wanted if gpu in machine.gpu_ids) or machine.gpu_ids[:1]


def _check_processes(processes: int, training_gpus: int, machine: Machine) -> None:
    """One process a GPU; without GPUs, one a core at most."""
    if processes > (training_gpus or machine.cpu_count):
        raise ConfigError(
            f"TRL_NUM_PROCESSES={processes} but there are {training_gpus} GPUs to train on"
            f" and {machine.cpu_count} CPU cores",
            next_step=f"set TRL_NUM_PROCESSES={max(training_gpus, 1)}",
        )


def _listed(ids: Iterable[int]) -> str:
    return ",".join(map(str, ids))


def _gpus(machine: Machine) -> str:
    if machine.gpu_problem:
        return f"no GPU: {machine.gpu_problem}"
    return f"GPUs {_listed(machine.gpu_ids)}" if machine.gpu_ids else "no GPU"
