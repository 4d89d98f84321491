"""Text from models, files and children, made safe to show. Pure."""

from __future__ import annotations

import re

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
