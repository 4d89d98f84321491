"""The commands and outputs in the documents, as tests need them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_REDIRECTION = re.compile(r"(?<=\s)(?:\d?>&\d|\d?>{1,2}\s*[\w./-]+|<\s*[\w./-]+)(?=\s|$)")
_SEPARATORS = {"&&", "||", ";", "|", "&"}


@dataclass(frozen=True)
class Command:
    """One simple command. `environment` is what stands before it; `ended_by` is the separator behind it."""

    document: str
    environment: dict[str, str]
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.document}: {' '.join(self.words)}"


@dataclass(frozen=True)
class Block:
    """The commands of a block of shell, and the output that the document shows next, if it does."""

    text: str
    commands: tuple[Command, ...]
    output: str | None


def blocks(document: Path) -> Iterator[Block]:
    text = document.read_text(encoding="utf-8")
    found = list(_BLOCK.finditer(text))
    for match, after in zip(found, [*found[1:], None], strict=False):
        if match[2] not in ("bash", "sh"):
            continue
        between = text[match.end() : after.start()] if after else ""
        shows = after is not None and after[2] == "text" and "```" not in between and "#" not in between
        shell = _text(match)
        yield Block(shell, tuple(_commands(document.name, shell)), _text(after) if shows and after else None)


def _text(match: re.Match[str]) -> str:
    indent = match[1]
    return "".join(line.removeprefix(indent) for line in match[3].splitlines(keepends=True))


def _commands(document: str, block: str) -> Iterator[Command]:
    for line in _lines(block):
        lexer = shlex.shlex(_REDIRECTION.sub(" ", line), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word in _SEPARATORS:
                if words:
                    yield _command(document, words)
                words = []
            else:
                words.append(word)


def _lines(block: str) -> Iterator[str]:
    """Whole lines: one ends where no quote is open."""
    line = ""
    for part in block.splitlines():
        line = f"{line}\n{part}" if line else part
        try:
            shlex.split(line, comments=True)
        except ValueError:
            continue
        yield line
        line = ""
    assert not line, f"a quote is open: {line}"


def _command(document: str, words: list[str]) -> Command:
    environment: dict[str, str] = {}
    while words and re.fullmatch(r"[A-Z0-9_]+=.*", words[0], re.DOTALL):
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    return Command(document, environment, tuple(words[1:] if words[:1] == ["nohup"] else words))


def skeleton(line: str) -> str:
    """A line without what differs from run to run: numbers, ids, times, paths and bars."""
    line = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{6,16}\b", "ID", line.rstrip())
    line = re.sub(r"[█▓░]+ *\|", "BAR|", line)
    line = re.sub(r"(?:/[\w.@~+-]+)+/?|runs/[\w./-]+", "PATH", line)
    line = re.sub(r"(\d+ h )?(\d+ min )?\d+(\.\d+)? s\b", "TIME", line)
    line = re.sub(r"[-+]?\d+(?:[.,:]\d+)*", "N", line)
    return re.sub(r"[ ─-]+", " ", line).strip()


def shape(line: str) -> str:
    """A line's skeleton as far as its first colon, comma, bracket or text: what a run came to stands behind."""
    return re.split(r": |, | \(|(?<=→ ID) ", skeleton(line))[0]


def shown_and_not_there(output: str, said: str) -> list[str]:
    """The lines of a document's output of whose shape none was said; `…` stands for any."""
    found = {shape(line) for line in said.splitlines()}
    return [line for line in output.splitlines() if line.strip() != "…" and shape(line) not in found]
