"""Decoding that keeps its batch full: a row that ends gives its seat to the next attempt at once.

A prompt is read once for all its attempts, and attempts that have drawn the same tokens so far share a slot, which is
computed once: they part, each with a copy of what was computed, where they draw different tokens. Each slot's keys and
values begin at index 0 of a cache that is written in place, so a row's numbers do not depend on its neighbours: neither
on how many there are nor on their lengths. On a CPU the logits are equal to the bit. Kernels are chosen by shape, so
slots are padded to multiples of ROWS (with fewer, and with the rest of a division among threads, other kernels
multiply) and lengths to multiples of STRIDE.
Left out: paged memory. A slot holds as many positions as the longest row so far, and there is one for each seat, since
all rows may part; a batch too large for the GPU's memory is halved and its attempts begin again.
"""

from __future__ import annotations

import inspect
import sys
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from prosetting.collectors.token_draw import Row, Warp, draw, uniform_numbers

ROWS = 4
STRIDE = 16
PREFILL_TOKENS = 1024
PREFILL_PROMPTS = 16


def fits(model: PreTrainedModel) -> bool:
    """Whether the model attends to all earlier tokens through a mask that it is given, and keeps nothing else.

    Not so: sliding windows, state-space and hybrid layers, positions that are taken from a two-dimensional mask.
    """
    takes = inspect.signature(model.forward).parameters
    return (
        model._supports_attention_backend
        and {"position_ids", "past_key_values", "logits_to_keep"} <= takes.keys()
        and all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)
    )


