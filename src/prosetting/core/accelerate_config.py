"""What a configuration file of accelerate orders, read without torch: ACCELERATE_CONFIG_FILE."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosetting.errors import ConfigError

KINDS = ("NO", "MULTI_GPU", "FSDP", "DEEPSPEED")
"""accelerate's distributed types that train here. MULTI_CPU starts one process unless mpirun starts several."""
PRECISIONS = ("no", "fp16", "bf16")
WAY_OUT = "mend the file (accelerate config makes one), or leave ACCELERATE_CONFIG_FILE empty"


@dataclass(frozen=True, slots=True)
class AccelerateConfig:
    """The facts that decide how many processes train, where, and how they share the model."""

    file: Path
    kind: str
    processes: int
    machines: int
    mixed_precision: str
    use_cpu: bool
    fsdp_version: int
    loads_once: bool
    """Whether only the first process reads the weights: accelerate's default."""


def read_accelerate_config(file: Path) -> AccelerateConfig:
    """Raises ConfigError for a file that is not there, is no configuration, or would run as something else."""
    values = _values(file)
    kind = str(values.get("distributed_type", "NO"))
    if kind not in KINDS:
        raise ConfigError(
            f"{file}: distributed_type {kind} is not supported",
            next_step=f"use one of {', '.join(KINDS)}; several processes on a CPU are MULTI_GPU with use_cpu: true",
        )
    try:
        processes, machines = int(values["num_processes"]), int(values.get("num_machines", 1))
        fsdp = values.get("fsdp_config") or {}
        version, loads_once = int(fsdp.get("fsdp_version", 1)), fsdp.get("fsdp_cpu_ram_efficient_loading", True)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ConfigError(
            f"{file}: num_processes, num_machines and fsdp_version must be whole numbers", next_step=WAY_OUT
        ) from None
    precision = values.get("mixed_precision", "no") or "no"  # an unquoted `no` is false in YAML
    if precision not in PRECISIONS:
        raise ConfigError(
            f"{file}: mixed_precision {precision} is not supported", next_step=f"use one of {', '.join(PRECISIONS)}"
        )
    return AccelerateConfig(
        file=file,
        kind=kind,
        processes=processes,
        machines=machines,
        mixed_precision=str(precision),
        use_cpu=bool(values.get("use_cpu", False)),
        fsdp_version=version,
        loads_once=str(loads_once).lower() == "true",
    )


def _values(file: Path) -> dict[str, Any]:
    import yaml  # comes with accelerate; JSON is YAML too

    try:
        values = yaml.safe_load(file.expanduser().read_text(encoding="utf-8"))
    except OSError:
        raise ConfigError(f"ACCELERATE_CONFIG_FILE: there is no file at {file}", next_step=WAY_OUT) from None
    except (ValueError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())[:200]
        raise ConfigError(f"ACCELERATE_CONFIG_FILE: {file} cannot be read: {problem}", next_step=WAY_OUT) from None
    if not isinstance(values, dict):
        raise ConfigError(f"ACCELERATE_CONFIG_FILE: {file} holds no settings of accelerate", next_step=WAY_OUT)
    return values
