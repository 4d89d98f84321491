"""One update on questions is stock TRL's update on the same pairs: loss, gradients, figures. Real trl, float32, CPU."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from tiny_model import build_tiny_model
from training_jobs import a_question, pairs_of
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    TrainerCallback,
)
from trl import DPOConfig, DPOTrainer

from prosetting.trainers.losses import LOSSES, OF_A_BATCH, STILL_ON_EQUAL_SIDES
from prosetting.trainers.worker_dpo_data import tokenize
from prosetting.trainers.worker_dpo_grouped import GroupedDPOTrainer

LOSS_BAR, GRADIENT_BAR, UPDATE_BAR = 1e-6, 5e-6, 1e-6
OF_TIME = ("runtime", "per_second", "grad_norm", "train_loss", "epoch", "num_tokens")


def questions() -> list[dict[str, Any]]:
    """Unequal ones: 7, 12, 1, 4 and 15 pairs; completions of 4 to 20 tokens, some in several pairs."""
    draw = random.Random(3)

    def texts(count: int) -> list[str]:
        return [f" {draw.randrange(10 ** draw.randrange(1, 12))}+4 \\boxed{{{number}}}" for number in range(count)]

    sizes = ((1, 7), (2, 6), (1, 1), (4, 1), (5, 3))
    prompts = (f"Max has {9**n} cards{' and buys 4 more' * n}?" for n in range(len(sizes)))
    return [
        a_question(prompt, texts(right), texts(wrong)) for prompt, (right, wrong) in zip(prompts, sizes, strict=True)
    ]


@dataclass
class Update:
    """What one step of plain gradient descent did."""

    logged: dict[str, float]
    gradient: torch.Tensor
    weights: torch.Tensor
    trainer: DPOTrainer


@pytest.fixture(scope="module", params=["chat", pytest.param("plain", marks=pytest.mark.slow)])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model"), chat=request.param == "chat")


class Gradient(TrainerCallback):
    def on_pre_optimizer_step(self, *_: Any, model: PreTrainedModel, **__: Any) -> None:
        self.value = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.requires_grad])


def flat(model: PreTrainedModel) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def arguments(folder: Path, **changes: Any) -> DPOConfig:
    values: dict[str, Any] = {
        "output_dir": str(folder),
        "precompute_ref_log_probs": True,
        "optim": "sgd",
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "max_steps": 1,
        "beta": 0.1,  # float32 rounds a sum of log-probabilities to 1e-5; times β it must stay below the bar
        "max_length": 96,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "per_device_eval_batch_size": 1,
    }
    return DPOConfig(**values | changes)


def update(
    base: Path,
    folder: Path,
    *,
    pairs: int = 0,
    most_tokens: int | None = None,
    references: int = 0,
    lora: bool = False,
    rows: Sequence[dict[str, Any]] | None = None,
    **changes: Any,
) -> Update:
    """`pairs` a step by stock TRL; without, one of questions. The policy is one step away from the reference."""
    rows = questions() if rows is None else rows
    torch.manual_seed(0)  # of the adapters
    adapters = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    peft: dict[str, Any] = {"peft_config": adapters} if lora else {}
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    chat = tokenizer.chat_template is not None

    def sided(pair: dict[str, str]) -> dict[str, Any]:
        roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
        return {name: [{"role": roles[name], "content": text}] if chat else text for name, text in pair.items()}

    args = arguments(folder, **changes)
    if pairs:
        args.per_device_train_batch_size = args.per_device_eval_batch_size = pairs
        data = Dataset.from_list([sided(pair) for question in rows for pair in pairs_of(question)])
        trainer = DPOTrainer(
            model, args=args, train_dataset=data, eval_dataset=data, processing_class=tokenizer, **peft
        )
    else:
        data = Dataset.from_list([row or {} for row in tokenize(rows, tokenizer, 96)])
        trainer = GroupedDPOTrainer(
            model,
            args,
            train_dataset=data,
            eval_dataset=data,
            processing_class=tokenizer,
            most_tokens=most_tokens,
            references=references,
            **peft,
        )
        assert references or trainer.data_collator.share
    with torch.no_grad():  # away from the reference, which is computed already, or by a model of its own
        draw = torch.Generator().manual_seed(1)
        for weight in () if lora else model.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=draw)
    gradient = Gradient()
    trainer.add_callback(gradient)
    trainer.train()
    return Update(trainer.state.log_history[0], gradient.value, flat(model), trainer)


PAIRS = sum(len(question["chosen"]) for question in questions())
ALL = {"per_device_train_batch_size": 5}
WAYS: dict[str, dict[str, Any]] = {
    "at once": ALL,
    "accumulated over unequal questions": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 5},
    "in steps of 2, 2 and 1": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3},
    "with gradient checkpointing": ALL | {"gradient_checkpointing": True},
    "in parts of few tokens": ALL | {"most_tokens": 100},
    "with the reference beside": ALL | {"references": 1},
    "with references beside, in parts": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3}
    | {"references": 2, "most_tokens": 100},
    "in parts, checkpointed": ALL | {"most_tokens": 100, "gradient_checkpointing": True},
}


def assert_same(ours: Update, stock: Update, gradient_bar: float = GRADIENT_BAR, loss_bar: float = LOSS_BAR) -> None:
    assert ours.logged["loss"] == pytest.approx(stock.logged["loss"], rel=loss_bar)
    assert float((ours.gradient - stock.gradient).norm() / stock.gradient.norm()) <= gradient_bar
    assert float((ours.weights - stock.weights).norm() / stock.weights.norm()) <= UPDATE_BAR
    figures = {name for name in stock.logged if not name.endswith(OF_TIME)}
    assert figures <= ours.logged.keys()
    for name in figures:
        assert ours.logged[name] == pytest.approx(stock.logged[name], rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("loss", [name for name in LOSSES if name not in OF_A_BATCH])
def test_every_loss_gives_the_same_update(base: Path, tmp_path: Path, loss: str) -> None:
    change = {"loss_type": [loss]}
    ours = update(base, tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=3, **change)
    # Two losses magnify how float32 rounds a sum of log-probabilities, which differs between processors. Moving stock
    # TRL's own reference log-probabilities by their last bit changes here the gradient of discopop, which divides by
    # τ = 0.05, by 1.1e-5, and the loss of sppo_hard, a square of differences to 1 / 2β = 5, by 1.2e-6.
    gradient_bar = 4 * GRADIENT_BAR if loss == "discopop" else GRADIENT_BAR
    loss_bar = 2 * LOSS_BAR if loss == "sppo_hard" else LOSS_BAR
    assert_same(ours, update(base, tmp_path, pairs=PAIRS, **change), gradient_bar, loss_bar)


@pytest.mark.parametrize("way", WAYS)
def test_however_an_update_is_computed_it_is_the_same(base: Path, tmp_path: Path, way: str) -> None:
    losses = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 5.0]}
    stock = update(base, tmp_path, pairs=PAIRS, **losses)
    assert_same(update(base, tmp_path, **WAYS[way], **losses), stock)


SUPERVISED = [
    {"prompt": f"Eva has {n} cards?", "completions": [f" {n}+0={n} \\boxed{{{n}}}"], "chosen": [0], "rejected": [0]}
    for n in (7, 5_821, 90)
]
OF_PAIRS = ("rewards/", "logps/")


@pytest.mark.parametrize("size", [1, 8])
def test_supervised_rows_give_the_same_update_and_no_figures_of_pairs(base: Path, tmp_path: Path, size: int) -> None:
    losses: dict[str, Any] = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 5.0]}
    rows = [*questions(), *SUPERVISED]
    ours = update(
        base, tmp_path, rows=rows, per_device_train_batch_size=size, gradient_accumulation_steps=8 // size, **losses
    )
    stock = update(base, tmp_path, rows=rows, pairs=PAIRS + len(SUPERVISED), **losses)
    pairs_alone = update(base, tmp_path, pairs=PAIRS, **losses)
    assert float((pairs_alone.gradient - stock.gradient).norm() / stock.gradient.norm()) > 0.01
    of_pairs = {name: value for name, value in pairs_alone.logged.items() if name.startswith(OF_PAIRS)}
    assert stock.logged["rewards/margins"] == pytest.approx(
        of_pairs["rewards/margins"] * PAIRS / (PAIRS + len(SUPERVISED)), rel=1e-4
    )
    stock.logged |= of_pairs
    assert_same(ours, stock)


@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "sft"])
def test_a_supervised_row_moves_nothing_by_a_loss_that_is_named_still(base: Path, tmp_path: Path, loss: str) -> None:
    """By float32's rounding, that is; aot sorts a batch: where all rows are supervised it moves nothing either."""
    gradient = update(base, tmp_path, rows=SUPERVISED, pairs=len(SUPERVISED), loss_type=[loss]).gradient
    assert (float(gradient.norm()) < 1e-4) == (loss in STILL_ON_EQUAL_SIDES | OF_A_BATCH)


