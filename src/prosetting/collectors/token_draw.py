"""From logits to the next token: one uniform number inverts the cumulative distribution of the row.

Temperature, then top-p (Holtzman et al. 2020, arXiv 1904.09751). The token is a function of the row's logits and its
number alone, so an attempt does not depend on its neighbours. Weights are float32, their sums float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class Row:
    """One attempt to draw. `room`: how many new tokens it may have; `seed` None: greedy."""

    key: int
    token_ids: tuple[int, ...]
    seed: int | None
    room: int


@dataclass(frozen=True, slots=True)
class Warp:
    """How logits become the distribution that is sampled."""

    temperature: float
    top_p: float


GREEDY = -1.0  # in place of a uniform number


def uniform_numbers(row: Row) -> np.ndarray:
    """The numbers that draw a row's tokens, float64 (room,), from a generator of its own; GREEDY for a greedy row."""
    if row.seed is None:
        return np.full(row.room, GREEDY)
    return np.random.Generator(np.random.PCG64(row.seed)).random(row.room)


def draw(logits: torch.Tensor, uniform: torch.Tensor, warp: Warp) -> torch.Tensor:
    """The next tokens, (row,), of `logits` (row, vocabulary) and `uniform` (row,), float64 in [0, 1) or GREEDY."""
    scaled = logits.float() / warp.temperature
    weights = (scaled - scaled.amax(dim=-1, keepdim=True)).exp_()
    if warp.top_p < 1:
        weights = nucleus(weights, warp.top_p)
    cumulative = weights.cumsum(dim=-1, dtype=torch.float64)
    target = uniform.clamp(min=0)[:, None] * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp_(max=logits.shape[1] - 1)
    greedy = uniform == GREEDY
    return torch.where(greedy, logits.argmax(dim=-1), drawn) if greedy.any() else drawn


def nucleus(weights: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero all but the smallest set of tokens that has `top_p` of the weight. Shape (row, vocabulary)."""
    ordered, indices = weights.sort(dim=-1, descending=True)
    cumulative = ordered.cumsum(dim=-1, dtype=torch.float64)
    ordered[cumulative - ordered >= top_p * cumulative[:, -1:]] = 0
    return torch.zeros_like(weights).scatter_(1, indices, ordered)
