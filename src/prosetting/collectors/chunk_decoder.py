"""Decoding by transformers' own `generate`, chunk by chunk, for models that `slot_decoder` does not fit.

A chunk ends with its longest row. Rows are padded on the left, so attempts depend on their neighbours as far as the
model's arithmetic does.
"""

from __future__ import annotations

import sys
from collections import deque

import numpy as np
import torch
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel

from prosetting.collectors.token_draw import Row, Warp, draw, uniform_numbers


class SeededDraw(LogitsProcessor):
    """Leaves, of each row's scores, only the token that its own number draws.

    `start`: tokens in the padded prompt, so that the step is the number of tokens generated so far.
    """

    def __init__(self, rows: list[Row], warp: Warp, *, start: int, device: torch.device) -> None:
        self._warp = warp
        self._start = start
        self._uniform = torch.from_numpy(np.stack([uniform_numbers(row) for row in rows])).to(device)  # (row, step)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores` (row, vocabulary) in, the same shape out."""
        drawn = draw(scores, self._uniform[:, input_ids.shape[1] - self._start], self._warp)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn[:, None], 0.0)


class ChunkDecoder:
    """Draws attempts in chunks of at most `slots`. `add` gives it rows, each `step` draws one chunk."""

    def __init__(self, model: PreTrainedModel, end_ids: list[int], slots: int) -> None:
        self._model = model
        self._end_ids = end_ids
        self._slots = slots
        self._waiting: deque[Row] = deque()

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def add(self, row: Row) -> None:
        self._waiting.append(row)

    def clear(self) -> None:
        """Forget all rows."""
        self._waiting.clear()

    @torch.inference_mode()
    def step(self, warp: Warp) -> list[tuple[Row, list[int]]]:
        """Draw a chunk: the next rows that have the same room, since a row must not be cut because of others.

        Raises torch.OutOfMemoryError when the memory is too small for a single row.
        """
        rows: list[Row] = []
        while self._waiting and len(rows) < self._slots and self._waiting[0].room == (rows or self._waiting)[0].room:
            rows.append(self._waiting.popleft())
        try:
            return self._generate(rows, warp) if rows else []
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
        # Outside the except block: the exception's frames hold the tensors that must go first.
        print(f"out of GPU memory with {len(rows)} attempts at once: halving", file=sys.stderr)
        self._slots = len(rows) // 2
        self._waiting.extendleft(reversed(rows))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return []

    def _generate(self, rows: list[Row], warp: Warp) -> list[tuple[Row, list[int]]]:
        start = max(len(row.token_ids) for row in rows)
        padding = [start - len(row.token_ids) for row in rows]
        ids = [[*[self._end_ids[0]] * pad, *row.token_ids] for pad, row in zip(padding, rows, strict=True)]
        mask = [[0] * pad + [1] * (start - pad) for pad in padding]
        device = self._model.device
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=rows[0].room,
            eos_token_id=self._end_ids,
            pad_token_id=self._end_ids[0],
            use_cache=True,
        )
        sequences = self._model.generate(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=config,
            logits_processor=[SeededDraw(rows, warp, start=start, device=device)],
        )
        return [(row, self._cut(drawn)) for row, drawn in zip(rows, sequences[:, start:].tolist(), strict=True)]

    def _cut(self, token_ids: list[int]) -> list[int]:
        end = next((place for place, token in enumerate(token_ids) if token in self._end_ids), len(token_ids))
        return token_ids[: end + 1]