@pytest.mark.parametrize(("checkpointed", "references"), [(False, 0), (True, 0), (False, 1)])
def test_adapters_get_the_same_update(base: Path, tmp_path: Path, checkpointed: bool, references: int) -> None:
    """LoRA; the reference is the model without its adapters."""
    lora: dict[str, Any] = {"lora": True, "gradient_checkpointing": checkpointed}
    ours = update(base, tmp_path, **ALL, **lora, references=references)
    stock = update(base, tmp_path, pairs=PAIRS, **lora)
    assert stock.gradient.norm() > 0
    assert_same(ours, stock)


@pytest.mark.parametrize("references", [0, 1])
def test_an_evaluation_gives_the_figures_of_all_pairs(base: Path, tmp_path: Path, references: int) -> None:
    ways: tuple[dict[str, Any], ...] = (ALL | {"references": references}, {"pairs": PAIRS})
    ours, stock = (update(base, tmp_path, **way).trainer.evaluate() for way in ways)
    for name, value in stock.items():
        if not name.endswith(OF_TIME):
            assert ours[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"loss_type": ["aot"]}, "aot"),
        ({"loss_type": ["sigmoid", "aot_unpaired"], "loss_weights": [1.0, 1.0]}, "aot"),
        ({"ld_alpha": 0.5}, "ld_alpha"),
        ({"precompute_ref_log_probs": False}, "beforehand"),
    ],
)
def test_what_is_not_the_same_is_refused(base: Path, tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=f"{reason}.*DPO_ENGINE=stock"):
        update(base, tmp_path, **change)


def test_a_mixture_of_experts_is_refused(tmp_path: Path) -> None:
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_local_experts": 2}
    model = MixtralForCausalLM(MixtralConfig(**sizes, **heads))
    with pytest.raises(ValueError, match="mixture of experts"):
        GroupedDPOTrainer(model, arguments(tmp_path))
