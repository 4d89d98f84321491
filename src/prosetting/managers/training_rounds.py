"""Of which rounds a training uses the data: gathered until it is used once, on-policy, or all of it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet

TrainingRounds = Callable[[int, AbstractSet[int]], list[int]]
"""From the round that trains and the rounds that earlier trainings used to those that this one uses, in their order."""


def untrained(round_: int, used: AbstractSet[int]) -> list[int]:
    """Its own and those that only gathered data: each pair is trained on once."""
    return [earlier for earlier in range(1, round_ + 1) if earlier not in used]


def own_round(round_: int, used: AbstractSet[int]) -> list[int]:
    """Its own: attempts of the weights that are trained, and no others."""
    return [round_]


def every_round(round_: int, used: AbstractSet[int]) -> list[int]:
    """All so far, again in each training."""
    return list(range(1, round_ + 1))


TRAIN_ON: dict[str, TrainingRounds] = {"untrained": untrained, "round": own_round, "all": every_round}
"""By TRAIN_ON. When to use which: docs/strategies.md."""
