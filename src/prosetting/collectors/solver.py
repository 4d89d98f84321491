"""What the run asks of a Solver engine, and nothing of where it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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

    def sample(self, requests: Iterable[SampleRequest], params: SamplingParams) -> Iterator[Sample]:
        """Draw attempts: each is yielded as it is finished, in any order.

        `requests` is read in the caller's thread, as there is room: at most about two batches ahead of what was
        yielded. Attempts at one prompt should come one after the other, so that the prompt is read once. When
        `requests` ends, what is in flight is finished. An iterator that is left early leaves its attempts in flight
        undrawn. Raises SolverError when the engine is lost or closed; what was yielded before stays good.
        """
        ...

    def load(self, model: str | None) -> bool:
        """Hold this checkpoint (a folder or a hub name) from now on, or none and its memory free, in the process that
        is there already. False where that takes a new engine: this one is to be closed. Nothing may be in flight."""
        return False

    def close(self) -> None:
        """End the engine and give its memory back. Safe to call twice, and from another thread: `sample` then raises
        SolverError."""
        ...
