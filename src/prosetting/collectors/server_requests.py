"""One request to a Solver's server and its reply, pure: attempts at one prompt are asked together with `n`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from prosetting.collectors.solver import SampleRequest, SamplingParams
from prosetting.errors import TeacherReplyError

_SEEDS = 2**31  # some servers keep a seed in 32 bits


@dataclass(frozen=True, slots=True)
class Choice:
    """One text of a reply."""

    text: str
    finish_reason: Literal["stop", "length"]
    tokens: int


def request_body(
    model: str, request: SampleRequest, params: SamplingParams, count: int, *, seeded: bool
) -> dict[str, Any]:
    """What asks for `count` attempts at a request's prompt. What is left to the server, it takes from the model's
    own generation settings: temperature and top_p are therefore always said."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": request.prompt}],
        "max_tokens": params.max_new_tokens,
        "temperature": 0.0 if request.seed is None else params.temperature,
    }
    if request.seed is not None:
        body["top_p"] = params.top_p
        if seeded:
            body["seed"] = request.seed % _SEEDS
    return body | ({"n": count} if count > 1 else {})


def read_choices(body: bytes, count: int) -> list[Choice]:
    """The choices of a 200 answer, from one to `count`, by index. Raises TeacherReplyError unless all are whole.

    `tokens` is what the server counted; with several choices it gives their sum only, which is then shared out by
    length. 0 where it counts none.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise TeacherReplyError("the body is not JSON") from None
    rows = document.get("choices") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TeacherReplyError("the body is not a chat completion")
    if not 1 <= len(rows) <= count:
        raise TeacherReplyError(f"the reply has {len(rows)} choices, {count} were asked for")
    places = [row.get("index", place) for place, row in enumerate(rows)]
    if sorted(map(str, places)) != sorted(map(str, range(len(rows)))):
        raise TeacherReplyError("the reply's choices have no proper index")
    texts = [_text(row) for _, row in sorted(zip(places, rows, strict=True), key=lambda pair: int(pair[0]))]
    usage = document.get("usage")
    total = usage.get("completion_tokens") if isinstance(usage, dict) else 0
    lengths = [len(text) + 1 for text, _ in texts]
    whole = total if type(total) is int and 0 <= total < _SEEDS else 0
    return [
        Choice(text, reason, whole * length // sum(lengths))
        for (text, reason), length in zip(texts, lengths, strict=True)
    ]


def _text(row: Mapping[str, Any]) -> tuple[str, Literal["stop", "length"]]:
    message = row.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    if not isinstance(text, str):
        raise TeacherReplyError("a choice has no text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TeacherReplyError("a choice is not valid Unicode") from None
    reason = row.get("finish_reason")
    if reason == "stop":
        return text, "stop"
    if reason == "length":
        return text, "length"
    raise TeacherReplyError(f"a choice ended with {str(reason)[:40]!r}, not with stop or length")
