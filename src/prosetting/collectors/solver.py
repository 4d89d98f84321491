"""What the run asks of a Solver engine, and nothing of where it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from prosetting.records import QuestionId


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One attempt to draw. `prompt` is the user's turn; the engine applies the chat template.

    `seed` fixes the draw: the same model, prompt and seed give the same attempt. None decodes greedily.
    """

    question_id: QuestionId
    attempt: int
    prompt: str
    seed: int | None


@dataclass(frozen=True, slots=True)
class Sample:
    """One attempt drawn. `completion_tokens` counts the new tokens, the end token included."""

    question_id: QuestionId
    attempt: int
    response: str
    finish_reason: Literal["stop", "length"]
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How attempts are drawn."""

    max_new_tokens: int
    temperature: float
    top_p: float


class Solver(Protocol):
    """An engine that holds one checkpoint and draws attempts from it."""

    def sample(self, batch: Sequence[SampleRequest], params: SamplingParams) -> list[Sample]:
        """Draw a batch of attempts, in the order asked. Raises SolverError when the engine is lost."""
        ...

    def close(self) -> None:
        """End the engine and give its memory back. Safe to call twice."""
        ...
