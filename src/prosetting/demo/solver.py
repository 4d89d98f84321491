"""The demo's solver: tokenizer, model and warm start, saved as an ordinary Hugging Face folder."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from prosetting.demo.recipe import Recipe

Say = Callable[[str], None]

PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"
BOX = " \\boxed{"
IGNORED = -100  # the label that cross-entropy leaves out
# The generation prompt is a token prefix of the full chat, and an answer ends with the end token.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}<|assistant|>{{ message['content'] }}<|end|>"
    "{%- else -%}<|user|>{{ message['content'] }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)


def build_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which every digit is a token of its own and the box's opening is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 1,
        special_tokens=[PAD, USER, ASSISTANT, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(BOX, normalized=False)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, padding_side="left")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> Qwen3ForCausalLM:
    """A Qwen3 with random weights in fp32."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.mlp,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        head_dim=recipe.head_dim,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config = whole_distribution(tokenizer)
    return model


def whole_distribution(tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    """Sampling from all that the solver is trained and scored on: the default of top_k 50 would cut it."""
    return GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def matrices_and_others(model: PreTrainedModel) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """The weights for Muon, matrices but the embedding, and those for AdamW."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "embed_tokens" not in name]
    return matrices, [p for name, p in named if p.ndim != 2 or "embed_tokens" in name]


def warm_start(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    examples: Sequence[tuple[str, str]],
    recipe: Recipe,
    seed: int,
    say: Say,
) -> None:
    """Learn the examples' solutions by cross-entropy: Muon for matrices, AdamW for the rest, cosine to zero.

    Muon: Jordan et al. 2024, as in torch.optim.
    """
    matrices, others = matrices_and_others(model)
    optimizers = [
        torch.optim.Muon(matrices, lr=recipe.matrix_learning_rate, weight_decay=0.0),
        torch.optim.AdamW(others, lr=recipe.other_learning_rate, weight_decay=0.0),
    ]
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: _cosine(step, recipe.steps)) for o in optimizers]
    encoded = [encode(tokenizer, question, answer) for question, answer in examples]
    model.train()
    started = time.monotonic()
    for step, batch in enumerate(_batches(encoded, recipe, random.Random(f"{seed} order")), start=1):
        input_ids, labels = collate(batch, int(tokenizer.pad_token_id))
        loss = model(input_ids=input_ids, attention_mask=(input_ids != tokenizer.pad_token_id), labels=labels).loss
        loss.backward()
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if step % 20 == 0 or step == recipe.steps:
            say(f"warm start: step {step}/{recipe.steps}  loss {loss.item():.3f}  {time.monotonic() - started:.0f} s")
    model.eval()


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _cosine(step: int, steps: int) -> float:
    warm_up = min(1.0, (step + 1) / 10)
    return warm_up * 0.5 * (1 + math.cos(math.pi * step / steps))


def encode(tokenizer: PreTrainedTokenizerFast, question: str, answer: str) -> tuple[list[int], int]:
    """Token ids of the full chat, and how many of them are the prompt."""
    prompt = tokenizer.encode(f"{USER}{question}{ASSISTANT}", add_special_tokens=False)
    return prompt + tokenizer.encode(f"{answer}{END}", add_special_tokens=False), len(prompt)


def _batches(
    encoded: Sequence[tuple[list[int], int]], recipe: Recipe, rng: random.Random
) -> Iterator[list[tuple[list[int], int]]]:
    order: list[int] = []
    for _ in range(recipe.steps):
        if len(order) < recipe.batch:
            order = rng.sample(range(len(encoded)), len(encoded))
        yield [encoded[order.pop()] for _ in range(recipe.batch)]


def collate(batch: Sequence[tuple[list[int], int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels (batch, longest), padded on the right; prompt and padding are not learned."""
    longest = max(len(ids) for ids, _ in batch)
    input_ids = torch.full((len(batch), longest), pad)
    labels = torch.full((len(batch), longest), IGNORED)
    for row, (ids, prompt) in enumerate(batch):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        labels[row, prompt : len(ids)] = torch.tensor(ids[prompt:])
    return input_ids, labels
