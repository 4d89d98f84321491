"""What the round gate makes of the evidence: the score first, alarms beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from prosetting.config import Settings
from prosetting.evaluation.round_gate import FEWEST, AnswerFigures, Decision, Evidence, decide, record_of
from prosetting.managers.round_gate import what_it_cannot_do
from prosetting.records import JudgeHealth, QuestionId

FIGURES = AnswerFigures(mean_tokens=40.0, distinct_share=0.8, unparseable_share=0.02)
HEALTHY = JudgeHealth(30, 20, 10, regraded=120, regraded_agree=118, regraded_unknown=0)


def rates(value: float, questions: int = 60) -> dict[QuestionId, float]:
    """Every second question is solved more often, the others less."""
    return {QuestionId(f"q{n:03}"): value + (0.1 if n % 2 else -0.1) for n in range(questions)}


def answers(questions: int = 60, **changes: float) -> dict[QuestionId, AnswerFigures]:
    return dict.fromkeys(rates(0.5, questions), replace(FIGURES, **changes))


SAME = Evidence(rates(0.5), rates(0.5), answers(), answers(), {}, HEALTHY, new_questions=100, duplicate_share=0.1)


def decided(**changes: object) -> Decision:
    return decide(replace(SAME, **changes), seed=1)  # type: ignore[arg-type]


def test_weights_as_good_as_before_pass_without_an_alarm() -> None:
    found = decided()
    assert not found.failed
    assert (found.alarms_of_weights, found.alarms_of_data) == ((), ())
    assert "no sure change" in found.told()


def test_a_sure_fall_of_the_score_fails_the_weights_a_rise_does_not() -> None:
    assert decided(rates_after=rates(0.3)).failed
    assert not decided(rates_after=rates(0.7)).failed


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"training": {"logps_before/chosen": -20.0, "logps_after/chosen": -60.0}}, "collapsed"),
        ({"answers_after": answers(mean_tokens=15.0)}, "shrank"),
        ({"answers_after": answers(distinct_share=0.3)}, "alike"),
        ({"answers_after": answers(unparseable_share=0.2)}, "cannot be read"),
    ],
)
def test_an_alarm_of_the_weights_fails_them_unless_they_are_surely_better(change: dict[str, object], word: str) -> None:
    found = decided(**change)
    assert found.failed
    assert word in found.told()
    better = decided(**change, rates_after=rates(0.7))
    assert not better.failed
    assert word in better.told()


@pytest.mark.parametrize(
    "change",
    [
        {"training": {"logps_before/chosen": -20.0, "logps_after/chosen": -40.0}},
        {"training": {"logps_before/chosen": -0.5, "logps_after/chosen": -2.4}},
        {"training": {"loss": 0.4}},
        {"answers_after": answers(mean_tokens=25.0)},
        {"answers_after": answers(unparseable_share=0.1)},
    ],
)
def test_what_trainings_do_anyway_is_no_alarm(change: dict[str, object]) -> None:
    assert not decided(**change).alarms_of_weights


def test_what_a_few_answers_of_many_do_is_no_sure_change_and_no_alarm() -> None:
    """On the mean it is past the limit: one answer in eight was very long, one in eight cannot be read."""
    names = list(rates(0.5, 16))
    long = {name: replace(FIGURES, mean_tokens=2000.0 if name in names[:2] else 40.0) for name in names}
    unread = {name: replace(FIGURES, unparseable_share=1.0 if name in names[:2] else 0.02) for name in names}
    few = {"rates_before": rates(0.5, 16), "rates_after": rates(0.5, 16)}
    assert not decided(**few, answers_before=long, answers_after=answers(16)).alarms_of_weights
    assert not decided(**few, answers_after=unread).alarms_of_weights


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"judge": replace(HEALTHY, regraded_agree=100)}, "disagrees with the rules"),
        ({"judge": replace(HEALTHY, canaries_right=12)}, "canaries for what they are not"),
        ({"judge": replace(HEALTHY, canaries_right=10, canaries_unknown=20)}, "without a verdict"),
        ({"duplicate_share": 0.6}, "repeat others"),
    ],
)
def test_an_alarm_of_the_data_is_told_and_fails_no_weights(change: dict[str, object], word: str) -> None:
    found = decided(**change)
    assert not found.failed
    assert word in found.told()
    assert record_of(found, "passed")["alarms"]


def test_a_handful_of_checks_is_no_alarm() -> None:
    few = JudgeHealth(3, 0, 0, regraded=5, regraded_agree=0, regraded_unknown=0)
    assert not decided(judge=few, new_questions=4, duplicate_share=1.0).alarms_of_data


def test_without_a_question_scored_before_and_after_alarms_alone_decide() -> None:
    assert not decided(rates_before={}).failed
    assert decided(rates_before={}, training={"logps_before/chosen": -1.0, "logps_after/chosen": -9.0}).failed


def test_a_few_questions_decide_nothing_neither_by_scores_nor_by_answers() -> None:
    few: dict[str, Any] = {"rates_before": rates(0.5, FEWEST - 1), "rates_after": rates(0.1, FEWEST - 1)}
    few |= {"answers_after": answers(FEWEST - 1, mean_tokens=1.0)}
    found = decided(**few)
    assert not found.failed
    assert (found.comparison, found.alarms_of_weights) == (None, ())
    assert "fewer than 10" in found.told()
    assert decided(**few | {"rates_before": rates(0.5, FEWEST), "rates_after": rates(0.1, FEWEST)}).failed


@pytest.mark.parametrize(
    ("gate", "questions", "says"),
    [("warn", 0, "0 held-out"), ("rollback", FEWEST - 1, "9 held-out"), ("stop", FEWEST, ""), ("off", 0, "")],
)
def test_a_gate_that_cannot_decide_says_so_at_the_start(gate: Any, questions: int, says: str) -> None:
    told = what_it_cannot_do(Settings(round_gate=gate), questions)
    assert says in told
    assert bool(told) == bool(says)


def test_the_record_says_what_was_done_and_on_which_evidence() -> None:
    record = record_of(decided(rates_after=rates(0.3)), "rolled_back")
    assert record["action"] == "rolled_back"
    assert record["kept"] is False
    assert record["change"] == pytest.approx(-0.2)
    assert "0.500 → 0.300" in record["evidence"]
    assert record_of(decided(), "warned")["kept"] is True
