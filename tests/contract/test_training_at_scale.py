"""Two processes on gloo through a real `accelerate launch`: DDP, FSDP2 and LoRA give one model that all else loads.

FSDP2 is real; that accelerate starts it on CPUs is the work of `fsdp_on_cpu`, a substitute kept beside this test.
"""

from __future__ import annotations

import json
import logging
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_model import build_tiny_model
from training_jobs import a_job, a_question, settings, sums, write_dataset
from transformers import AutoModelForCausalLM

from prosetting.errors import TrainingError
from prosetting.trainers import checkpoints, trl_trainer
from prosetting.trainers.base import TrainingJob, TrainingResult
from prosetting.trainers.trl_trainer import TrlTrainer
from prosetting.trainers.worker_dpo_model import check_index, check_order

SAME = 1e-6
TWO: dict[str, Any] = {"trl_num_processes": 2, "dpo_batch_questions": 1, "trl_gradient_accumulation": 2}
FSDP: dict[str, Any] = {"trl_sharding": "fsdp"}
WAYS: dict[str, dict[str, Any]] = {"ddp": {}, "fsdp": FSDP}
LORA: dict[str, Any] = {"trl_lora_rank": 4}
IN_PARTS: dict[str, Any] = {"dpo_max_tokens_per_forward": 64}
Train = Callable[..., TrainingResult]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model"))


def worker_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here, source = Path(__file__).parent, Path(trl_trainer.__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{source}:{here}")
    monkeypatch.setattr(TrlTrainer, "worker", name)


@pytest.fixture
def fsdp_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    worker_is("fsdp_on_cpu", monkeypatch)


def unequal(folder: Path, model: Path) -> TrainingJob:
    """Questions of 1 to 9 pairs: both processes never have as much to do."""
    folder.mkdir()
    sizes = ((1, 5), (3, 3), (1, 1), (4, 1), (2, 3), (1, 2), (1, 4), (2, 2))
    questions = [
        a_question(
            f"Max has {n} cards?", [f"{n}+{a} \\boxed{{{a}}}" for a in range(right)], [f"{b}" for b in range(wrong)]
        )
        for n, (right, wrong) in enumerate(sizes)
    ]
    return a_job(folder, model, dataset_dirs=[write_dataset(folder / "round_3", questions, sums(range(3)))])


def distance(one: Path, other: Path) -> float:
    """The largest difference of any weight of two model folders with the same weights."""
    weights = [load_file(folder / "model.safetensors") for folder in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    return max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0])


@pytest.fixture
def train(base: Path, tmp_path: Path) -> Train:
    def run(name: str, *, model: Path = base, **changes: Any) -> TrainingResult:
        return TrlTrainer(settings(**TWO | changes)).train(unequal(tmp_path / name, model))

    return run


@pytest.mark.slow
@pytest.mark.usefixtures("fsdp_on_cpu")
def test_fsdp2_leaves_the_model_of_ddp_and_the_next_round_trains_from_it(
    train: Train, base: Path, tmp_path: Path
) -> None:
    ddp, fsdp = train("ddp"), train("fsdp", **FSDP)
    assert distance(ddp.model_dir, fsdp.model_dir) <= SAME
    assert distance(fsdp.model_dir, base) > 1e-3
    assert fsdp.metrics["train_loss"] == pytest.approx(ddp.metrics["train_loss"], rel=1e-5)
    assert distance(train("in parts", **FSDP, **IN_PARTS).model_dir, ddp.model_dir) <= SAME
    ordered = json.loads((tmp_path / "fsdp" / "logs" / "trl_r3.job.json").read_text())["order"]
    assert ordered == {"kind": "FSDP", "processes": 2, "mixed_precision": "no"}
    second = [train(f"second {way}", model=fsdp.model_dir, **changes).model_dir for way, changes in WAYS.items()]
    assert distance(*second) <= SAME
    assert distance(second[1], fsdp.model_dir) > 1e-3


@pytest.mark.slow
@pytest.mark.usefixtures("fsdp_on_cpu")
def test_stock_trl_under_fsdp2_leaves_the_model_of_ddp(train: Train) -> None:
    stock = {"dpo_engine": "stock", "trl_batch_size": 2}
    assert distance(train("ddp", **stock).model_dir, train("fsdp", **stock, **FSDP).model_dir) <= SAME


