"""Teacher1 as a judge that is itself watched: what it says must fit the attempt's own text and the right answer, and
it must get the canaries right. One verdict that cannot be trusted becomes `unknown`; one failed canary pauses the run.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from prosetting.core.concurrency import for_each, in_thread
from prosetting.core.text import words
from prosetting.errors import RunPaused, TeacherReplyError
from prosetting.processors.answer_extraction import may_be_right
from prosetting.processors.answer_verifier import AnswerVerifier
from prosetting.processors.canaries import Canary, canaries
from prosetting.records import DecidedBy, Question, QuestionId, Verdict
from prosetting.teachers.base import GradeReply, Teacher

MAX_EVIDENCE_CHARS = 400
OWN_ANSWERS_KEPT = 10_000
_NOT_SAID = re.compile(r"[\W_]+")
_LAYOUT = re.compile(r"\\(?:text\w*|math\w+|d?frac|boxed|left|right|quad|displaystyle)(?![a-zA-Z])")
_DIGITS = re.compile(r"\d+")
_LITTLE_WORDS = frozenset("a an the is are be it its of to and or as in on this that".split())  # noqa: SIM905


class Decision(NamedTuple):
    """A verdict, who gave it, and why."""

    verdict: Verdict
    decided_by: DecidedBy
    diagnosis: str


class JudgeCheck(NamedTuple):
    """What Teacher1 said of an attempt whose verdict is known. `unknown` fails no check, but is counted."""

    name: str
    expected: Verdict
    verdict: Verdict
    evidence: str


class TeacherJudge:
    """Asks Teacher1 about attempts, and about canaries before each batch of them."""

    def __init__(self, teacher: Teacher, verifier: AnswerVerifier, run_seed: int) -> None:
        self._teacher = teacher
        self._verifier = verifier
        self._run_seed = run_seed
        self._own_answers: dict[QuestionId, str | None] = {}
        # One: the child compares one pair at a time, and who waits for it takes no thread that others need.
        self._algebra = ThreadPoolExecutor(max_workers=1, thread_name_prefix="algebra")

    async def decide(self, question: Question, response: str) -> Decision:
        """Teacher1's verdict; `unknown` when no usable reply came or the reply contradicts the text.

        Where the question has no reference, what the teacher answers to it without seeing any attempt stands in.
        """
        try:
            expected = question.reference or await self._own_answer(question)
            reply = await self._teacher.grade(question, response)
        except TeacherReplyError as error:
            return Decision(Verdict.UNKNOWN, "teacher1", str(error))
        if doubt := await self._doubt(question, expected, response, reply):
            return Decision(Verdict.UNKNOWN, "teacher1", doubt)
        return Decision(reply.verdict, "teacher1", reply.diagnosis)

    async def check(self, batch: str, record: Callable[[JudgeCheck], None]) -> None:
        """Put the canaries of a batch to the judge, before its attempts. Raises RunPaused when one is failed.

        `record` gets every outcome, also the failed one.
        """
        failed: list[tuple[Canary, JudgeCheck]] = []

        async def ask(canary: Canary) -> None:
            outcome = await self.ask_known(canary.name, canary.question, canary.response, canary.expected)
            record(outcome)
            if outcome.verdict not in (canary.expected, Verdict.UNKNOWN):
                failed.append((canary, outcome))

        planted = canaries(self._run_seed, batch)
        await for_each(planted, ask, limit=len(planted))
        if failed:
            raise _failed_canary(*failed[0])

    async def ask_known(self, name: str, question: Question, response: str, expected: Verdict) -> JudgeCheck:
        """The judge's own word on an attempt whose verdict is known."""
        try:
            reply = await self._teacher.grade(question, response)
        except TeacherReplyError as error:
            return JudgeCheck(name, expected, Verdict.UNKNOWN, str(error))
        said = f"{reply.verdict}; final answer {reply.final_answer!r}; {reply.diagnosis}"
        evidence = f"question {question.text!r}, reference {question.reference!r}, attempt {response!r}; said {said}"
        return JudgeCheck(name, expected, reply.verdict, evidence[: 4 * MAX_EVIDENCE_CHARS])

    async def _own_answer(self, question: Question) -> str | None:
        if question.question_id not in self._own_answers:
            answer = await self._teacher.solve(question.text)
            if len(self._own_answers) >= OWN_ANSWERS_KEPT:
                self._own_answers.clear()
            self._own_answers[question.question_id] = answer
        return self._own_answers[question.question_id]

    async def _doubt(self, question: Question, expected: str | None, response: str, reply: GradeReply) -> str:
        """Why this verdict cannot stand beside the text and the expected answer; empty when it can."""
        if reply.verdict is Verdict.UNKNOWN:
            return reply.diagnosis or "the teacher cannot tell"
        answer, correct = reply.final_answer, reply.verdict is Verdict.CORRECT
        if not correct:
            agrees = answer and expected and await self._by_rules(question, expected, answer) is Verdict.CORRECT
            return f"called incorrect, but by rules its answer {answer!r} is the right one"[:120] if agrees else ""
        if answer is None or not is_said_in(answer, response):
            return "called correct, but the final answer that the teacher names is not in the attempt"
        if expected is None:
            return "called correct, but the teacher cannot answer the question itself"
        if not may_be_right(expected, response):
            return "called correct, but the right value is nowhere in the attempt"
        by_rules = await self._by_rules(question, expected, answer)
        if by_rules is Verdict.INCORRECT or (by_rules is Verdict.UNKNOWN and not share_a_word(expected, answer)):
            return f"called correct, but its answer {answer!r} has nothing of the right one"[:120]
        return ""

    async def _by_rules(self, question: Question, expected: str, answer: str) -> Verdict:
        """Algebra takes a thread: all calls and all sampling would wait for it on the event loop."""
        compared = question.text, expected, f"\\boxed{{{answer}}}"
        ruled = self._verifier.verify_at_once(*compared)
        if ruled is None:
            ruled = await in_thread(lambda: self._verifier.verify(*compared), executor=self._algebra)
        return ruled.verdict


def share_a_word(expected: str, answer: str) -> bool:
    """Whether two answers have a word or a number in common, LaTeX's layout and little words aside."""
    return not _telling_words(expected).isdisjoint(_telling_words(answer))


def _telling_words(text: str) -> set[str]:
    text = _LAYOUT.sub(" ", text)
    return {*words(text), *_DIGITS.findall(text)} - _LITTLE_WORDS


def is_said_in(answer: str, response: str) -> bool:
    """Whether a quoted answer stands in the attempt, punctuation and spaces aside."""
    quoted = _bare(answer)
    return bool(quoted) and quoted in _bare(response)


def _bare(text: str) -> str:
    return _NOT_SAID.sub("", unicodedata.normalize("NFKC", text)).casefold()


def _failed_canary(canary: Canary, outcome: JudgeCheck) -> RunPaused:
    shown = (
        canary.response if len(canary.response) <= MAX_EVIDENCE_CHARS else canary.response[:MAX_EVIDENCE_CHARS] + "…"
    )
    return RunPaused(
        f"Teacher1 failed a canary, an attempt whose verdict is known: it said {outcome.verdict}, right is"
        f" {canary.expected}.\n    question:  {canary.question.text}\n    reference: {canary.question.reference}\n"
        f"    attempt:   {shown!r}\n    its reply: {outcome.evidence.rpartition('said ')[2][:MAX_EVIDENCE_CHARS]}",
        next_step="nothing of this batch was graded. Look at the model behind TEACHER_BASE_URL (its chat template, "
        "its size, its instructions); the same command goes on with fresh canaries",
    )
