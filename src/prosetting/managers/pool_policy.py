"""Which questions the next round plays. Pure functions, one dict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prosetting.records import PoolReason, QuestionId


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the next pool may be made of: Teacher2's admitted questions, and the round's own with and without an
    incorrect attempt, each in the order that the run's seed draws. The shares are REPLAY_FAILED_SHARE and
    REPLAY_OTHER_SHARE."""

    new: Sequence[QuestionId]
    failed: Sequence[QuestionId]
    others: Sequence[QuestionId]
    failed_share: float
    other_share: float


Entries = list[tuple[QuestionId, PoolReason]]


@dataclass(frozen=True, slots=True)
class PoolPolicy:
    """`choose` gives the pool, the most important first: MAX_POOL_QUESTIONS cuts the rest off. Where `asks_teacher2` is
    false, no new questions are written and paid for."""

    choose: Callable[[Candidates], Entries]
    asks_teacher2: bool = True


def new_and_replays(found: Candidates) -> Entries:
    """The new questions, then a share of the failed and of the other ones."""
    return [
        *((question_id, "enhanced") for question_id in found.new),
        *((question_id, "failed_replay") for question_id in _share(found.failed, found.failed_share)),
        *((question_id, "other_replay") for question_id in _share(found.others, found.other_share)),
    ]


def same_questions(found: Candidates) -> Entries:
    """The questions of this round again, whatever became of them."""
    return [
        *((question_id, "failed_replay") for question_id in found.failed),
        *((question_id, "other_replay") for question_id in found.others),
    ]


def _share(questions: Sequence[QuestionId], share: float) -> Sequence[QuestionId]:
    return questions[: round(share * len(questions))]


POOL_POLICIES: dict[str, PoolPolicy] = {
    "replay": PoolPolicy(new_and_replays),
    "fixed": PoolPolicy(same_questions, asks_teacher2=False),
}
"""By POOL_POLICY. When to use which: docs/strategies.md."""
