"""The experiment's solver: a model without position embeddings, and a warm start that ends when it has converged.

Without position embeddings (NoPE) a story of one more operation is in reach after a warm start on one to three. With
rotary ones in every second layer that was a matter of the seed (docs/easy_to_hard.md).
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerFast, SmolLM3Config, SmolLM3ForCausalLM

from prosetting.demo.ledgers.questions import warm_start_examples
from prosetting.demo.ledgers.recipe import LedgerRecipe
from prosetting.demo.solver import (
    IGNORED,
    Say,
    build_tokenizer,
    collate,
    encode,
    matrices_and_others,
    whole_distribution,
)
from prosetting.errors import TrainingError

TOKENIZER_STORIES = 2_000
WARM_UP_STEPS = 20
KEPT = 0.95  # of the running mean of the loss, a step
LEAST_RATE = 0.02
Example = tuple[list[int], int]


def make_tokenizer(recipe: LedgerRecipe) -> PreTrainedTokenizerFast:
    """The same for every seed."""
    examples = itertools.islice(warm_start_examples(random.Random("tokenizer")), TOKENIZER_STORIES)
    return build_tokenizer([f"{question}\n{solution}" for question, solution in examples], recipe.vocabulary)


def build_model(tokenizer: PreTrainedTokenizerFast, recipe: LedgerRecipe) -> SmolLM3ForCausalLM:
    """A SmolLM3 of which no layer has rotary embeddings, with random weights in fp32."""
    config = SmolLM3Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.mlp,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=2048,
        no_rope_layers=[0] * recipe.layers,
        use_sliding_window=False,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = SmolLM3ForCausalLM(config)
    model.generation_config = whole_distribution(tokenizer)
    return model


def warm_start(
    model: SmolLM3ForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: LedgerRecipe, seed: int, say: Say
) -> None:
    """Learn ledgers of levels 1 to 3 until greedy decoding keeps 97 % of fresh ones whole.

    A gate on what was learned instead of a number of steps: a solver that has not converged on the easy levels loses
    them in the rounds. Raises TrainingError for one that does not pass after four stretches.
    """
    training = _WarmStart(model, tokenizer, recipe, random.Random(f"{seed} warm start"), say)
    fresh = _encoded(tokenizer, random.Random(f"{seed} gate"))
    for _ in range(recipe.most_stretches):
        training.until_the_loss_is_low()
        training.cool_down()
        share = whole_share(model, tokenizer, list(itertools.islice(fresh, recipe.gate_stories)))
        say(f"warm start: {share:.3f} of {recipe.gate_stories} fresh ledgers are whole (gate: {recipe.gate_share})")
        if share >= recipe.gate_share:
            return
    raise TrainingError(
        f"the warm start did not converge: {share:.3f} of the fresh ledgers are whole after {training.steps} steps",
        next_step="try another seed",
    )


@torch.inference_mode()
def whole_share(model: SmolLM3ForCausalLM, tokenizer: PreTrainedTokenizerFast, examples: list[Example]) -> float:
    """The share of solutions that greedy decoding gives: those whose every next token is the likeliest."""
    model.eval()
    input_ids, labels = collate(examples, int(tokenizer.pad_token_id))
    likeliest = model(input_ids=input_ids, attention_mask=input_ids != tokenizer.pad_token_id).logits.argmax(-1)
    right = (likeliest[:, :-1] == labels[:, 1:]) | (labels[:, 1:] == IGNORED)
    return float(right.all(dim=1).float().mean())


def _encoded(tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> Iterator[Example]:
    return (encode(tokenizer, question, solution) for question, solution in warm_start_examples(rng))


@dataclass
class _WarmStart:
    """Cross-entropy on stories drawn without end: Muon for matrices, AdamW for the rest."""

    model: SmolLM3ForCausalLM
    tokenizer: PreTrainedTokenizerFast
    recipe: LedgerRecipe
    rng: random.Random
    say: Say
    steps: int = 0
    loss: float = float("inf")  # running mean
    _started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        matrices, others = matrices_and_others(self.model)
        self._optimizers = [
            (torch.optim.Muon(matrices, weight_decay=0.0), self.recipe.matrix_learning_rate),
            (torch.optim.AdamW(others, weight_decay=0.0), self.recipe.other_learning_rate),
        ]
        self._examples = _encoded(self.tokenizer, self.rng)

    def until_the_loss_is_low(self) -> None:
        begun = self.steps
        while self.loss > self.recipe.low_loss and self.steps < begun + self.recipe.most_steps:
            self._step(min(1.0, (self.steps + 1) / WARM_UP_STEPS))

    def cool_down(self) -> None:
        for left in range(self.recipe.cool_down_steps, 0, -1):
            self._step(max(left / self.recipe.cool_down_steps, LEAST_RATE))

    def _step(self, rate: float) -> None:
        self.model.train()
        pad = int(self.tokenizer.pad_token_id)
        input_ids, labels = collate(list(itertools.islice(self._examples, self.recipe.batch)), pad)
        loss = self.model(input_ids=input_ids, attention_mask=input_ids != pad, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, peak in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * rate
            optimizer.step()
            optimizer.zero_grad()
        found = float(loss.detach())
        self.loss = found if self.steps == 0 else KEPT * self.loss + (1 - KEPT) * found
        self.steps += 1
        if self.steps % 50 == 0:
            seconds = time.monotonic() - self._started
            self.say(f"warm start: step {self.steps}  loss {self.loss:.4f}  {seconds:.0f} s")