class SlotCache(Cache):
    """Keys and values, for each layer (slot, head, position, channel). `at` says where the next ones go."""

    def __init__(self, slots: int) -> None:
        super().__init__(layers=[])
        self._slots = slots
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._places = torch.empty(0, dtype=torch.long)  # counted through slots, heads and positions
        self._length = 0

    def at(self, positions: torch.Tensor, length: int) -> None:
        """Row i's next key goes to `positions[i]` of slot i; keys up to `length` are given to attention."""
        self._grow(length)
        self._length = length
        _, heads, have, _ = self._keys[0].shape
        of_heads = torch.arange(len(positions) * heads, device=positions.device) * have
        self._places = of_heads + positions.repeat_interleave(heads)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep a step's keys and values, (row, head, 1, channel); all so far, (row, head, length, channel)."""
        found = []
        for kept, states in ((self._keys[layer_idx], key_states), (self._values[layer_idx], value_states)):
            kept.flatten(0, 2).index_copy_(0, self._places.to(kept.device), states.flatten(0, 2))
            found.append(kept[: len(states), :, : self._length])
        return found[0], found[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._length

    def put(self, slots: list[int], prompts: list[int], read: DynamicCache) -> None:
        """Copy what was `read` of prompts into slots."""
        if not self._keys:
            self._keys = [self._empty(layer.keys, 0) for layer in read.layers]
            self._values = [self._empty(layer.values, 0) for layer in read.layers]
        length = read.get_seq_length()
        self._grow(length)
        for keys, values, layer in zip(self._keys, self._values, read.layers, strict=True):
            keys[slots, :, :length] = layer.keys[prompts]
            values[slots, :, :length] = layer.values[prompts]

    def copy(self, sources: Any, targets: Any, length: int) -> None:
        """Copy slots over others, their first `length` positions."""
        for states in (*self._keys, *self._values):
            states[targets, :, :length] = states[sources, :, :length]

    def _grow(self, length: int) -> None:
        for kept in (self._keys, self._values):
            for layer, states in enumerate(kept):
                have = states.shape[2]
                if have < length:
                    kept[layer] = self._empty(states, max(length, have + have // 2))
                    kept[layer][:, :, :have] = states

    def _empty(self, like: torch.Tensor, length: int) -> torch.Tensor:
        # Zeros: a masked value still takes part as 0 × value, and memory as it comes may hold NaN.
        return like.new_zeros(self._slots, like.shape[1], length, like.shape[3])


@dataclass(slots=True)
class _Ready:
    """Prompts that were read, and the rows that wait for a slot; `rows` has each row's prompt beside it."""

    rows: deque[tuple[int, Row]]
    read: DynamicCache
    logits: torch.Tensor  # of each prompt's first new token, (prompt, vocabulary)


class SlotDecoder:
    """Draws up to `seats` attempts at a time. `add` gives it rows, each `step` gives those that ended."""

    def __init__(self, model: PreTrainedModel, end_ids: list[int], seats: int) -> None:
        self._model = model
        self._end_ids = np.array(end_ids)
        self._waiting: deque[Row] = deque()
        self._ended: list[tuple[Row, list[int]]] = []
        self._make_seats(seats)

    def _make_seats(self, seats: int) -> None:
        self._cache = SlotCache(_padded(seats, ROWS))
        self._ready: _Ready | None = None
        # Of each seat: its row, where it is computed, and the numbers that draw its tokens.
        self._rows: list[Row | None] = [None] * seats
        self._taken = np.zeros(seats, dtype=bool)
        self._slots = np.zeros(seats, dtype=np.int64)
        self._rooms = np.zeros(seats, dtype=np.int64)
        self._uniform = np.zeros((seats, 0))
        # Of each slot: whether any seat is in it, positions in the cache, and the tokens drawn.
        self._live = np.zeros(seats, dtype=bool)
        self._lengths = np.zeros(_padded(seats, ROWS), dtype=np.int64)
        self._steps = np.zeros(seats, dtype=np.int64)
        self._drawn = np.zeros((seats, 0), dtype=np.int64)

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._ready or self._live.any())

    def add(self, row: Row) -> None:
        """Rows of one prompt one after the other: it is then read once."""
        self._waiting.append(row)

    def clear(self) -> None:
        """Forget all rows."""
        self._waiting.clear()
        self._ended.clear()
        self._make_seats(len(self._rows))

    @torch.inference_mode()
    def step(self, warp: Warp) -> list[tuple[Row, list[int]]]:
        """Fill the free seats and draw one more token in each; the rows that ended, with their tokens.

        Raises torch.OutOfMemoryError when the memory is too small for a single row.
        """
        try:
            self._fill(warp)
            self._close_gaps()
            if self._live.any():
                self._decode(warp)
        except torch.OutOfMemoryError:
            if len(self._rows) == 1:
                raise
            fits = False
        else:
            fits = True
        # Outside the except block: the exception's frames hold the tensors that must go first.
        if not fits:
            self._halve()
        ended, self._ended = self._ended, []
        return ended

    def _fill(self, warp: Warp) -> None:
        """A first token may end a row, so there may be free seats again."""
        while (self._waiting or self._ready) and not self._taken.all():
            ready = self._ready or self._read_prompts()
            free = np.flatnonzero(~self._taken)
            rows = [ready.rows.popleft() for _ in range(min(len(free), len(ready.rows)))]
            self._ready = ready if ready.rows else None
            prompts = np.array([prompt for prompt, _ in rows])
            read, of_rows = np.unique(prompts, return_inverse=True)
            slots = np.flatnonzero(~self._live)[: len(read)]
            seats = free[: len(rows)]
            for seat, slot, (_, row) in zip(seats.tolist(), slots[of_rows].tolist(), rows, strict=True):
                self._seat(seat, slot, row)
            self._cache.put(slots.tolist(), read.tolist(), ready.read)
            self._record(seats, ready.logits[prompts], warp)

    def _read_prompts(self) -> _Ready:
        """Run the next prompts through the model, padded on the right, where causal attention never looks."""
        prompts: list[tuple[int, ...]] = []
        rows: deque[tuple[int, Row]] = deque()
        while self._waiting:
            row = self._waiting[0]
            if not prompts or row.token_ids != prompts[-1]:
                longest = _padded(max(len(row.token_ids), *map(len, prompts), 0), STRIDE)
                if prompts and (len(prompts) == PREFILL_PROMPTS or longest * (len(prompts) + 1) > PREFILL_TOKENS):
                    break
                prompts.append(row.token_ids)
            rows.append((len(prompts) - 1, self._waiting.popleft()))
        self._ready = _Ready(rows, DynamicCache(config=self._model.config), torch.empty(0))
        width = _padded(max(map(len, prompts)), STRIDE)
        input_ids = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in prompts])
        last = np.array([len(ids) - 1 for ids in prompts])
        kept = np.unique(last)
        device = self._model.device
        logits = self._model(
            input_ids=input_ids.to(device),
            position_ids=torch.arange(width, device=device)[None].expand(len(prompts), -1),
            past_key_values=self._ready.read,
            use_cache=True,
            logits_to_keep=torch.from_numpy(np.resize(kept, _padded(len(kept), ROWS))).to(device),
        ).logits
        self._ready.logits = logits[torch.arange(len(prompts)), torch.from_numpy(np.searchsorted(kept, last))]
        return self._ready

    def _seat(self, seat: int, slot: int, row: Row) -> None:
        if row.room > self._drawn.shape[1]:
            wider = ((0, 0), (0, row.room - self._drawn.shape[1]))
            self._drawn, self._uniform = np.pad(self._drawn, wider), np.pad(self._uniform, wider)
        self._rows[seat], self._taken[seat], self._slots[seat], self._rooms[seat] = row, True, slot, row.room
        self._uniform[seat, : row.room] = uniform_numbers(row)
        self._live[slot], self._lengths[slot], self._steps[slot] = True, len(row.token_ids), 0

    def _decode(self, warp: Warp) -> None:
        """One forward pass over the first slots, which are all that are live."""
        count = int(self._live.sum())
        width = _padded(count, ROWS)
        slots = np.arange(count)
        tokens = np.zeros(width, dtype=np.int64)
        tokens[:count] = self._drawn[slots, self._steps[:count] - 1]
        self._lengths[count:] = 0
        length = _padded(int(self._lengths.max()) + 1, STRIDE)
        device = self._model.device
        positions = torch.from_numpy(self._lengths[:width].copy()).to(device)[:, None]
        self._cache.at(positions[:, 0], length)
        hidden = torch.arange(length, device=device) > positions
        mask = torch.zeros(hidden.shape, dtype=self._model.dtype, device=device)
        mask.masked_fill_(hidden, torch.finfo(mask.dtype).min)
        logits = self._model(
            input_ids=torch.from_numpy(tokens).to(device)[:, None],
            attention_mask=mask[:, None, None],
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        self._lengths[:count] += 1
        seats = np.flatnonzero(self._taken)
        self._record(seats, logits[:, -1][self._slots[seats]], warp)

    def _record(self, seats: Any, logits: torch.Tensor, warp: Warp) -> None:
        """Draw the next token of each seat, from `logits` (seat, vocabulary), and free the seats of rows that ended."""
        steps = self._steps[self._slots[seats]]
        uniform = torch.from_numpy(self._uniform[seats, steps]).to(logits.device)
        tokens = draw(logits, uniform, warp).cpu().numpy()
        self._part(seats, tokens)
        slots = self._slots[seats]
        self._drawn[slots, steps] = tokens
        self._steps[slots] = steps + 1
        ended = np.isin(tokens, self._end_ids) | (steps + 1 == self._rooms[seats])
        for seat, slot in zip(seats[ended].tolist(), slots[ended].tolist(), strict=True):
            row = self._rows[seat]
            assert row is not None
            self._ended.append((row, self._drawn[slot, : self._steps[slot]].tolist()))
            self._rows[seat], self._taken[seat] = None, False
        self._live[slots[ended]] = False
        self._live[slots[~ended]] = True

    def _part(self, seats: Any, tokens: Any) -> None:
        """Give seats of one slot that drew different tokens slots of their own, with all that was computed so far."""
        slots = self._slots[seats]
        order = np.lexsort((tokens, slots))
        other_slot, other_token = np.diff(slots[order], prepend=-1) != 0, np.diff(tokens[order], prepend=-1) != 0
        begins = other_slot | other_token  # of the seats that drew one token in one slot
        parts = begins & ~other_slot
        if not parts.any():
            return
        sources = slots[order][parts]
        targets = np.flatnonzero(~self._live)[: len(sources)]
        self._cache.copy(sources, targets, int(self._lengths[sources].max()))
        for state in (self._live, self._lengths, self._steps, self._drawn):
            state[targets] = state[sources]
        moved = slots[order][begins]
        moved[parts[begins]] = targets
        self._slots[seats[order]] = moved[np.cumsum(begins) - 1]

    def _close_gaps(self) -> None:
        """Move the last live slots into free ones before them."""
        count = int(self._live.sum())
        gaps = np.flatnonzero(~self._live[:count])
        if not len(gaps):
            return
        last = count + np.flatnonzero(self._live[count:])
        self._cache.copy(last, gaps, int(self._lengths[last].max()))
        for state in (self._live, self._lengths, self._steps, self._drawn):
            state[gaps] = state[last]
        self._live[last] = False
        moved = np.arange(len(self._live))
        moved[last] = gaps
        self._slots = moved[self._slots]

    def _halve(self) -> None:
        """Begin all rows again in half the seats: they will be drawn as they would have been."""
        again = sorted((row for row in self._rows if row is not None), key=lambda row: row.key)
        again += [row for _, row in self._ready.rows] if self._ready else []
        self._waiting.extendleft(reversed(again))
        print(f"out of GPU memory with {len(self._rows)} attempts at once: halving", file=sys.stderr)
        self._make_seats(len(self._rows) // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _padded(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
