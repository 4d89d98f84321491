"""Are the weights after a training worse than those it started from? Pure: the same evidence, the same decision.

The score decides: a paired bootstrap on the pass rates of the held-out questions, one-sided at TAIL. Alarms stand
beside it. One of the weights (their answers, their log-probabilities) fails them too unless the score is surely better:
an answer that is half as long may be a better one. What answers are like is paired and bootstrapped as scores are: an
alarm needs a large change that is also a sure one. One of the data (the judge, the new questions) is only told: going
back to older weights would not mend it. How often the gate is wrong is measured by `benchmarks/round_gate.py` and
`benchmarks/round_gate_alarms.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prosetting.evaluation.comparison import Comparison, compare_rates
from prosetting.records import JudgeHealth, QuestionId

TAIL = 0.01
"""The chance that weights which are as good as before are called worse, and, at the other end, better."""
LOGP_GROWTH, LOGP_SLACK_NATS = 2.0, 2.0
"""The same chosen answers that are this much less likely after a training than before have collapsed: their mean
log-probability is beyond growth · before − slack."""
LEAST_LENGTH, LEAST_DISTINCT = 0.5, 0.5
"""Of what it was before: mean length of an answer in tokens, share of distinct answers among attempts at a question."""
MOST_UNPARSEABLE = 0.10
"""Rise of the share of attempts in which no answer can be read."""
MOST_DISAGREEMENT, MOST_WRONG, MOST_DUPLICATES, MOST_UNKNOWN = 0.10, 0.10, 0.50, 0.50
FEWEST = 10
"""Checks or questions below which a share of them is no alarm, and held-out questions below which nothing is decided by
them: a bootstrap over a few questions is too sure of itself."""


@dataclass(frozen=True, slots=True)
class AnswerFigures:
    """One checkpoint's sampled attempts at one held-out question: tokens an attempt, and shares of 0 to 1."""

    mean_tokens: float
    distinct_share: float
    unparseable_share: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known when a round's training has been scored. `training` are the trainer's own figures."""

    rates_before: Mapping[QuestionId, float]
    rates_after: Mapping[QuestionId, float]
    answers_before: Mapping[QuestionId, AnswerFigures]
    answers_after: Mapping[QuestionId, AnswerFigures]
    training: Mapping[str, float] = field(default_factory=dict)
    judge: JudgeHealth | None = None
    new_questions: int = 0
    duplicate_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """`comparison` is None where fewer than FEWEST questions were scored before and after: then only what the training
    says of itself can fail the weights."""

    comparison: Comparison | None
    alarms_of_weights: tuple[str, ...]
    alarms_of_data: tuple[str, ...]

    @property
    def failed(self) -> bool:
        """Whether the weights from before the training are the better ones to go on from."""
        found = self.comparison
        if found is not None and found.is_worse:
            return True
        return bool(self.alarms_of_weights) and not (found is not None and found.is_better)

    def told(self) -> str:
        """The evidence in one line."""
        return "; ".join([_told(self.comparison), *self.alarms_of_weights, *self.alarms_of_data])


def decide(evidence: Evidence, seed: int) -> Decision:
    """Compare the weights and look for alarms. `seed` is that of the bootstrap."""
    found = compare_rates(evidence.rates_before, evidence.rates_after, seed, level=1 - 2 * TAIL)
    if found is not None and found.questions < FEWEST:
        found = None
    alarms = [*_alarms_of_training(evidence.training)]
    if found is not None:
        alarms += _alarms_of_answers(evidence, seed)
    return Decision(found, tuple(alarms), tuple(_alarms_of_data(evidence)))


def _told(found: Comparison | None) -> str:
    if found is None:
        return f"fewer than {FEWEST} held-out questions were scored before and after: scores decide nothing"
    word = "worse" if found.is_worse else "better" if found.is_better else "no sure change"
    return (
        f"held-out pass rate {found.a:.3f} → {found.b:.3f}, change {found.change:+.3f}"
        f" [{found.low:+.3f}, {found.high:+.3f}] on {found.questions} questions: {word}"
    )


def _alarms_of_training(figures: Mapping[str, float]) -> Iterator[str]:
    before, after = figures.get("logps_before/chosen"), figures.get("logps_after/chosen")
    if before is not None and after is not None and -after > LOGP_GROWTH * -before + LOGP_SLACK_NATS:
        yield f"the log-probability of chosen answers collapsed: {before:.1f} → {after:.1f}"


def _alarms_of_answers(evidence: Evidence, seed: int) -> Iterator[str]:
    def compared(name: str) -> Comparison | None:
        before, after = (
            {question: getattr(figures, name) for question, figures in answers.items()}
            for answers in (evidence.answers_before, evidence.answers_after)
        )
        return compare_rates(before, after, seed, level=1 - 2 * TAIL)

    tokens, distinct, unparseable = map(compared, ("mean_tokens", "distinct_share", "unparseable_share"))
    if tokens and tokens.is_worse and tokens.b < LEAST_LENGTH * tokens.a:
        yield f"answers shrank from {tokens.a:.1f} to {tokens.b:.1f} tokens"
    if distinct and distinct.is_worse and distinct.b < LEAST_DISTINCT * distinct.a:
        yield f"attempts became alike: {distinct.a:.0%} → {distinct.b:.0%} distinct"
    if unparseable and unparseable.low > 0 and unparseable.change > MOST_UNPARSEABLE:
        yield f"answers cannot be read in {unparseable.b:.0%} of the attempts, before in {unparseable.a:.0%}"


def _alarms_of_data(evidence: Evidence) -> Iterator[str]:
    judge = evidence.judge
    if judge is not None:
        yield from _alarms_of_judge(judge)
    if evidence.new_questions >= FEWEST and evidence.duplicate_share > MOST_DUPLICATES:
        yield f"{evidence.duplicate_share:.0%} of Teacher2's {evidence.new_questions} questions repeat others"


def _alarms_of_judge(judge: JudgeHealth) -> Iterator[str]:
    decided = judge.regraded - judge.regraded_unknown
    disagreed = decided - judge.regraded_agree
    if decided >= FEWEST and disagreed > MOST_DISAGREEMENT * decided:
        yield f"Teacher1 disagrees with the rules on {disagreed} of {decided} attempts"
    wrong = judge.canaries - judge.canaries_right - judge.canaries_unknown
    if judge.canaries >= FEWEST and wrong > MOST_WRONG * judge.canaries:
        yield f"Teacher1 took {wrong} of {judge.canaries} canaries for what they are not"
    if judge.canaries >= FEWEST and judge.canaries_unknown > MOST_UNKNOWN * judge.canaries:
        yield f"Teacher1 left {judge.canaries_unknown} of {judge.canaries} canaries without a verdict"


def record_of(decision: Decision, action: str) -> dict[str, Any]:
    """The decision for the journal, JSON-ready. `action`: passed, warned or rolled_back."""
    found = decision.comparison
    return {
        "action": action,
        "kept": action != "rolled_back",
        "evidence": decision.told(),
        "change": found.change if found else None,
        "change_ci": [found.low, found.high] if found else None,
        "alarms": [*decision.alarms_of_weights, *decision.alarms_of_data],
    }
