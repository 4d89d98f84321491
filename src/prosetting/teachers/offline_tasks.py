"""What the embedded teacher knows: the four tasks of the contract, worked out exactly or declined. Pure.

It knows the stories of `families` completely and can rewrite worked solutions with GSM8K's calculator
annotations (Cobbe et al. 2021, arXiv 2110.14168). Elsewhere it compares clear final numbers and otherwise
says that it cannot tell. Randomness comes from the request's own content: the same request, the same reply.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, cast

from prosetting.records import QuestionKind
from prosetting.teachers import annotated
from prosetting.teachers.arithmetic import Diagnosis
from prosetting.teachers.families import understand
from prosetting.teachers.prompts import PROMPT_VERSION, Task

_NUMBER = re.compile(r"(-?)\$? ?(-?)(\d{1,3}(?:,\d{3})+|\d{1,30})(\.\d{1,30})?(?:/([1-9]\d{0,29}))?", re.ASCII)
_BOX = re.compile(r"\\boxed\s*\{([^{}]{0,80})\}")
_ANSWER_LINE = re.compile(r"(?:####|(?:so |thus |therefore,? )?(?:the )?(?:final )?answer(?: is|:))[ ]*(.{1,60})", re.I)
_DOUBT = re.compile(r"(?:\bnot|n't|\bor|≠)\W*\Z", re.I)
_ANSWER_WORDS = re.compile(r"####|answer", re.I)

_ADVICE = {
    Diagnosis.WRONG_OPERATION: "adds where the story takes away, or the reverse: practise what each verb does",
    Diagnosis.CARRY: "forgets a carry or a borrow: practise sums that pass a ten",
    Diagnosis.SLIP: "is off by one or two: practise small sums exactly",
    Diagnosis.COPIED_WRONGLY: "copies a number wrongly: practise taking each number over from the story",
    Diagnosis.MISSING_STEP: "leaves out a step: practise one equation for each event",
    Diagnosis.NO_ANSWER: "gives no clear final answer: practise ending with one boxed number",
}
_KINDS = ("easier", "variant", "harder")
_DECLINED = {"question": None, "reference": None, "solution": None, "kind": "variant"}


class BadRequest(ValueError):
    """The user message is not a document of the contract."""


def reply_to(document: object) -> dict[str, Any]:
    """The reply object to one user message, decoded. Raises BadRequest for one that breaks the contract."""
    if not isinstance(document, Mapping) or document.get("contract") != PROMPT_VERSION:
        raise BadRequest(f"the user message must be a JSON object with contract {PROMPT_VERSION!r}")
    tasks = {Task.GRADE: _grade, Task.ANALYSE: _analyse, Task.ENHANCE: _enhance, Task.SOLVE: _solve}
    task = document.get("task")
    if task not in list(Task):
        raise BadRequest(f"task must be one of {', '.join(Task)}")
    return tasks[Task(task)](document)


def _grade(document: Mapping[str, Any]) -> dict[str, Any]:
    question, attempt = _text(document, "question"), _text(document, "attempt")
    reference = plain_number(_optional(document, "reference") or "")
    known = understand(question)
    if known is not None:
        if reference is not None and reference != known.answer:
            return _cannot_tell(attempt, "reference_disagrees")
        correct, diagnosis = known.diagnose(attempt)
        return _verdict(correct, attempt, diagnosis)
    if not attempt.strip():
        return _verdict(False, attempt, Diagnosis.NO_ANSWER)
    number = final_number(attempt)
    if reference is None or number is None:
        return _cannot_tell(attempt, "")
    return _verdict(number == reference, attempt, Diagnosis.OTHER)


def _verdict(correct: bool, attempt: str, diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "final_answer": final_answer(attempt),
        "diagnosis": "" if correct else diagnosis.value,
        "verdict": "correct" if correct else "incorrect",
    }


def _cannot_tell(attempt: str, why: str) -> dict[str, Any]:
    return {"final_answer": final_answer(attempt), "diagnosis": why, "verdict": "unknown"}


def _solve(document: Mapping[str, Any]) -> dict[str, Any]:
    known = understand(_text(document, "question"))
    return {"answer": None if known is None else str(known.answer)}


def _analyse(document: Mapping[str, Any]) -> dict[str, Any]:
    known = understand(_text(document, "question"))
    attempt = _text(document, "attempt")
    if known is None:
        return {"analysis": f"The final answer {final_answer(attempt) or '(none)'} is not the right one."}
    diagnosis = known.diagnose(attempt)[1]
    if diagnosis is Diagnosis.NONE:
        return {"analysis": "No mistake found."}
    return {"analysis": f"The attempt {_ADVICE.get(diagnosis, 'makes another mistake')}."}


def _enhance(document: Mapping[str, Any]) -> dict[str, Any]:
    question, kind = _text(document, "question"), _text(document, "kind")
    if kind not in _KINDS:
        raise BadRequest(f"kind must be one of {', '.join(_KINDS)}")
    _text(document, "attempt")
    rng = random.Random(hashlib.sha256(repr(sorted(document.items())).encode("utf-8", "replace")).digest())
    known = understand(question)
    if known is None:
        return _enhance_annotated(cast("QuestionKind", kind), question, _optional(document, "solution") or "", rng)
    # The easiest problem has nothing easier, the longest nothing harder: then other numbers.
    for written in (kind, "variant"):
        new = known.rewritten(written, rng)
        if new is not None:
            return {
                "question": new.text,
                "reference": str(new.answer),
                "solution": new.solution_text,
                "kind": written,
            }
    return _DECLINED


def _enhance_annotated(kind: QuestionKind, question: str, solution: str, rng: random.Random) -> dict[str, Any]:
    """What was asked for where a verified chain of calculations allows it, else the nearest kind that it does."""
    found = annotated.annotated_question(kind, question, solution, rng)
    if found is None:
        return _DECLINED
    (text, worked, answer), written = found
    return {"question": text, "solution": worked, "reference": answer, "kind": written}


def final_answer(attempt: str) -> str | None:
    """What stands in the last box or, without one, on the last line; None where nothing is written."""
    boxes = _BOX.findall(attempt)
    written = boxes[-1] if boxes else attempt.strip().rpartition("\n")[2][-80:]
    # A reply with control characters reads as a broken one.
    return "".join(c if c.isprintable() else " " for c in written).strip() or None


def final_number(attempt: str) -> Fraction | None:
    r"""The one clear final number: in a single \boxed{}, or in a single closing line `#### 18` or
    `The answer is 18.`; None where the attempt leaves any doubt."""
    if "\\boxed" in attempt:
        box = _BOX.search(attempt)
        if box is None or attempt.count("\\boxed") != 1:
            return None
        before, after = attempt[max(0, box.start() - 20) : box.start()], attempt[box.end() :]
        if _DOUBT.search(before) or re.search(r"\w", after):
            return None
        return plain_number(box[1])
    last = attempt.strip().rpartition("\n")[2].strip()
    line = _ANSWER_LINE.fullmatch(last)
    if line is None or len(_ANSWER_WORDS.findall(attempt)) != 1:
        return None
    return plain_number(line[1])


def plain_number(text: str) -> Fraction | None:
    """The exact value of `18`, `-1,200.50`, `$3` or `1/2`; None for everything else, units and signs included."""
    match = _NUMBER.fullmatch(text.strip().strip("$").removesuffix(".").strip())
    if match is None or (match[1] and match[2]) or (match[4] and match[5]):
        return None
    value = Fraction(match[3].replace(",", "") + (match[4] or "")) / int(match[5] or 1)
    return -value if match[1] or match[2] else value


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str):
        raise BadRequest(f"{key} must be a string")
    return value


def _optional(document: Mapping[str, Any], key: str) -> str | None:
    return None if document.get(key) is None else _text(document, key)
