"""Training the Generator: real accelerate launch, real trl, on a model of a few kilobytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import build_tiny_model
from training_jobs import settings
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from prosetting.cli.main import main
from prosetting.core.artifacts import write_json
from prosetting.datasets.generator_data import utility
from prosetting.errors import ConfigError, TrainingError
from prosetting.trainers.base import TrainingJob, TrainingResult
from prosetting.trainers.generator_job import read_rows
from prosetting.trainers.generator_trainer import GeneratorTrainer
from prosetting.trainers.worker_sft import WeightedSFTTrainer, tokenized

PASS_RATES = [0.5, 0.25, 1.0, None, 0.75, 0.0]


def row(n: int, pass_rate: float | None) -> dict[str, Any]:
    return {
        "prompt": f"Question: Max has {n} cards?\nAttempt (incorrect): {n}",
        "completion": f"Max buys {n} cards?\nSolution: {n}+1={n + 1}\nAnswer: {n + 1}",
        "utility": None if pass_rate is None else utility(pass_rate),
    }


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model"))


def a_job(folder: Path, model: Path, rates: list[float | None] = PASS_RATES * 4, **content: Any) -> TrainingJob:
    folder.mkdir(exist_ok=True)
    write_json(folder / "rows.json", {"rows": [row(n, rate) for n, rate in enumerate(rates)]})
    return TrainingJob(
        round=3,
        model_path=str(model),
        dataset_dirs=[],
        output_dir=folder / "generator_r3",
        log_file=folder / "logs" / "generator_trainer.log",
        seed=5,
        training_files=[folder / "rows.json"],
    )


def trainer_of(base: Path, **changes: Any) -> GeneratorTrainer:
    changes = {"generator_learning_rate": 5e-3, "generator_batch_size": 8, "generator_num_epochs": 2.0} | changes
    return GeneratorTrainer(settings(generator_model_path=str(base), **changes))


def losses(model: Path, job: TrainingJob) -> list[float]:
    """Negative log-probability of each row's completion, computed apart from trl."""
    tokenizer, found = AutoTokenizer.from_pretrained(model), []
    network = AutoModelForCausalLM.from_pretrained(model)
    for one in tokenized([str(file) for file in job.training_files], tokenizer, 256):
        ids, labels = torch.tensor([one["input_ids"]]), torch.tensor([one["labels"]])
        with torch.no_grad():
            logs = torch.log_softmax(network(ids).logits[0, :-1], -1).gather(1, ids[0, 1:, None])[:, 0]
        found.append(-float(logs[labels[0, 1:] != -100].sum()))
    return found


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingJob, TrainingResult]:
    job = a_job(tmp_path_factory.mktemp("run"), base)
    return job, trainer_of(base).train(job)


def test_measured_rows_are_trained_on_and_a_whole_model_is_left(trained, base: Path) -> None:
    job, result = trained
    assert (result.train_pairs, result.steps) == (20, 6)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in job.output_dir.iterdir()}
    assert not list(job.output_dir.parent.glob("*.work"))
    before, after = losses(base, job), losses(job.output_dir, job)
    useful = [n for n, one in enumerate(read_rows(job.training_files)) if one.weight > 1]
    assert all(after[n] < before[n] for n in useful)
    assert result.metrics["loss"] < result.metrics["first_loss"]


def test_the_same_job_again_gives_the_model_that_stands(trained, base: Path) -> None:
    job, result = trained
    at = (job.output_dir / "model.safetensors").stat().st_mtime_ns
    again = trainer_of(base).train(job)
    assert (again.steps, (job.output_dir / "model.safetensors").stat().st_mtime_ns) == (result.steps, at)


def test_weights_have_a_mean_of_one_and_are_in_proportion_to_the_utility(tmp_path: Path, base: Path) -> None:
    weights = [one.weight for one in read_rows(a_job(tmp_path, base).training_files)]
    assert sum(weights) / len(weights) == pytest.approx(1)
    assert weights[0] / weights[1] == pytest.approx(utility(0.5) / utility(0.25))


def _gradient(kind: type[SFTTrainer], base: Path, folder: Path, rows: Any, steps: int) -> torch.Tensor:
    """Of one update of `steps` batches, all weights in a row."""
    args = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=len(rows) // steps,
        gradient_accumulation_steps=steps,
        max_steps=1,
        optim="sgd",
        learning_rate=1.0,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        seed=1,
    )
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    before = torch.cat([weight.detach().flatten().clone() for weight in model.parameters()])
    tokenizer = AutoTokenizer.from_pretrained(base)
    kind(model=model, args=args, train_dataset=rows, processing_class=tokenizer).train()
    return before - torch.cat([weight.detach().flatten() for weight in model.parameters()])


