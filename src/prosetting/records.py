"""The nouns: what flows from one stage to the next. Frozen, typed, plain.

Axis legend, used as a suffix of names everywhere:
    Q  question of a pool      A  attempt at one question (0 … n−1)
    P  preference pair         R  round (1 … TOTAL_ROUNDS; 0 is the untrained base)
so `rewards_QA[q][a]` is the reward of attempt a at question q. Units are in names too (`timeout_s`).
"""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NewType

QuestionId = NewType("QuestionId", str)
GREEDY_ATTEMPT = -1
"""The attempt number of the greedy decoding that evaluation adds to the sampled ones."""
REFERENCE_ATTEMPT = -2
"""The attempt number of a question's own worked solution where it stands in for a correct attempt."""


class Stage(StrEnum):
    """The five stages of a round, under the names that users know from files and logs."""

    DATA_COLLECTION = "data_collection"
    DATA_GRADING = "data_grading"
    DPO_CONVERSION = "dpo_conversion"
    TRL_TRAINING = "trl_training"
    NEXT_ROUND_PREP = "next_round_prep"


class Verdict(StrEnum):
    """`unknown` is no verdict: such an attempt is never chosen, never rejected, and is tried again."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    UNKNOWN = "unknown"


DecidedBy = Literal["rules", "teacher1", "reward_function"]
PoolReason = Literal["seed", "enhanced", "failed_replay", "other_replay"]
QuestionKind = Literal["seed", "easier", "variant", "harder"]


def question_id_of(text: str) -> QuestionId:
    """The identity of a question: a hash of its normalised text (NFKC, runs of white space folded)."""
    normalised = " ".join(unicodedata.normalize("NFKC", text).split())
    return QuestionId(hashlib.sha256(normalised.encode()).hexdigest()[:16])


@dataclass(frozen=True, slots=True)
class Question:
    """One question, wherever it comes from.

    `reference` is the final answer that rules can compare with; without one Teacher1 decides.
    `solution` is a worked solution where the file carries one (GSM8K's annotated answer, MATH's solution).
    """

    question_id: QuestionId
    text: str
    reference: str | None = None
    solution: str | None = None
    kind: QuestionKind = "seed"
    parent_id: QuestionId | None = None


@dataclass(frozen=True, slots=True)
class PoolEntry:
    """A question's place in the pool of one round, and why it is there."""

    question: Question
    reason: PoolReason


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One attempt of the Solver at one question."""

    round: int
    question_id: QuestionId
    attempt: int
    response: str
    finish_reason: Literal["stop", "length"]
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Grade:
    """What is held of one attempt. `diagnosis` names the kind of mistake where it is known."""

    round: int
    question_id: QuestionId
    attempt: int
    verdict: Verdict
    decided_by: DecidedBy
    diagnosis: str = ""

    @property
    def reward(self) -> float | None:
        """1.0 correct, 0.0 incorrect, None unknown: an outage is not a zero."""
        return {Verdict.CORRECT: 1.0, Verdict.INCORRECT: 0.0, Verdict.UNKNOWN: None}[self.verdict]


@dataclass(frozen=True, slots=True)
class QuestionPairs:
    """The preference pairs of one question in one round, each completion held once.

    Pair p prefers `completions[chosen[p]]` to `completions[rejected[p]]`; `attempts` numbers the completions.
    Every completion is in a pair. A pair of one completion with itself is a supervised row: no preference, but an
    example for the sft loss.
    """

    prompt: str
    question_id: QuestionId
    round: int
    completions: tuple[str, ...]
    attempts: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    @property
    def attempt_pairs(self) -> list[tuple[int, int]]:
        """Chosen and rejected attempt number of each pair."""
        return [(self.attempts[c], self.attempts[r]) for c, r in zip(self.chosen, self.rejected, strict=True)]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The Solver's weights after a round: a plain Hugging Face model folder, or a hub name for the base."""

    round: int
    path: str
    trained: bool


@dataclass(frozen=True, slots=True)
class HeldoutScore:
    """Scores on held-out questions. `pass_at_1` is the mean of sampled attempts over questions,
    `pass_at_1_ci` its 95 % interval by resampling questions (bootstrap), `pass_at_k` the unbiased
    estimator of Chen et al. 2021 (arXiv 2107.03374) at k = attempts a question."""

    pass_at_1: float
    pass_at_1_ci: tuple[float, float]
    pass_at_k: float
    greedy: float
    questions: int
    samples: int


@dataclass(frozen=True, slots=True)
class JudgeHealth:
    """How far Teacher1 could be trusted in a round, where the right verdict is known: on canaries, and on a sample
    of what the rules decided, which it was given as well. `*_unknown` counts those left without a verdict."""

    canaries: int
    canaries_right: int
    canaries_unknown: int
    regraded: int
    regraded_agree: int
    regraded_unknown: int


@dataclass(frozen=True, slots=True)
class RoundSummary:
    """What one round came to, as the report and `auto_training_summary.json` tell it."""

    round: int
    trained: bool
    reason: str
    pairs: int
    supervised_rows: int
    questions: int
    average_reward: float | None
    decided_by: dict[str, int]
    unknown: int
    judge: JudgeHealth
    new_questions: dict[str, int]
    diversity: dict[str, float]
    pool: dict[str, int]
    heldout: HeldoutScore | None
    gate: dict[str, Any] | None
    """What ROUND_GATE decided and on which evidence; None where there was nothing to decide."""
    duration_seconds: float
    sources: dict[str, Any] = field(default_factory=dict)
    """The round's new questions by who wrote them (managers/question_sources.py)."""
    measured: dict[str, Any] = field(default_factory=dict)
    """How those of the round before went in this one, by who wrote them."""
    generator: dict[str, Any] | None = None
    """What the Generator's training came to, None without a Generator."""
