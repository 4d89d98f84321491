"""The child process that samples: a checkpoint in transformers, JSON lines in and out (sampler_protocol.py).

An attempt depends on (model, prompt, seed) and not on its neighbours in the batch: see slot_decoder.py.
On a GPU the checkpoint's own dtype is kept, on the CPU it is float32.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # until they are frozen: libraries are no garbage, and to look for some is a quarter of their loading

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from prosetting.collectors.chunk_decoder import ChunkDecoder
from prosetting.collectors.sampler_protocol import Requests, in_a_line, keep_stdout_for_protocol
from prosetting.collectors.slot_decoder import SlotDecoder, fits
from prosetting.collectors.token_draw import Row, Warp
from prosetting.core import children


class Sampler:
    """A loaded checkpoint, its tokenizer, and the decoder that draws from it in `slots` slots."""

    def __init__(self, path: str, slots: int, *, trust_remote_code: bool = False) -> None:
        on_gpu = torch.cuda.is_available()
        if os.environ.get("CUDA_VISIBLE_DEVICES") and not on_gpu:
            raise RuntimeError("a GPU is asked for, but this torch sees none (is it a CPU-only torch?)")
        self.tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
        several = torch.cuda.device_count() > 1
        self.model = AutoModelForCausalLM.from_pretrained(
            path,
            dtype="auto" if on_gpu else torch.float32,
            device_map="auto" if several else None,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
        ).eval()
        if on_gpu and not several:
            self.model = self.model.to("cuda")
        self.end_ids = end_token_ids(self.model.generation_config.eos_token_id, self.tokenizer.eos_token_id)
        # What the run samples with are its own settings alone: no top-k or penalty that a checkpoint suggests.
        self.model.generation_config = GenerationConfig()
        self.max_positions = int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 0) or 0)
        kind = SlotDecoder if fits(self.model) else ChunkDecoder
        self.decoder: SlotDecoder | ChunkDecoder = kind(self.model, self.end_ids, slots)
        self._prompt: tuple[str, tuple[int, ...]] = ("", ())

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

    def row(self, request: dict[str, Any], max_new_tokens: int) -> Row:
        """An attempt to draw. One near the model's last position gets fewer new tokens, and none beyond it."""
        token_ids = self._prompt_ids(request["prompt"])
        room = min(max_new_tokens, self.max_positions - len(token_ids)) if self.max_positions else max_new_tokens
        return Row(request["key"], token_ids, request["seed"], max(0, room))

    def answer(self, row: Row, token_ids: list[int]) -> dict[str, Any]:
        text = self.tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        finish = "stop" if token_ids and token_ids[-1] in self.end_ids else "length"
        return {"key": row.key, "response": text, "finish_reason": finish, "completion_tokens": len(token_ids)}

    def _prompt_ids(self, prompt: str) -> tuple[int, ...]:
        """Attempts at one prompt come one after the other, so the last one is kept."""
        if prompt != self._prompt[0] or not self._prompt[1]:
            self._prompt = prompt, self._encoded(prompt.encode("utf-8", errors="replace").decode())
        return self._prompt[1]

    def _encoded(self, text: str) -> tuple[int, ...]:
        if self.tokenizer.chat_template is None:
            return tuple(self.tokenizer(text)["input_ids"])
        turns = [{"role": "user", "content": text}]
        rendered = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return tuple(self.tokenizer(rendered, add_special_tokens=False)["input_ids"])


def end_token_ids(of_config: int | list[int] | None, of_tokenizer: int | None) -> list[int]:
    """All tokens that end an attempt, of the generation settings and of the tokenizer."""
    listed = of_config if isinstance(of_config, list) else [of_config]
    ids = [token for token in (*listed, of_tokenizer) if token is not None]
    if not ids:
        raise ValueError("the model names no end token (eos_token)")
    return list(dict.fromkeys(ids))


def serve(sampler: Sampler, requests: Requests, tell: Callable[[dict[str, Any]], None]) -> str | None:
    """Tell the rows of what is requested until another checkpoint is asked for, which is returned, None for none, or
    until no more can come, which raises EOFError."""
    decoder = sampler.decoder
    warp, max_new_tokens = Warp(1.0, 1.0), 0
    while True:
        ended: list[tuple[Row, list[int]]] = []
        for message in requests.here(wait=not decoder.busy):
            if "model" in message:
                return message["model"]
            if params := message.get("params"):
                decoder.clear()
                ended.clear()
                warp, max_new_tokens = Warp(params["temperature"], params["top_p"]), params["max_new_tokens"]
                continue
            row = sampler.row(message, max_new_tokens)
            if row.room:
                decoder.add(row)
            else:
                ended.append((row, []))
        ended += decoder.step(warp)
        if ended:
            tell({"rows": [sampler.answer(row, token_ids) for row, token_ids in ended]})


def next_model(requests: Requests) -> str:
    """The next checkpoint that is asked for."""
    while True:
        for message in requests.here(wait=True):
            if message.get("model"):
                return str(message["model"])


def main() -> int:
    """Serve until stdin closes. 0: asked to end; 1: lost while sampling; 2: the checkpoint cannot be loaded."""
    children.end_with_the_run()
    gc.freeze()
    gc.enable()
    say = keep_stdout_for_protocol()
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--trust-remote-code", action="store_true")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    requests, model = Requests.of(sys.stdin), arguments.model
    try:
        while True:
            try:
                sampler = Sampler(model, arguments.slots, trust_remote_code=arguments.trust_remote_code)
            except Exception as error:
                traceback.print_exc()
                say({"error": f"it cannot be loaded ({in_a_line(error)})"})
                return 2
            say(sampler.facts())
            model = serve(sampler, requests, say)
            del sampler
            gc.collect()  # a model refers to itself
            model = model or next_model(requests)
    except EOFError:
        return 0
    except Exception as error:
        traceback.print_exc()
        say({"error": in_a_line(error)})
    return 1


if __name__ == "__main__":
    sys.exit(main())
