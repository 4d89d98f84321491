"""What comes back from a teacher, read tolerantly and checked strictly. Pure.

A reply is hostile text: whatever it holds, the outcome is a value or a TeacherReplyError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, cast, get_args

from prosetting.errors import TeacherReplyError
from prosetting.records import QuestionKind, Verdict
from prosetting.teachers.base import GradeReply, NewQuestion
from prosetting.teachers.prompts import cut_middle

MAX_REPLY_CHARS = 100_000
MAX_DIAGNOSIS_CHARS = 200
MAX_ANALYSIS_CHARS = 2_000
_MOST_OBJECTS = 16

_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_OBJECT_START = re.compile(r'\{\s*"')
# A backslash that was not doubled turns \frac into a form feed and \boxed into a backspace.
_ESCAPED = {"\b": "b", "\t": "t", "\n": "n", "\f": "f", "\r": "r"}
_ATE_BACKSLASH = re.compile(r"[\x08\t\n\x0c\r](?=[a-z])")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class TeacherDeclined(TeacherReplyError):
    """The teacher says that it cannot: an answer, not a failure. Asking again would not help."""


@dataclass(frozen=True, slots=True)
class Completion:
    """The part of a chat completion that is used here."""

    content: str
    prompt_tokens: int
    completion_tokens: int


def read_completion(body: bytes) -> Completion:
    """The body of a 200 answer of /chat/completions. Raises TeacherReplyError unless it is a whole completion, with one
    choice and no key twice: which of two would be the reply?"""
    document = _loads(body, object_pairs_hook=_no_duplicates)
    choices = document.get("choices") if isinstance(document, dict) else None
    if isinstance(choices, list) and len(choices) != 1:
        raise TeacherReplyError(f"the body holds {len(choices)} choices, one was asked for")
    choice = choices[0] if isinstance(choices, list) else None
    message = choice.get("message") if isinstance(choice, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(document, dict) or not isinstance(choice, dict) or not isinstance(content, str):
        raise TeacherReplyError("the body is not a chat completion with a text")
    _check_unicode("the reply", content)
    if choice.get("finish_reason") == "length":
        raise TeacherReplyError("the reply was cut off at the model's token limit")
    usage = document.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Completion(content, _count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens")))


def read_models(body: bytes) -> dict[str, str]:
    """The names in a 200 answer of /models, each with the `root` that vLLM gives: where its weights are; else empty.

    Raises TeacherReplyError unless it is such a list.
    """
    document = _loads(body)
    models = document.get("data") if isinstance(document, dict) else None
    if not isinstance(models, list):
        raise TeacherReplyError("the body is not a list of models")
    named = [model for model in models if isinstance(model, dict) and "id" in model]
    return {str(model["id"]): str(model.get("root") or "") for model in named}


def parse_grade(text: str) -> GradeReply:
    """`{"final_answer": …, "diagnosis": …, "verdict": …}`."""
    reply = the_object(text)
    word = _text(reply, "verdict").strip().lower()
    if word not in set(Verdict):
        raise TeacherReplyError(f"verdict is {word[:40]!r}, not correct, incorrect or unknown")
    if "final_answer" not in reply:
        raise TeacherReplyError("the reply has no final_answer")
    diagnosis = _optional_text(reply, "diagnosis") or ""
    return GradeReply(Verdict(word), _quoted(reply, "final_answer"), " ".join(diagnosis.split())[:MAX_DIAGNOSIS_CHARS])


def parse_analysis(text: str) -> str:
    """`{"analysis": …}`."""
    analysis = _text(the_object(text), "analysis").strip()
    if not analysis:
        raise TeacherReplyError("the analysis is empty")
    return cut_middle(analysis, MAX_ANALYSIS_CHARS)


def parse_new_question(text: str, asked: QuestionKind) -> NewQuestion | None:
    """`{"question": …, "reference": …, "solution": …, "kind": …}`; None when the teacher declines."""
    reply = the_object(text)
    if "question" not in reply:
        raise TeacherReplyError("the reply has no question")
    question = _optional_text(reply, "question")
    if question is None:
        return None
    kind = _optional_text(reply, "kind") or asked
    if kind not in get_args(QuestionKind) or kind == "seed":
        raise TeacherReplyError(f"kind is {kind[:40]!r}, not easier, variant or harder")
    solution = _optional_text(reply, "solution")
    return NewQuestion(question.strip(), _text(reply, "reference").strip(), solution, cast(QuestionKind, kind))


def parse_answer(text: str) -> str | None:
    """`{"answer": …}`; None when the teacher does not know."""
    reply = the_object(text)
    if "answer" not in reply:
        raise TeacherReplyError("the reply has no answer")
    answer = _optional_text(reply, "answer")
    return answer.strip() or None if answer is not None else None


def the_object(text: str) -> dict[str, Any]:
    """The one JSON object in a reply, bare, fenced, or with text around it.

    Whatever begins like an object must be one: else the tail of a broken object could pass for the reply.
    """
    if len(text) > MAX_REPLY_CHARS:
        raise TeacherReplyError(f"the reply has {len(text)} characters, more than {MAX_REPLY_CHARS}")
    text = _THOUGHTS.sub("", text)
    found: list[dict[str, Any]] = []
    start = _OBJECT_START.search(text)
    while start is not None:
        value, end = _decode_at(text, start.start())
        if value not in found:
            found.append(value)
        if len(found) > _MOST_OBJECTS:
            break
        start = _OBJECT_START.search(text, end)
    if len(found) != 1:
        raise TeacherReplyError(f"the reply holds {len(found) or 'no'} JSON objects, not one")
    return found[0]


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


_DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_no_duplicates)


def _decode_at(text: str, start: int) -> tuple[dict[str, Any], int]:
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        raise TeacherReplyError(f"the reply is not JSON: {_short(error)}") from None
    return value, end


def _loads(body: bytes, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> object:
    try:
        value: object = json.loads(body, object_pairs_hook=object_pairs_hook)
    except (ValueError, RecursionError) as error:
        raise TeacherReplyError(f"the body is not JSON: {_short(error)}") from None
    return value


def _short(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]


def _text(reply: dict[str, Any], key: str) -> str:
    value = _optional_text(reply, key)
    if value is None:
        raise TeacherReplyError(f"{key} is missing")
    return value


def _optional_text(reply: dict[str, Any], key: str) -> str | None:
    value = reply.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise TeacherReplyError(f"{key} is a {type(value).__name__}, not a text")
    if _CONTROL.search(value):
        raise TeacherReplyError(f"{key} holds control characters: a backslash that was not doubled?")
    _check_unicode(key, value)
    return value


def _quoted(reply: dict[str, Any], key: str) -> str | None:
    """A text copied from an attempt: LaTeX whose backslashes were not doubled is mended, not refused."""
    value = reply[key]
    if isinstance(value, str):
        mended = _ATE_BACKSLASH.sub(lambda match: f"\\{_ESCAPED[match[0]]}", value)
        reply = {key: _CONTROL.sub(" ", mended)}
    return _optional_text(reply, key)


def _check_unicode(name: str, text: str) -> None:
    """JSON can escape half a character, which no store and no encoding takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TeacherReplyError(f"{name} is not valid Unicode") from None


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**31 else 0
