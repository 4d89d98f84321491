"""How a training is started, and what is refused before anything is spent: accelerate's own reader of its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from prosetting.config import Settings
from prosetting.core.machine import Machine, fit_to_machine
from prosetting.errors import ConfigError
from prosetting.settings_sources import load_settings
from prosetting.trainers.launch import (
    check_training,
    config_file,
    engine_of,
    in_words,
    launch_config,
    may_fork,
    order_of,
    other_machines,
)

EIGHT = tuple(range(8))
LAYERS = ("q_proj", "down_proj")


def settings(**changes: Any) -> Settings:
    """For 8 GPUs; the model is a hub name."""
    return Settings(**{"solver_model_path": "org/model", "physical_grpo_gpu": EIGHT, "trl_num_processes": 8} | changes)


def own_file(tmp_path: Path, **values: Any) -> Path:
    file = tmp_path / "accelerate.yaml"
    given = {"distributed_type": "MULTI_GPU", "num_processes": 8, "mixed_precision": "bf16", "use_cpu": False}
    file.write_text(yaml.safe_dump(given | values))
    return file


def model_folder(tmp_path: Path) -> str:
    """Only a header: what layers a model has is read without its weights."""
    entries = {f"model.layers.0.{name}.weight": {"dtype": "F32", "shape": [2, 2]} for name in (*LAYERS, "embed_tokens")}
    header = json.dumps(entries | {"model.norm.weight": {"dtype": "F32", "shape": [2]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"trl_num_processes": 1}, "NO", "one process, bf16, grouped engine"),
        ({}, "MULTI_GPU", "DDP, 8 processes, bf16, grouped engine"),
        ({"trl_sharding": "fsdp"}, "FSDP", "FSDP2, 8 processes, bf16, grouped engine"),
        ({"trl_lora_rank": 16}, "MULTI_GPU", "DDP, 8 processes, bf16, LoRA of rank 16, grouped engine"),
        ({"trl_loss_type": ("aot",)}, "MULTI_GPU", "DDP, 8 processes, bf16, stock engine"),
    ],
)
def test_accelerate_reads_the_generated_file_as_what_was_ordered(
    tmp_path: Path, changes: dict[str, Any], kind: str, words: str
) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    wanted = settings(**changes)
    check_training(wanted)
    read = load_config_from_file(str(config_file(wanted, tmp_path / "generated.json")))
    assert (read.distributed_type.value, read.num_processes, read.mixed_precision) == (
        kind,
        wanted.trl_num_processes,
        "bf16",
    )
    assert read.fsdp_config == launch_config(wanted).get("fsdp_config", {})
    assert in_words(wanted) == words


CPU: dict[str, Any] = {"physical_grpo_gpu": (), "trl_mixed_precision": "no", "trl_num_processes": 2}


@pytest.mark.parametrize(
    ("changes", "found", "next_step"),
    [
        (CPU | {"trl_mixed_precision": "fp16"}, "TRL_MIXED_PRECISION=fp16", "TRL_MIXED_PRECISION=no"),
        (CPU | {"trl_sharding": "fsdp"}, "accelerate would run DDP", "TRL_SHARDING=none"),
        ({"trl_sharding": "fsdp", "trl_num_processes": 1}, "TRL_SHARDING=fsdp", "TRL_NUM_PROCESSES"),
        ({"trl_lora_alpha": 8.0}, "TRL_LORA_ALPHA", "TRL_LORA_RANK=16"),
        ({"trl_lora_rank": 8, "trl_sharding": "fsdp", "dpo_engine": "stock"}, "stock TRL", "DPO_ENGINE=grouped"),
        ({"trl_lora_rank": 8, "trl_lora_targets": ()}, "names none", "all-linear"),
        ({"trl_lora_rank": 8, "trl_lora_targets": ("all-linear", "q_proj")}, "beside all-linear", "q_proj"),
    ],
)
def test_settings_that_are_wrong_together_are_refused(changes: dict[str, Any], found: str, next_step: str) -> None:
    with pytest.raises(ConfigError, match=found) as caught:
        check_training(settings(**changes))
    assert next_step in caught.value.next_step


def test_adapters_for_layers_that_the_model_has_not_are_refused(tmp_path: Path) -> None:
    model = model_folder(tmp_path)
    check_training(settings(solver_model_path=model, trl_lora_rank=8, trl_lora_targets=LAYERS))
    with pytest.raises(ConfigError, match="names qproj") as caught:
        check_training(settings(solver_model_path=model, trl_lora_rank=8, trl_lora_targets=("qproj",)))
    assert caught.value.next_step == "choose from down_proj, q_proj"


FSDP2 = {"fsdp_version": 2}


@pytest.mark.parametrize(
    ("values", "changes", "found"),
    [
        ({"num_processes": 16}, {}, "names 16 processes but TRL_NUM_PROCESSES=8"),
        ({"num_processes": "many"}, {}, "must be whole numbers"),
        ({"mixed_precision": "fp16"}, {}, "TRL_MIXED_PRECISION=bf16"),
        ({"mixed_precision": "fp8"}, {}, "fp8 is not supported"),
        ({"distributed_type": "NO"}, {}, "accelerate would start one"),
        ({"distributed_type": "MULTI_CPU"}, {}, "MULTI_CPU is not supported"),
        ({"distributed_type": "FSDP", "fsdp_config": FSDP2, "use_cpu": True}, {}, "runs as DDP"),
        ({"distributed_type": "FSDP"}, {}, "fsdp_version 1"),
        ({"distributed_type": "FSDP", "fsdp_config": FSDP2}, {"physical_grpo_gpu": ()}, "would run DDP"),
        ({"distributed_type": "DEEPSPEED"}, {}, "DeepSpeed, which is not installed"),
        ({}, {"trl_sharding": "fsdp"}, "orders MULTI_GPU"),
        ({"distributed_type": "FSDP", "fsdp_config": FSDP2}, {"dpo_engine": "stock"}, "would be empty"),
    ],
)
def test_an_own_file_that_would_run_as_something_else_is_refused(
    tmp_path: Path, values: dict[str, Any], changes: dict[str, Any], found: str
) -> None:
    with pytest.raises(ConfigError, match=found) as caught:
        check_training(settings(accelerate_config_file=own_file(tmp_path, **values), **changes))
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("content", "found"), [(None, "no file at"), (": :", "cannot be read"), ("[1]", "no settings")]
)
def test_an_own_file_that_cannot_be_read_is_refused(tmp_path: Path, content: str | None, found: str) -> None:
    file = tmp_path / "own.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=found):
        check_training(settings(accelerate_config_file=file))


def test_an_own_file_is_handed_to_accelerate_as_it_is(tmp_path: Path) -> None:
    file = own_file(tmp_path, distributed_type="FSDP", fsdp_config=FSDP2, num_machines=2)
    wanted = settings(accelerate_config_file=file)
    check_training(wanted)
    assert config_file(wanted, tmp_path / "generated.json") == file
    assert order_of(wanted).kind == "FSDP"
    machines = other_machines(wanted, file)
    assert machines == (1, f"accelerate launch --config_file {file} --machine_rank N")


def test_deepspeed_is_trained_by_stock_trl(tmp_path: Path) -> None:
    file = own_file(tmp_path, distributed_type="DEEPSPEED", deepspeed_config={"zero_stage": 2})
    assert engine_of(settings(accelerate_config_file=file)) == "stock"


def test_an_own_file_decides_what_is_not_set_and_may_name_other_machines_gpus(tmp_path: Path) -> None:
    file = own_file(tmp_path, num_processes=16, num_machines=2, mixed_precision="fp16")
    environ = {"SOLVER_MODEL_PATH": "org/model", "ACCELERATE_CONFIG_FILE": str(file)}
    fitted, notices = fit_to_machine(load_settings(flags={}, environ=environ, env_file=None), Machine(EIGHT, 64))
    assert (fitted.trl_num_processes, fitted.trl_mixed_precision) == (16, "fp16")
    assert [notice.split(":")[0] for notice in notices] == ["TRL_NUM_PROCESSES", "TRL_MIXED_PRECISION"]
    check_training(fitted)
    said = load_settings(flags={"TRL_NUM_PROCESSES": "8"}, environ=environ, env_file=None)
    with pytest.raises(ConfigError, match="names 16 processes but TRL_NUM_PROCESSES=8"):
        check_training(fit_to_machine(said, Machine(EIGHT, 64))[0])


@pytest.mark.parametrize(
    ("changes", "forked"),
    [
        ({}, True),
        ({"physical_grpo_gpu": (0,)}, False),
        ({"trl_num_processes": 2}, False),
        ({"accelerate_config_file": "accelerate.yaml"}, False),
    ],
)
def test_a_training_is_forked_only_alone_on_the_cpu(tmp_path: Path, changes: dict[str, Any], forked: bool) -> None:
    own_file(tmp_path, num_processes=1, distributed_type="NO", mixed_precision="no", use_cpu=True)
    changes = {name: tmp_path / value if name.endswith("file") else value for name, value in changes.items()}
    on_cpu = {"physical_grpo_gpu": (), "trl_num_processes": 1, "trl_mixed_precision": "no"}
    assert may_fork(settings(**on_cpu | changes), model_folder(tmp_path)) is forked


def test_a_training_that_may_fetch_a_model_is_not_forked() -> None:
    assert not may_fork(settings(physical_grpo_gpu=(), trl_num_processes=1, trl_mixed_precision="no"), "org/model")
