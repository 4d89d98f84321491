"""Training a round: real accelerate launch, real trl, on a model of a few kilobytes."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_model import END, build_tiny_model
from training_jobs import BETA, a_job, pairs_of, settings, sums, write_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOTrainer

from prosetting.errors import ConfigError, TrainingError
from prosetting.trainers.base import TrainingJob, TrainingResult
from prosetting.trainers.launch import launch_config
from prosetting.trainers.losses import LOSSES
from prosetting.trainers.trl_job import Step, dpo_arguments
from prosetting.trainers.trl_trainer import TrlTrainer, read_news


@dataclass
class Trained:
    job: TrainingJob
    result: TrainingResult
    heard: list[tuple[int, int, float | None]]


def trained(folder: Path, model: Path, *more_dirs: Path, **changes: Any) -> Trained:
    folder.mkdir()
    job, heard = a_job(folder, model), []
    job = replace(job, dataset_dirs=[*job.dataset_dirs, *more_dirs])
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
    assert left == {"round_2", "round_3", "checkpoint", "logs"}


def test_pairs_and_steps_are_counted_and_each_step_is_heard(run: Trained) -> None:
    assert (run.result.train_pairs, run.result.validation_pairs, run.result.steps) == (40, 3, 5)
    assert run.heard[-1][:2] == (5, 5)
    assert run.heard[-1][2] is not None
    assert run.result.metrics["processes"] == 1


def test_chosen_rises_against_rejected_measured_from_the_starting_policy(run: Trained, base: Path) -> None:
    rows = [pair for question in sums(range(40, 43)) for pair in pairs_of(question)]
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


def mean_log_probabilities(model: Path, questions: list[dict[str, Any]]) -> dict[str, float]:
    rows = [pair for question in questions for pair in pairs_of(question)]
    return {
        side: sum(log_probability(model, row["prompt"], row[side]) for row in rows) / len(rows)
        for side in ("chosen", "rejected")
    }


def assert_before_and_after(one: Trained, base: Path, questions: list[dict[str, Any]]) -> None:
    for when, model in (("before", base), ("after", one.job.output_dir)):
        for side, value in mean_log_probabilities(model, questions).items():
            assert one.result.metrics[f"logps_{when}/{side}"] == pytest.approx(value, abs=2e-3), (when, side)


def test_without_enough_validation_questions_log_probabilities_before_and_after_are_those_of_training_attempts(
    run: Trained, base: Path
) -> None:
    trained_on = sums(range(40))
    assert_before_and_after(run, base, [trained_on[n * 40 // 16] for n in range(16)])


def test_stock_trl_trains_the_same_questions_to_the_same_weights(run: Trained, base: Path, tmp_path: Path) -> None:
    """One pair a question: a step of as many pairs as questions holds the same pairs, in the same order. Some are
    supervised rows. The validation set fills its batches: of others stock TRL gives the mean of their means."""
    rows = [{**row, "completions": row["completions"][:1], "rejected": [0]} for row in sums(range(60, 68))]
    more = write_dataset(tmp_path / "supervised", rows, sums(range(43, 56)))
    stock = trained(tmp_path / "run", base, more, dpo_engine="stock", trl_gradient_accumulation=1, trl_batch_size=8)
    one_step = trained(tmp_path / "grouped", base, more, trl_gradient_accumulation=1, dpo_batch_questions=8)
    assert (stock.result.train_pairs, one_step.result.train_pairs) == (48, 48)
    assert stock.result.metrics["train_loss"] == pytest.approx(one_step.result.metrics["train_loss"], rel=1e-5)
    ours, theirs = (load_file(one.job.output_dir / "model.safetensors") for one in (one_step, stock))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)
    for done in (stock, one_step):
        assert_before_and_after(done, base, sums(range(40, 56)))


def test_a_loss_over_a_batch_is_trained_by_stock_trl_and_said_so(base: Path, tmp_path: Path) -> None:
    done = trained(tmp_path / "run", base, trl_loss_type=("aot",), trl_loss_weights=(1.0,))
    assert done.result.notes == ("aot compares the pairs of a batch: trained by stock TRL",)


def test_the_same_seed_trains_the_same_weights(run: Trained, base: Path, tmp_path: Path) -> None:
    again = trained(tmp_path / "run", base)
    first, second = (one.job.output_dir / "model.safetensors" for one in (run, again))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("engine", ["grouped", pytest.param("stock", marks=pytest.mark.slow)])
def test_two_processes_train_together_without_a_chat_template_and_without_prompts_too_long(
    tmp_path: Path, engine: str
) -> None:
    plain = build_tiny_model(tmp_path / "model", chat=False)
    too_long = write_dataset(tmp_path / "long", sums(range(2), "Max has {} cards. " + "More? " * 80))
    done = trained(
        tmp_path / "run", plain, too_long, trl_num_processes=2, trl_gradient_accumulation=1, dpo_engine=engine
    )
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
    job = a_job(tmp_path, base, dataset_dirs=[write_dataset(tmp_path / "none", [])])
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
    arguments = dpo_arguments(
        settings(trl_mixed_precision="bf16", trl_report_to=("wandb",)), a_job(tmp_path, base), Step(4, 64)
    )
    assert (arguments["bf16"], arguments["fp16"]) == (True, False)
    assert arguments["report_to"] == ["wandb"]
    assert (arguments["loss_type"], arguments["loss_weights"]) == (["sigmoid", "sft"], [1.0, 5.0])
    assert arguments["precompute_ref_log_probs"]


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
