"""What verl is told: batches that fit, a command line of the settings, and a name of what decides the weights."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosetting.config import Settings
from prosetting.datasets.data_saver import save_verl_rows
from prosetting.datasets.verl_data import verl_row
from prosetting.errors import ConfigError, TrainingError
from prosetting.records import Grade, Question, Verdict, question_id_of
from prosetting.trainers.base import TrainingJob
from prosetting.trainers.verl_job import (
    Batches,
    attempts_of,
    batches_of,
    count_questions,
    overrides,
    own_overrides,
    run_of,
    training_env,
)


def settings(**changes: Any) -> Settings:
    return Settings(**{"training_framework": "VERL_PPO", "physical_grpo_gpu": (0, 1)} | changes)


def a_job(folder: Path, questions: int = 3) -> TrainingJob:
    rows = []
    for number in range(questions):
        question = Question(question_id_of(str(number)), str(number), "1")
        graded = [Grade(1, question.question_id, 0, Verdict.CORRECT, "rules")]
        rows.append(verl_row(question, graded, prompt=str(number), round_=1, index=number))
    save_verl_rows(folder / "d.json", folder / "d.parquet", filter(None, rows))
    return TrainingJob(
        round=3,
        model_path="Qwen/Qwen3-8B",
        dataset_dirs=(),
        output_dir=folder / "merged_solver_r3",
        log_file=folder / "verl_trainer.log",
        seed=45,
        training_files=[folder / "d.parquet"],
    )


def told(settings: Settings, job: TrainingJob) -> dict[str, str]:
    arguments = overrides(settings, job, Batches(128, 32, 2), cpu_count=64, ray_dir="/tmp/ray-x")
    return dict(argument.split("=", 1) for argument in arguments)


@given(
    questions=st.integers(1, 5000),
    most=st.integers(1, 600),
    most_mini=st.integers(1, 200),
    gpus=st.integers(1, 16),
    attempts=st.integers(1, 16),
)
def test_batches_fit_the_gpus_and_leave_out_less_than_a_part_of_each_step(
    questions: int, most: int, most_mini: int, gpus: int, attempts: int
) -> None:
    wanted = settings(
        physical_grpo_gpu=tuple(range(gpus)),
        verl_batch_questions=most,
        verl_mini_batch_questions=most_mini,
        verl_attempts_per_question=attempts,
    )
    least = gpus // math.gcd(gpus, attempts)
    if questions < least:
        with pytest.raises(TrainingError, match="too few to train on"):
            batches_of(wanted, questions)
        return
    found = batches_of(wanted, questions)
    assert found.questions <= max(most, least)
    assert found.mini <= max(most_mini, least)
    assert found.questions % found.mini == 0
    assert found.mini * attempts % gpus == 0
    assert found.steps == questions // found.questions >= 1
    assert questions - found.steps * found.questions < questions  # something is trained on


@pytest.mark.parametrize(
    ("questions", "batches"),
    [(1000, Batches(124, 31, 8)), (150, Batches(75, 25, 2)), (120, Batches(120, 30, 1)), (3, Batches(3, 3, 1))],
)
def test_steps_are_of_equal_size_so_that_few_questions_are_left_out(questions: int, batches: Batches) -> None:
    assert batches_of(settings(physical_grpo_gpu=(0,)), questions) == batches


def test_ppo_has_a_critic_and_grpo_groups_of_attempts(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    ppo = told(settings(), job)
    grpo = told(settings(training_framework="VERL_GRPO", attempts_per_question=6), job)
    assert (ppo["algorithm.adv_estimator"], grpo["algorithm.adv_estimator"]) == ("gae", "grpo")
    assert (ppo["actor_rollout_ref.rollout.n"], grpo["actor_rollout_ref.rollout.n"]) == ("1", "6")
    assert {key for key in ppo if key.startswith("critic.")} - grpo.keys() >= {"critic.model.path", "critic.optim.lr"}
    assert not any(key.startswith("critic.") for key in grpo)
    assert attempts_of(settings(verl_attempts_per_question=3)) == 3


def test_what_the_settings_say_is_on_the_command_line(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    found = told(settings(verl_kl_coef=0, solver_max_new_tokens=77, verl_save_steps=5, solver_temperature=0.8), job)
    expected = {
        "data.train_files": f"[{tmp_path}/d.parquet]",
        "data.train_batch_size": "128",
        "data.max_response_length": "77",
        "actor_rollout_ref.model.path": "Qwen/Qwen3-8B",
        "actor_rollout_ref.actor.ppo_mini_batch_size": "32",
        "actor_rollout_ref.actor.use_kl_loss": "False",
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.rollout.temperature": "0.8",
        "trainer.n_gpus_per_node": "2",
        "trainer.save_freq": "5",
        "trainer.resume_mode": "auto",
        "trainer.logger": "[console,file]",
        "trainer.default_local_dir": f"{tmp_path}/merged_solver_r3.work/verl",
        "+ray_kwargs.ray_init.address": "local",
        "hydra.output_subdir": "null",
    }
    assert {key: found[key] for key in expected} == expected


def test_the_users_own_settings_of_verl_come_last(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    wanted = settings(verl_overrides="data.seed=1 +a.b='[x, y]'")
    arguments = overrides(wanted, job, Batches(1, 1, 1), cpu_count=2, ray_dir="/r")
    assert arguments[-2:] == ["data.seed=1", "+a.b=[x, y]"]
    with pytest.raises(ConfigError, match="VERL_OVERRIDES cannot be read"):
        own_overrides(settings(verl_overrides="a.b='open"))


@pytest.mark.parametrize(
    "override", ["trainer.logger=[console,wandb]", "+reward.custom_reward_function.x=1", "trainer.default_local_dir=/x"]
)
def test_what_the_run_relies_on_is_not_for_the_user_to_set(override: str) -> None:
    with pytest.raises(ConfigError, match="which the run relies on"):
        own_overrides(settings(verl_overrides=f"data.seed=1 {override}"))
    assert own_overrides(settings(verl_overrides="trainer.logger=[console,file,wandb] reward.num_workers=1"))


def test_few_cores_get_few_queue_units_since_verl_would_wait_for_more_for_ever(tmp_path: Path) -> None:
    job, key = a_job(tmp_path), "transfer_queue.backend.SimpleStorage.num_data_storage_units"
    units = {}
    for cores in (1, 2, 8, 16, 200):
        arguments = overrides(settings(), job, Batches(1, 1, 1), cpu_count=cores, ray_dir="/r")
        units[cores] = next(a.split("=")[1] for a in arguments if a.startswith(key))
    assert units == {1: "1", 2: "1", 8: "2", 16: "4", 200: "8"}


def test_a_run_is_named_by_what_decides_its_weights(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    name = run_of(settings(), job)
    moved = replace(a_job(tmp_path / "elsewhere"), model_path=job.model_path)
    assert run_of(settings(), moved) == name
    assert run_of(settings(verl_save_steps=1, verl_max_tokens_per_gpu=999, verl_python="/other/python"), job) == name
    others = [
        run_of(settings(verl_learning_rate=1.0), job),
        run_of(settings(training_framework="VERL_GRPO"), job),
        run_of(settings(physical_grpo_gpu=(0,)), job),
        run_of(settings(), replace(job, seed=46)),
        run_of(settings(), a_job(tmp_path / "more", questions=4)),
    ]
    assert len({name, *others}) == 6
    assert count_questions(job) == 3


def test_the_child_sees_the_training_gpus_and_no_other(tmp_path: Path) -> None:
    env = training_env(settings(physical_grpo_gpu=(2, 5)), a_job(tmp_path))
    assert env["CUDA_VISIBLE_DEVICES"] == "2,5"
    assert env["RAY_USAGE_STATS_ENABLED"] == "0"
    assert "CUDA_VISIBLE_DEVICES" not in training_env(settings(physical_grpo_gpu=()), a_job(tmp_path))