@pytest.mark.slow
@pytest.mark.usefixtures("fsdp_on_cpu")
def test_adapters_are_merged_into_a_plain_model(train: Train, base: Path) -> None:
    ddp = train("ddp", **LORA).model_dir
    assert distance(ddp, train("fsdp", **LORA, **FSDP).model_dir) <= SAME
    assert distance(ddp, base) > 1e-3
    stock = train("stock", **LORA, dpo_engine="stock", trl_batch_size=2).model_dir
    assert distance(stock, base) > 1e-3
    assert not list(ddp.glob("adapter*"))
    loaded = AutoModelForCausalLM.from_pretrained(ddp)
    assert type(loaded).__name__ == "Qwen3ForCausalLM"
    before, after = (load_file(folder / "model.safetensors") for folder in (base, ddp))
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])


@pytest.mark.slow
@pytest.mark.usefixtures("fsdp_on_cpu")
@pytest.mark.parametrize("changes", [FSDP, FSDP | LORA], ids=["all weights", "adapters"])
def test_killed_under_fsdp2_it_goes_on_from_its_shared_checkpoint(
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, Any],
) -> None:
    wanted = settings(**TWO | changes)
    whole, job = [a_job(folder, base) for folder in (tmp_path / "whole", tmp_path / "killed") if not folder.mkdir()]
    trained = TrlTrainer(wanted).train(whole)
    monkeypatch.setenv("KILL_AT", "7")
    with pytest.raises(TrainingError, match="SIGKILL"):
        TrlTrainer(wanted).train(job)
    monkeypatch.delenv("KILL_AT")
    newest = checkpoints.checkpoints(tmp_path / "killed" / "checkpoint.work")[0]
    assert [newest.name, (newest / checkpoints.SEAL).exists()] == ["checkpoint-6", True]
    assert len(list(newest.glob("pytorch_model_fsdp_0/*.distcp"))) == 2
    hostile_index_is_refused(newest, tmp_path)
    with caplog.at_level(logging.INFO, "prosetting"):
        resumed = TrlTrainer(wanted).train(job)
    assert "training goes on from step 6" in caplog.messages
    assert distance(trained.model_dir, resumed.model_dir) <= SAME
    assert resumed.metrics["train_loss"] == pytest.approx(trained.metrics["train_loss"], rel=1e-6)


def hostile_index_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """On a copy: what torch itself would unpickle unchecked."""

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.mkdir, (tmp_path / "ran",)

    check_index(str(checkpoint))
    copy = shutil.copytree(checkpoint, tmp_path / "hostile")
    (copy / "optimizer_0" / ".metadata").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        check_index(str(copy))
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_it_trains_in_a_process_group_that_is_there_already(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = train("plain")
    worker_is("in_a_group", monkeypatch)
    assert distance(train("in a group").model_dir, plain.model_dir) <= SAME


@pytest.mark.slow
def test_a_file_of_the_users_own_passes_through(train: Train, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        yaml.safe_dump(
            {"distributed_type": "MULTI_GPU", "num_processes": 2, "use_cpu": True, "main_process_port": 0}
            | {"mixed_precision": "no", "compute_environment": "LOCAL_MACHINE", "num_machines": 1}
        )
    )
    result = train("own", accelerate_config_file=own)
    assert result.metrics["processes"] == 2
    assert not (tmp_path / "own" / "logs" / "trl_r3.accelerate.json").exists()


@pytest.mark.slow
def test_fsdp_that_would_run_as_ddp_ends_before_its_first_step(train: Train, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="not run as it was ordered: kind FSDP, found MULTI_GPU") as caught:
        train("fsdp", **FSDP)
    assert "ACCELERATE_CONFIG_FILE" in caught.value.next_step
    assert not (tmp_path / "fsdp" / "checkpoint").exists()


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (("MULTI_CPU", 2, "no"), ""),
        (("MULTI_GPU", 2, "no"), ""),
        (("NO", 1, "no"), "kind MULTI_GPU, found NO"),
        (("MULTI_GPU", 1, "no"), "kind MULTI_GPU, found NO"),  # a launcher of one process
        (("FSDP", 2, "no"), "kind MULTI_GPU, found FSDP"),
        (("MULTI_GPU", 4, "no"), "processes 2, found 4"),
        (("MULTI_GPU", 2, "bf16"), "mixed precision no, found bf16"),
    ],
)
def test_the_worker_compares_what_it_finds_with_what_was_ordered(found: tuple[str, int, str], problem: str) -> None:
    order = {"kind": "MULTI_GPU", "processes": 2, "mixed_precision": "no"}
    if not problem:
        return check_order(order, *found)
    with pytest.raises(ValueError, match=problem):
        check_order(order, *found)
