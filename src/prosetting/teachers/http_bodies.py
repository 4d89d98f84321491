"""What a 200 answer of /chat/completions cost, readable or not. Pure."""

from __future__ import annotations

import json
from typing import Any

from prosetting.teachers.budget import Usage, estimated_tokens


def usage_of(body: bytes, prompt_characters: int) -> Usage:
    """The tokens of a reply, usable or not, as the server counts them; estimated where it does not."""
    document = _document(body)
    usage = document.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Usage(
        _count(counts.get("prompt_tokens")) or estimated_tokens(prompt_characters),
        _count(counts.get("completion_tokens")) or estimated_tokens(_written_characters(document, body)),
    )


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
