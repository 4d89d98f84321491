"""What teacher calls may cost: prices, token estimates, and the limit at which the run pauses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prosetting.core.journal_rows import TeacherTotals
from prosetting.errors import RunPaused

_CHARACTERS_OF_A_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one reply."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens)


@dataclass(frozen=True, slots=True)
class Prices:
    """Currency for a million tokens."""

    prompt: float
    completion: float

    def cost(self, usage: Usage) -> float:
        return (usage.prompt_tokens * self.prompt + usage.completion_tokens * self.completion) / 1e6


def estimated_tokens(characters: int) -> int:
    """For a server that does not count: about right for English, too low for most other scripts."""
    return -(-characters // _CHARACTERS_OF_A_TOKEN)


class Budget:
    """The limits of all teachers together. `spent` is what the journal holds from before."""

    def __init__(
        self, *, max_tokens: int | None = None, max_cost: float | None = None, spent: TeacherTotals | None = None
    ) -> None:
        self._max_tokens = max_tokens
        self._max_cost = max_cost
        self._tokens = spent.prompt_tokens + spent.completion_tokens if spent else 0
        self._cost = (spent.cost or 0.0) if spent else 0.0
        self._in_flight = 0
        self._idle = asyncio.Event()

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Around one HTTP call. Raises RunPaused, once the calls in flight have ended, when the budget is spent:
        they are paid for, and the error would cancel them."""
        if self._limit_reached():
            while self._in_flight:
                self._idle.clear()
                await self._idle.wait()
            raise RunPaused(
                f"the teachers' budget is spent: {self._limit_reached()}",
                next_step="raise {} and run the same command again; what was graded stays".format(
                    " and ".join(self._settings_to_raise())
                ),
            )
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    def add(self, usage: Usage, cost: float | None) -> None:
        """Count what a reply has cost, usable or not."""
        self._tokens += usage.prompt_tokens + usage.completion_tokens
        self._cost += cost or 0.0

    def _settings_to_raise(self) -> list[str]:
        tokens = self._max_tokens is not None and self._tokens >= self._max_tokens
        cost = self._max_cost is not None and self._cost >= self._max_cost
        return ["TEACHER_MAX_TOKENS_TOTAL"] * tokens + ["TEACHER_MAX_COST"] * cost

    def _limit_reached(self) -> str:
        """What was spent of which limit; empty while there is something left of every one."""
        said = {
            "TEACHER_MAX_TOKENS_TOTAL": f"{self._tokens} tokens of TEACHER_MAX_TOKENS_TOTAL={self._max_tokens}",
            "TEACHER_MAX_COST": f"a cost of {self._cost:.6g} of TEACHER_MAX_COST={self._max_cost}",
        }
        return ", ".join(said[name] for name in self._settings_to_raise())
