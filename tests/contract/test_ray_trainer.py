"""Training on Ray: real Ray Train on simulated nodes, a node killed in mid-training, accelerate's weights beside."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ray_nodes import Nodes, ray_nodes
from safetensors.torch import load_file
from tiny_model import build_tiny_model
from training_jobs import a_job, settings

from prosetting.config import Settings
from prosetting.errors import TrainingError
from prosetting.trainers.base import TrainingResult
from prosetting.trainers.ray_trainer import RayTrainer
from prosetting.trainers.trl_trainer import TrlTrainer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
# 240 steps of two processes, a checkpoint every 60.
LONG = {
    "dpo_batch_questions": 1,
    "trl_gradient_accumulation": 1,
    "trl_num_epochs": 12.0,
    "trl_num_processes": 2,
    "trl_learning_rate": 1e-3,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def by_accelerate(model: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return TrlTrainer(settings(**LONG)).train(a_job(tmp_path_factory.mktemp("accelerate"), model))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with ray_nodes(4) as started:
        yield started


def on_ray(nodes: Nodes, folder: Path, **changes: Any) -> Settings:
    ray = {
        "trl_launcher": "ray",
        "ray_cluster_address": nodes.address,
        "ray_trainer_gpus": 0,
        "workspace_dir": folder / "run",
        "ray_node_timeout": 180.0,
    }
    return settings(**LONG | ray | changes)


def largest_difference(one: TrainingResult, other: TrainingResult) -> float:
    mine, others = (load_file(result.model_dir / "model.safetensors") for result in (one, other))
    assert mine.keys() == others.keys()
    return max(float(torch.max(torch.abs(mine[name] - others[name]))) for name in mine)


def test_a_node_lost_in_mid_training_changes_no_weight(
    nodes: Nodes, model: Path, by_accelerate: TrainingResult, tmp_path: Path
) -> None:
    given = on_ray(nodes, tmp_path)
    RayTrainer.check(given)
    heard: list[int] = []

    def lose_a_node(step: int, total: int, loss: float | None) -> None:
        if step >= total // 2 and not any(seen >= total // 2 for seen in heard):
            nodes.remove_one_that_runs("RayTrainWorker")
        heard.append(step)

    job = a_job(tmp_path, model)
    result = RayTrainer(given, on_progress=lose_a_node).train(job)
    assert result.steps == by_accelerate.steps
    resumed_at = next(after for before, after in itertools.pairwise(heard) if after < before)
    assert resumed_at > result.steps // 4, "it went on from a checkpoint"
    assert largest_difference(result, by_accelerate) < 1e-6
    assert sorted(path.name for path in result.model_dir.iterdir()) == sorted(
        path.name for path in by_accelerate.model_dir.iterdir()
    )
    assert not job.output_dir.with_name(f"{job.output_dir.name}.work").exists()
    nodes.until_nothing_runs()


def test_an_error_of_the_training_itself_is_told_and_not_tried_again(nodes: Nodes, model: Path, tmp_path: Path) -> None:
    job = a_job(tmp_path, model)
    with pytest.raises(TrainingError, match="not finite") as caught:
        RayTrainer(on_ray(nodes, tmp_path, trl_learning_rate=1e30, trl_lr_scheduler="constant")).train(job)
    assert "TRL_LEARNING_RATE" in caught.value.next_step
    nodes.until_nothing_runs()


def test_asked_to_stop_it_saves_a_checkpoint_and_goes_on_from_it(
    nodes: Nodes, model: Path, by_accelerate: TrainingResult, tmp_path: Path
) -> None:
    def stop_at_half(step: int, total: int, loss: float | None) -> None:
        if step >= total // 2:
            raise KeyboardInterrupt

    job, given, heard = a_job(tmp_path, model), on_ray(nodes, tmp_path), list[int]()
    with pytest.raises(KeyboardInterrupt):
        RayTrainer(given, on_progress=stop_at_half, stop_grace_s=120).train(job)
    nodes.until_nothing_runs()
    result = RayTrainer(given, on_progress=lambda step, total, loss: heard.append(step)).train(job)
    assert heard[0] > result.steps // 2, "it went on from where it was stopped"
    assert largest_difference(result, by_accelerate) < 1e-6


def test_without_room_for_all_processes_the_deadline_is_ours(nodes: Nodes, model: Path, tmp_path: Path) -> None:
    impossible = on_ray(nodes, tmp_path, ray_trainer_cpus=64, ray_node_timeout=5.0)
    with pytest.raises(TrainingError, match="RAY_NODE_TIMEOUT") as caught:
        RayTrainer(impossible).train(a_job(tmp_path, model))
    assert "add nodes" in caught.value.next_step
    nodes.until_nothing_runs()


def test_a_run_that_is_killed_leaves_nothing_on_the_cluster_and_goes_on(
    nodes: Nodes, model: Path, by_accelerate: TrainingResult, tmp_path: Path
) -> None:
    job, given = a_job(tmp_path, model), on_ray(nodes, tmp_path)
    code = f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from training_jobs import a_job
        from prosetting.config import Settings
        from prosetting.trainers.ray_trainer import RayTrainer
        job = a_job(Path({str(tmp_path)!r}), {str(model)!r}, dataset_dirs={[str(each) for each in job.dataset_dirs]!r})
        job.dataset_dirs[:] = map(Path, job.dataset_dirs)
        say = lambda step, total, loss: print(step, total, flush=True)
        RayTrainer(Settings.model_validate_json({given.model_dump_json()!r}), on_progress=say).train(job)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for line in run.stdout:
            step, total = map(int, line.split())
            if step >= total // 2:
                break
        assert nodes.actors()
        run.kill()
    nodes.until_nothing_runs()
    heard: list[int] = []
    result = RayTrainer(given, on_progress=lambda step, total, loss: heard.append(step)).train(job)
    assert heard[0] > result.steps // 4, "it went on from a checkpoint"
    assert largest_difference(result, by_accelerate) < 1e-6
    nodes.until_nothing_runs()
