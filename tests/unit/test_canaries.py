"""Canaries: attempts whose verdict is beyond doubt, other ones for every batch."""

from __future__ import annotations

import pytest

from prosetting.processors.answer_verifier import AnswerVerifier
from prosetting.processors.canaries import CANARIES_A_BATCH, canaries
from prosetting.records import Verdict


@pytest.mark.parametrize("seed", range(20))
def test_the_expected_verdict_is_what_the_rules_say_of_the_number_in_the_box(seed: int) -> None:
    with AnswerVerifier() as verifier:
        for canary in canaries(seed, "train-1-0.0"):
            answer = canary.response.partition("\\boxed{")[2].partition("}")[0]
            found = verifier.verify(canary.question.text, str(canary.question.reference), f"\\boxed{{{answer}}}")
            assert found.verdict is canary.expected


def test_a_batch_has_a_right_a_wrong_and_a_pleading_wrong_attempt() -> None:
    planted = canaries(1, "a")
    assert len(planted) == CANARIES_A_BATCH
    assert [canary.expected for canary in planted] == [Verdict.CORRECT, Verdict.INCORRECT, Verdict.INCORRECT]
    assert not planted[1].response.partition("}")[2]
    assert planted[2].response.partition("}")[2].strip()


def test_each_batch_has_its_own_canaries_and_a_resumed_run_the_same() -> None:
    def texts(name: str) -> set[str]:
        return {canary.question.text + canary.response for canary in canaries(7, name)}

    assert texts("train-1-0.0") == texts("train-1-0.0")
    assert texts("train-1-0.0").isdisjoint(texts("train-1-0.1"))
    assert texts("train-1-0.0").isdisjoint(texts("train-1-1.0"))
