"""What is refused of Ray before anything is spent; none of it needs Ray."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prosetting.config import Settings
from prosetting.core.machine import Machine, fit_to_machine
from prosetting.core.ray_cluster import (
    Demand,
    Node,
    Share,
    check_answers,
    check_cluster,
    check_nodes,
    check_room,
    demands_of,
    room_for,
    solver_demand,
)
from prosetting.errors import ConfigError
from prosetting.managers.run import start_run
from prosetting.settings_sources import load_settings
from prosetting.trainers.ray_trainer import RayTrainer

TWO_NODES = [Node("10.0.0.1", gpus=4, cpus=8), Node("10.0.0.2", gpus=1, cpus=8)]


def settings(**changes: Any) -> Settings:
    return Settings(solver_model_path="org/model", solver_engine="ray", **changes)


def test_no_share_is_split_between_nodes() -> None:
    assert room_for(Share(gpus=1, cpus=1), TWO_NODES) == 5
    assert room_for(Share(gpus=2, cpus=1), TWO_NODES) == 2
    assert room_for(Share(gpus=1, cpus=4), TWO_NODES) == 3
    assert room_for(Share(gpus=0, cpus=8), TWO_NODES) == 2
    assert room_for(Share(gpus=1, cpus=1), []) == 0


def test_more_than_the_cluster_has_is_refused_with_what_to_set() -> None:
    with pytest.raises(ConfigError) as caught:
        check_room(TWO_NODES, solver_demand(settings(ray_solver_replicas=6)), settings())
    assert "6 Solver replicas of 1 GPU and 1 CPU each" in caught.value.what
    assert "2 nodes, 5 GPUs, 16 CPUs" in caught.value.what
    assert "RAY_SOLVER_REPLICAS=5" in caught.value.next_step
    assert "RAY_AUTOSCALING=true" in caught.value.next_step


def test_without_any_gpu_the_cpu_is_offered() -> None:
    nodes = [Node("10.0.0.1", gpus=0, cpus=8)]
    with pytest.raises(ConfigError) as caught:
        check_room(nodes, Demand("training processes", "TRL_NUM_PROCESSES", 2, Share(1, 1)), settings())
    assert "RAY_TRAINER_GPUS=0" in caught.value.next_step


def test_what_fits_or_comes_on_demand_passes() -> None:
    check_room(TWO_NODES, solver_demand(settings(ray_solver_replicas=5)), settings())
    check_room(TWO_NODES, solver_demand(settings()), settings())
    check_room([], solver_demand(settings(ray_solver_replicas=64)), settings(ray_autoscaling=True))


def test_a_node_without_our_version_or_without_the_workspace_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"10\.0\.0\.3 has no ProSetting") as caught:
        check_nodes([*TWO_NODES, Node("10.0.0.3", 1, 1, version="")])
    assert "pip install 'prosetting[train,ray]'" in caught.value.next_step
    with pytest.raises(ConfigError, match=r"10\.0\.0\.4 does not see the files of WORKSPACE_DIR and LOG_DIR"):
        check_nodes([*TWO_NODES, Node("10.0.0.4", 1, 1, unseen=("WORKSPACE_DIR", "LOG_DIR"))])


def test_an_address_that_does_not_answer_is_refused_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"no Ray cluster answers at RAY_CLUSTER_ADDRESS={address}") as caught:
            check_answers(address)
    assert "ray start --head" in caught.value.next_step


@pytest.mark.parametrize("address", ["ray://10.0.0.1:10001", "10.0.0.1", "auto", ":6379"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="not of the form host:port"):
        check_answers(address)


@pytest.mark.parametrize("asked", [{"solver_engine": "ray"}, {"trl_launcher": "ray"}])
def test_without_ray_a_run_that_asks_for_it_is_refused_and_leaves_nothing(
    asked: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    values = Settings(solver_model_path="org/model", workspace_dir=tmp_path / "run", **asked)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Ray is not installed") as caught:
        start_run(values, (), "auto")
    assert caught.value.next_step == "pip install 'prosetting[ray]'"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "given"),
    [("TRL_SHARDING", {"trl_sharding": "fsdp"}), ("ACCELERATE_CONFIG_FILE", {"accelerate_config_file": "a.yaml"})],
)
def test_what_only_accelerate_can_order_is_refused_with_ray(name: str, given: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("distributed_type: MULTI_GPU\nnum_processes: 8\nmixed_precision: bf16\n")
    given = {key: str(file) if key == "accelerate_config_file" else value for key, value in given.items()}
    asked = Settings.model_validate({"solver_model_path": "org/model", "trl_launcher": "ray", **given})
    with pytest.raises(ConfigError, match=f"{name}.* with TRL_LAUNCHER=ray"):
        RayTrainer.check(asked)


def test_more_gpus_than_this_machine_has_is_refused_before_a_cluster_is_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("prosetting.core.ray_cluster.this_machine", lambda: Machine((), 2))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(ConfigError, match="has room for 0") as caught:
        check_cluster(settings(), solver_demand(settings()))
    assert "RAY_SOLVER_GPUS=0" in caught.value.next_step


def test_only_what_is_asked_of_ray_is_demanded() -> None:
    assert demands_of(Settings(solver_model_path="org/model")) == []
    both = settings(trl_launcher="ray", trl_num_processes=3)
    assert [(demand.setting, demand.count) for demand in demands_of(both)] == [
        ("RAY_SOLVER_REPLICAS", None),
        ("TRL_NUM_PROCESSES", 3),
    ]
    assert demands_of(Settings(solver_model_path="org/model", solver_base_urls=("http://host/v1",))) == []


def test_a_cluster_is_not_fitted_to_this_machine() -> None:
    flags = {
        "SOLVER_MODEL_PATH": "org/model",
        "SOLVER_ENGINE": "ray",
        "TRL_LAUNCHER": "ray",
        "RAY_CLUSTER_ADDRESS": "10.0.0.1:6379",
        "TRL_NUM_PROCESSES": "16",
    }
    fitted, notices = fit_to_machine(load_settings(flags=flags, environ={}, env_file=None), Machine((), 2))
    assert (fitted.trl_num_processes, fitted.trl_mixed_precision, notices) == (16, "bf16", [])
    assert len(fitted.physical_grpo_gpu) == 16
    on_cpus = load_settings(flags=flags | {"RAY_TRAINER_GPUS": "0"}, environ={}, env_file=None)
    fitted, _ = fit_to_machine(on_cpus, Machine((), 2))
    assert (fitted.trl_num_processes, fitted.trl_mixed_precision, fitted.physical_grpo_gpu) == (16, "no", ())


def test_what_needs_no_ray_imports_none() -> None:
    code = "import prosetting.managers.run, prosetting.cli.main, sys; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
