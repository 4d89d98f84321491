"""The body of a 200 answer of /chat/completions: what it cost, and the text in it. Pure."""

from __future__ import annotations

import json
from typing import Any

from prosetting.errors import TeacherReplyError
from prosetting.teachers.budget import Usage, estimated_tokens
from prosetting.teachers.replies import read_completion


def usage_of(body: bytes, prompt_characters: int) -> Usage:
    """The tokens of a reply, usable or not, as the server counts them; estimated where it does not."""
    document = _document(body)
    usage = document.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Usage(
        _count(counts.get("prompt_tokens")) or estimated_tokens(prompt_characters),
        _count(counts.get("completion_tokens")) or estimated_tokens(_written_characters(document, body)),
    )


def completion_text(body: bytes) -> str:
    """The text of the one choice. Raises TeacherReplyError unless the body is unambiguous and whole."""
    try:
        document = json.loads(body, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
        raise TeacherReplyError(f"the body is not JSON: {what}") from None
    choices = document.get("choices") if isinstance(document, dict) else None
    if isinstance(choices, list) and len(choices) != 1:
        raise TeacherReplyError(f"the body holds {len(choices)} choices, one was asked for")
    return read_completion(body).content


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _written_characters(document: dict[str, Any], body: bytes) -> int:
    """The characters of the choices' texts; of the whole body where no text can be told."""
    try:
        return sum(len(choice["message"]["content"]) for choice in document["choices"])
    except (KeyError, TypeError, IndexError):
        return len(body)


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else 0
