"""Text from models, files and children: made safe to show, and cut into words to compare. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

NEAR_DUPLICATE = 0.7
"""Two questions whose word trigrams have this Jaccard similarity or more read as one question."""

# Scripts without spaces: each character is a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"\d+(?:[.,]\d+)*|[{_UNSPACED}]|[^\W\d_{_UNSPACED}]+(?:['’][^\W\d_{_UNSPACED}]+)*")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def printable(text: str) -> str:
    """`text` with all that a terminal would obey (escapes, bidirectional marks) shown as `\\x1b` and the like."""
    return "".join(c if c.isprintable() or c in "\n\t" else _visible(c) for c in text)


def _visible(character: str) -> str:
    return " " if character.isspace() and ord(character) > 0x7F else repr(character)[1:-1]


def markdown_cell(text: str) -> str:
    """`text` as one plain line of a Markdown table or list: no markup, link, image or HTML of its own."""
    line = " ".join(printable(text).split())
    escaped = re.sub(r"[\\`*_{}\[\]()#+!|~$^]|:(?=//)", lambda match: "\\" + match[0], line)
    return re.sub(r"[&<>]", lambda match: _ENTITIES[match[0]], escaped)


def words(text: str) -> list[str]:
    """Words and numerals in order: NFKC, case folded, without punctuation, `Ana's` as `anas`, `1,200` as `1200`."""
    found = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return "\n".join(found).replace(",", "").replace("'", "").replace("’", "").split("\n") if found else []


def ngrams(words: Sequence[str], n: int) -> frozenset[str]:
    """The runs of n words, each joined by blanks; a shorter text is one run of its own."""
    return frozenset(" ".join(words[start : start + n]) for start in range(max(1, len(words) - n + 1)) if words)


def jaccard(left: AbstractSet[str], right: AbstractSet[str]) -> float:
    """Shared share of two sets, 0 … 1 (Jaccard 1901); two empty sets share nothing."""
    union = len(left | right)
    return len(left & right) / union if union else 0.0


def likeness(left: str, right: str) -> float:
    """The Jaccard similarity of two texts' word trigrams, to be held against `NEAR_DUPLICATE`."""
    return jaccard(ngrams(words(left), 3), ngrams(words(right), 3))
