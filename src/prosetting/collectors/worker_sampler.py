"""The child process that samples: a checkpoint in transformers, JSON lines in and out.

An attempt depends on (model, prompt, seed) and not on its neighbours in the batch, as far as floating-point
arithmetic allows: each row draws one uniform number a token from a generator of its own and inverts the
cumulative distribution (after temperature and top-p; Holtzman et al. 2020, arXiv 1904.09751).
On a GPU the checkpoint's own dtype is kept, on the CPU it is float32.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LogitsProcessor

from prosetting.core import children


@dataclass(frozen=True, slots=True)
class Row:
    """One attempt to draw: the prompt's tokens, and the seed of its draw (None: greedy)."""

    token_ids: list[int]
    seed: int | None


@dataclass(frozen=True, slots=True)
class Warp:
    """How logits become the distribution that is sampled."""

    temperature: float
    top_p: float


class SeededDraw(LogitsProcessor):
    """Leaves, of each sampled row's scores, only the token that its seed draws; greedy rows stay as they are.

    `start`: tokens in the padded prompt, so that the step is the number of tokens generated so far.
    """

    def __init__(self, rows: list[Row], warp: Warp, *, start: int, steps: int, device: torch.device) -> None:
        self.warp = warp
        self.start = start
        self.sampled = torch.tensor([row.seed is not None for row in rows], device=device)
        draws = np.zeros((len(rows), steps))
        for draw, row in zip(draws, rows, strict=True):
            if row.seed is not None:
                draw[:] = np.random.Generator(np.random.PCG64(row.seed)).random(steps)
        self.uniform = torch.from_numpy(draws).to(device)  # (row, step)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores` (row, vocabulary) in, the same shape out."""
        uniform = self.uniform[:, input_ids.shape[1] - self.start, None]
        probabilities = torch.softmax(scores.double() / self.warp.temperature, dim=-1)
        if self.warp.top_p < 1:
            probabilities = nucleus(probabilities, self.warp.top_p)
        cumulative = probabilities.cumsum(dim=-1)
        drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
        drawn = drawn.clamp_(max=scores.shape[1] - 1)
        only_drawn = torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)
        return torch.where(self.sampled[:, None], only_drawn, scores)


def nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero all but the smallest set of tokens whose probability reaches `top_p`. Shape (row, vocabulary)."""
    ordered, indices = probabilities.sort(dim=-1, descending=True)
    ordered[ordered.cumsum(dim=-1) - ordered >= top_p] = 0
    return torch.zeros_like(probabilities).scatter_(1, indices, ordered)


class Sampler:
    """A loaded checkpoint and its tokenizer."""

    def __init__(self, path: str) -> None:
        on_gpu = torch.cuda.is_available()
        if os.environ.get("CUDA_VISIBLE_DEVICES") and not on_gpu:
            raise RuntimeError("a GPU is asked for, but this torch sees none (is it a CPU-only torch?)")
        self.tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", trust_remote_code=False)
        several = torch.cuda.device_count() > 1
        self.model = AutoModelForCausalLM.from_pretrained(
            path,
            dtype="auto" if on_gpu else torch.float32,
            device_map="auto" if several else None,
            use_safetensors=True,
            trust_remote_code=False,
        ).eval()
        if on_gpu and not several:
            self.model = self.model.to("cuda")
        self.end_ids = end_token_ids(self.model.generation_config.eos_token_id, self.tokenizer.eos_token_id)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(self.end_ids[0])
        # What the run samples with are its own settings alone: no top-k or penalty that a checkpoint suggests.
        self.model.generation_config = GenerationConfig()
        self.max_positions = int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 0) or 0)

    def facts(self) -> dict[str, Any]:
        """The first line of the protocol."""
        return {
            "model_type": self.model.config.model_type,
            "parameters": self.model.num_parameters(),
            "device": str(self.model.device),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "max_positions": self.max_positions,
            "chat_template": self.tokenizer.chat_template is not None,
        }

    def reply(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """One answer for each row of the request, in its order."""
        params = request["params"]
        warp = Warp(params["temperature"], params["top_p"])
        rows = [Row(self._prompt_ids(row["prompt"]), row["seed"]) for row in request["rows"]]
        answers: list[dict[str, Any]] = [{} for _ in rows]
        # Rows near the model's last position get fewer new tokens. Each such length is a batch of its own:
        # a row must not be cut because of its neighbours.
        by_room: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            by_room.setdefault(self._room(row, params["max_new_tokens"]), []).append(index)
        for room, indices in by_room.items():
            drawn = self._generate([rows[index] for index in indices], warp, room) if room else None
            for position, index in enumerate(indices):
                answers[index] = self._answer(drawn[position] if drawn is not None else [])
        return answers

    def _prompt_ids(self, prompt: str) -> list[int]:
        text = prompt.encode("utf-8", errors="replace").decode()
        if self.tokenizer.chat_template is None:
            return list(self.tokenizer(text)["input_ids"])
        turns = [{"role": "user", "content": text}]
        rendered = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return list(self.tokenizer(rendered, add_special_tokens=False)["input_ids"])

    def _room(self, row: Row, max_new_tokens: int) -> int:
        if not self.max_positions:
            return max_new_tokens
        return max(0, min(max_new_tokens, self.max_positions - len(row.token_ids)))

    def _generate(self, rows: list[Row], warp: Warp, max_new_tokens: int) -> list[list[int]]:
        """New token ids of each row, padding included. Halves the batch when the GPU's memory is too small."""
        try:
            return self._generate_together(rows, warp, max_new_tokens)
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
        # Outside the except block: the exception's frames hold the tensors that must go first.
        torch.cuda.empty_cache()
        half = len(rows) // 2
        print(f"out of GPU memory with {len(rows)} attempts at once: halving", file=sys.stderr)
        return self._generate(rows[:half], warp, max_new_tokens) + self._generate(rows[half:], warp, max_new_tokens)

    def _generate_together(self, rows: list[Row], warp: Warp, max_new_tokens: int) -> list[list[int]]:
        device = self.model.device
        padded = self.tokenizer.pad({"input_ids": [row.token_ids for row in rows]}, return_tensors="pt").to(device)
        start = padded["input_ids"].shape[1]
        draw = SeededDraw(rows, warp, start=start, steps=max_new_tokens, device=device)
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=self.end_ids,
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=True,
        )
        sequences = self.model.generate(
            input_ids=padded["input_ids"],
            attention_mask=padded["attention_mask"],
            generation_config=config,
            logits_processor=[draw],
        )
        return [list(ids) for ids in sequences[:, start:].tolist()]

    def _answer(self, token_ids: list[int]) -> dict[str, Any]:
        end = next((place for place, token in enumerate(token_ids) if token in self.end_ids), None)
        kept = token_ids if end is None else token_ids[: end + 1]
        text = self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        finish = "length" if end is None else "stop"
        return {"response": text, "finish_reason": finish, "completion_tokens": len(kept)}


def end_token_ids(of_config: int | list[int] | None, of_tokenizer: int | None) -> list[int]:
    """All tokens that end an attempt, of the generation settings and of the tokenizer."""
    listed = of_config if isinstance(of_config, list) else [of_config]
    ids = [token for token in (*listed, of_tokenizer) if token is not None]
    if not ids:
        raise ValueError("the model names no end token (eos_token)")
    return list(dict.fromkeys(ids))


def keep_stdout_for_protocol() -> TextIO:
    """The real stdout; whatever a library prints goes to the log instead."""
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return protocol


def main() -> int:
    """Serve until stdin closes. 0: asked to end; 1: lost while sampling; 2: the checkpoint cannot be loaded."""
    children.end_with_the_run()
    protocol = keep_stdout_for_protocol()
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    path = parser.parse_args().model
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    def say(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=protocol, flush=True)

    try:
        sampler = Sampler(path)
    except Exception as error:
        traceback.print_exc()
        say({"error": f"it cannot be loaded ({_in_a_line(error)})"})
        return 2
    say(sampler.facts())
    for line in sys.stdin:
        try:
            rows = sampler.reply(json.loads(line))
        except Exception as error:
            traceback.print_exc()
            say({"error": _in_a_line(error)})
            return 1
        say({"rows": rows})
    return 0


def _in_a_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]


if __name__ == "__main__":
    sys.exit(main())