def test_the_update_is_the_weighted_sum_of_the_rows_and_with_equal_weights_stock_trls(
    tmp_path: Path, base: Path
) -> None:
    job = a_job(tmp_path, base, [0.5, 0.25, 1.0, 0.75])
    rows = tokenized([str(job.training_files[0])], AutoTokenizer.from_pretrained(base), 256)
    tokens = [sum(label != -100 for label in one["labels"]) for one in rows]
    alone = [_gradient(SFTTrainer, base, tmp_path / "alone", rows.select([n]), 1) for n in range(len(rows))]
    expected = sum(w * t * g for w, t, g in zip(rows["weight"], tokens, alone, strict=True)) / sum(tokens)
    for steps in (1, 2):
        found = _gradient(WeightedSFTTrainer, base, tmp_path / "weighted", rows, steps)
        assert torch.norm(found - expected) <= 1e-4 * torch.norm(expected)
    equal = rows.remove_columns("weight").add_column("weight", [1.0] * len(rows))
    ours = _gradient(WeightedSFTTrainer, base, tmp_path / "ours", equal, 2)
    stock = _gradient(SFTTrainer, base, tmp_path / "stock", rows, 2)
    assert torch.norm(ours - stock) <= 1e-5 * torch.norm(stock)


def test_a_row_that_is_too_long_is_left_out_whole(tmp_path: Path, base: Path) -> None:
    job, tokenizer = a_job(tmp_path, base, [0.5, 0.5]), AutoTokenizer.from_pretrained(base)
    (long_one,) = {len(one["input_ids"]) for one in tokenized([str(job.training_files[0])], tokenizer, 256)}
    assert len(tokenized([str(job.training_files[0])], tokenizer, long_one - 1)) == 0


def test_adapters_are_merged_into_a_plain_model(tmp_path: Path, base: Path) -> None:
    job = a_job(tmp_path, base)
    trainer_of(base, generator_lora_rank=4, generator_learning_rate=5e-2).train(job)
    assert not list(job.output_dir.glob("adapter*"))
    assert sum(losses(job.output_dir, job)) < sum(losses(base, job))


def test_without_a_measured_row_there_is_nothing_to_train_on(tmp_path: Path, base: Path) -> None:
    with pytest.raises(TrainingError, match="no rows of which the utility is measured"):
        trainer_of(base).train(a_job(tmp_path, base, [None, None]))


def test_a_training_that_is_stopped_goes_on_from_its_checkpoint(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job, heard = a_job(tmp_path, base), []

    class Hurried(Exception):
        pass

    def stop(step: int, total: int, loss: float | None) -> None:
        raise Hurried

    values = {
        "generator_model_path": str(base),
        "generator_learning_rate": 5e-3,
        "generator_batch_size": 8,
        "generator_num_epochs": 40.0,
    }
    with pytest.raises(Hurried):
        GeneratorTrainer(settings(**values), on_progress=stop).train(job)
    (saved,) = job.output_dir.with_name("generator_r3.work").glob("checkpoint-*")
    step = json.loads((saved / "complete.json").read_text())["facts"]["step"]
    result = GeneratorTrainer(settings(**values), on_progress=lambda step, *_: heard.append(step)).train(job)
    assert 0 < step < min(heard)
    assert result.steps == 120


def test_a_workspace_trains_a_generator_on_demand(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "ws" / "data", tmp_path / "generator"
    for round_, rates in ((1, [0.5, 0.25]), (2, [None, 0.75])):
        rows = [row(n, rate) for n, rate in enumerate(rates)]
        write_json(data / f"round_0{round_}_generator_training.json", {"rows": rows})
    command = ["train-generator", "--workspace-dir", str(tmp_path / "ws"), "--out", str(out)]
    assert main([*command, "--generator-model-path", str(base), "--trl-num-processes", "1"]) == 0
    assert "trained on 3 questions" in capsys.readouterr().out
    assert (out / "model.safetensors").exists()


def test_ray_as_a_launcher_is_refused(base: Path) -> None:
    with pytest.raises(ConfigError, match="this machine only"):
        GeneratorTrainer.check(settings(generator_model_path=str(base), trl_launcher="ray"))
