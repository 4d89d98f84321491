"""Grade one attempt against a reference by rules: `correct` or `incorrect` only when sure, else `unknown`.

The order is: nothing said → extraction (`answer_extraction`) → exact comparison of spelling, numbers and
structure (`answer_comparison`) → algebra in a child process (`symbolic_client`), which plain numbers never start.
Left out on purpose: rounding (30.5 for 30.52), lenient brackets, synonyms of words; those stay `unknown`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from prosetting.processors.answer_boilerplate import says_nothing
from prosetting.processors.answer_comparison import compare_answers
from prosetting.processors.answer_extraction import (
    MAX_RESPONSE_CHARS,
    Extraction,
    extract,
    reference_answer,
)
from prosetting.processors.answer_forms import MAX_ANSWER_CHARS, is_constant, parse_number
from prosetting.processors.answer_numbers import compare_numbers
from prosetting.processors.answer_presence import carries_no_number
from prosetting.processors.symbolic_client import SymbolicAnswer, SymbolicClient
from prosetting.records import Verdict

VERIFIER_VERSION = "2"


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """What the rules say of one attempt, and in a few words why."""

    verdict: Verdict
    detail: str


class AnswerVerifier:
    """Rule-based grader; one instance may serve many threads. Close it, or use it in a `with` statement."""

    def __init__(self) -> None:
        self._symbolic = SymbolicClient()

    def verify(self, question: str, reference: str, response: str, *, cut_off: bool = False) -> RuleVerdict:
        """Compare the final answer of `response` with `reference` (plain, LaTeX, or a GSM8K solution).

        `cut_off`: the attempt was ended by the token limit. Then only a closed `\\boxed{}` or an answer that is
        followed by more text is taken: "A: 12" may be the head of "A: 120". An attempt that holds no answer is
        incorrect all the same, for it stated none.
        Raises `ConfigError` when the symbolic worker cannot start at all.
        """
        return self._verdict(question, reference, response, self._symbolic.relation, cut_off=cut_off)

    def verify_at_once(self, question: str, reference: str, response: str) -> RuleVerdict | None:
        """As `verify`, and None where that takes algebra: a child process is asked then, which may take seconds."""
        try:
            return self._verdict(question, reference, response, _take_no_time, cut_off=False)
        except _TakesAlgebra:
            return None

    def _verdict(
        self,
        question: str,
        reference: str,
        response: str,
        symbolic: Callable[[str, str], SymbolicAnswer],
        *,
        cut_off: bool,
    ) -> RuleVerdict:
        if max(len(reference), len(response)) > MAX_RESPONSE_CHARS:
            return RuleVerdict(Verdict.UNKNOWN, "too long to compare")
        expected = reference_answer(reference)
        if says_nothing(response, expected):
            return _NO_ANSWER
        if len(expected) > MAX_ANSWER_CHARS or not expected:
            return RuleVerdict(Verdict.UNKNOWN, "too long to compare" if expected else "no reference")
        if is_constant(expected) and carries_no_number(response):
            return RuleVerdict(Verdict.INCORRECT, "a number was asked for and none was given")
        extraction = extract(response, cut_off=cut_off)
        if extraction.kind == "conflict":
            return _verdict_of_conflict(expected, extraction)
        if extraction.kind != "found":
            return RuleVerdict(Verdict.UNKNOWN, extraction.reason)
        comparison = compare_answers(question, expected, extraction.answers[0], symbolic)
        return RuleVerdict(_VERDICTS[comparison.relation], comparison.reason)

    def close(self) -> None:
        """End the child process, if one was started."""
        self._symbolic.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _TakesAlgebra(Exception):
    pass


def _take_no_time(reference: str, response: str) -> SymbolicAnswer:
    raise _TakesAlgebra


_NO_ANSWER = RuleVerdict(Verdict.INCORRECT, "no answer in the response")
_VERDICTS = {"equal": Verdict.CORRECT, "different": Verdict.INCORRECT, "unsure": Verdict.UNKNOWN}


def _verdict_of_conflict(expected: str, extraction: Extraction) -> RuleVerdict:
    """Several answers: wrong for certain only where none of them can be the number asked for."""
    number = parse_number(expected)
    given = [parse_number(answer) for answer in extraction.answers]
    if number and all(item and compare_numbers(number, item, "") == "different" for item in given):
        return RuleVerdict(Verdict.INCORRECT, "several answers, none of them right")
    return RuleVerdict(Verdict.UNKNOWN, extraction.reason)
