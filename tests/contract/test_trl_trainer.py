"""Training a round: real accelerate launch, real trl, on a model of a few kilobytes."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from tiny_model import END, build_tiny_model
from training_jobs import BETA, a_job, settings, write_pairs
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOTrainer

from prosetting.errors import ConfigError, TrainingError
from prosetting.trainers.base import TrainingJob, TrainingResult
from prosetting.trainers.trl_job import LOSSES, dpo_arguments, launch_config, space_needed
from prosetting.trainers.trl_trainer import TrlTrainer, read_news


@dataclass
class Trained:
    job: TrainingJob
    result: TrainingResult
    heard: list[tuple[int, int, float | None]]


def trained(folder: Path, model: Path, *more_files: Path, **changes: Any) -> Trained:
    folder.mkdir()
    job, heard = a_job(folder, model), []
    job = replace(job, train_files=[*job.train_files, *more_files])
    trainer = TrlTrainer(settings(**changes), on_progress=lambda *news: heard.append(news))
    return Trained(job, trainer.train(job), heard)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("first") / "run", base)


def log_probability(model: Path, prompt: str, completion: str) -> float:
    """log p(completion and its end token | prompt), computed apart from trl."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    turns = [{"role": "user", "content": prompt}]
    start = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    before = tokenizer(start, return_tensors="pt")["input_ids"]
    whole = tokenizer(f"{start}{completion}{END}\n", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(model)(whole).logits
    of_next = torch.log_softmax(logits[0, :-1], -1).gather(1, whole[0, 1:, None])
    return float(of_next[before.shape[1] - 1 :].sum())


def test_training_leaves_a_whole_model_and_nothing_beside_it(run: Trained) -> None:
    assert run.result.model_dir == run.job.output_dir
    names = {path.name for path in run.job.output_dir.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth"))]
    left = {path.name for path in run.job.output_dir.parent.iterdir()}
    assert left == {"a.parquet", "b.parquet", "validation.parquet", "checkpoint", "logs"}


def test_pairs_and_steps_are_counted_and_each_step_is_heard(run: Trained) -> None:
    assert (run.result.train_pairs, run.result.validation_pairs, run.result.steps) == (40, 3, 5)
    assert run.heard[-1][:2] == (5, 5)
    assert run.heard[-1][2] is not None
    assert run.result.metrics["processes"] == 1


def test_chosen_rises_against_rejected_measured_from_the_starting_policy(run: Trained, base: Path) -> None:
    rows = [row for file in run.job.validation_files for row in pq.read_table(file).to_pylist()]
    rewards = {
        side: [
            BETA
            * (
                log_probability(run.job.output_dir, row["prompt"], row[side])
                - log_probability(base, row["prompt"], row[side])
            )
            for row in rows
        ]
        for side in ("chosen", "rejected")
    }
    assert all(chosen > rejected for chosen, rejected in zip(rewards["chosen"], rewards["rejected"], strict=True))
    for side, values in rewards.items():
        assert run.result.metrics[f"eval_rewards/{side}"] == pytest.approx(sum(values) / 3, abs=1e-3)


def test_the_same_seed_trains_the_same_weights(run: Trained, base: Path, tmp_path: Path) -> None:
    again = trained(tmp_path / "run", base)
    first, second = (one.job.output_dir / "model.safetensors" for one in (run, again))
    assert first.read_bytes() == second.read_bytes()


def test_two_processes_train_together_without_a_chat_template_and_without_prompts_too_long(tmp_path: Path) -> None:
    plain = build_tiny_model(tmp_path / "model", chat=False)
    too_long = write_pairs(tmp_path / "long.parquet", range(2), "Max has {} cards. " + "More? " * 80)
    done = trained(tmp_path / "run", plain, too_long, trl_num_processes=2, trl_gradient_accumulation=1)
    assert done.result.metrics["processes"] == 2
    assert done.result.metrics["pairs_too_long"] == 2
    assert (done.result.train_pairs, done.result.steps) == (40, 5)
    assert done.result.metrics["eval_rewards/margins"] > 0


def test_a_failure_says_why_and_leaves_no_model(base: Path, tmp_path: Path) -> None:
    job = a_job(tmp_path, base)
    with pytest.raises(TrainingError, match="no_such_schedule"):
        TrlTrainer(settings(trl_lr_scheduler="no_such_schedule")).train(job)
    assert not job.output_dir.exists()


def test_no_pairs_are_refused_before_anything_starts(base: Path, tmp_path: Path) -> None:
    job = a_job(tmp_path, base, train_files=[write_pairs(tmp_path / "none.parquet", range(1), "{}")])
    pq.write_table(pq.read_table(job.train_files[0]).slice(0, 0), job.train_files[0])
    with pytest.raises(TrainingError, match="no pairs"):
        TrlTrainer(settings()).train(job)


def test_an_unknown_loss_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'sigmiod'") as caught:
        TrlTrainer(settings(trl_loss_type=("sigmiod", "sft")))
    assert "sigmoid" in caught.value.next_step


def test_trl_knows_every_loss_that_is_offered() -> None:
    source = inspect.getsource(DPOTrainer._compute_loss)
    assert [name for name in LOSSES if f'"{name}"' not in source] == []


def test_the_settings_reach_trl(base: Path, tmp_path: Path) -> None:
    arguments = dpo_arguments(settings(trl_mixed_precision="bf16", trl_report_to=("wandb",)), a_job(tmp_path, base), 4)
    assert (arguments["bf16"], arguments["fp16"]) == (True, False)
    assert arguments["report_to"] == ["wandb"]
    assert (arguments["loss_type"], arguments["loss_weights"]) == (["sigmoid", "sft"], [1.0, 5.0])
    assert arguments["precompute_ref_log_probs"]


def test_the_space_a_training_needs_is_told_from_the_number_of_weights(base: Path, tmp_path: Path) -> None:
    weights = sum(weight.numel() for weight in AutoModelForCausalLM.from_pretrained(base).parameters())
    assert space_needed(str(base)) == 40 * weights
    assert space_needed("owner/on-the-hub") == 0


def test_several_processes_are_asked_for_in_the_way_that_starts_them() -> None:
    assert launch_config(settings(trl_num_processes=2))["distributed_type"] == "MULTI_GPU"
    assert launch_config(settings())["distributed_type"] == "NO"


def test_news_are_whole_lines_only(tmp_path: Path) -> None:
    file = tmp_path / "progress.jsonl"
    news = read_news(file)
    assert next(news) == []
    file.write_text('{"step": 1}\n{"st')
    assert next(news) == [{"step": 1}]
    file.write_text('{"step": 1}\n{"step": 2}\n')
    assert next(news) == [{"step": 2}]
