"""A Solver made of recordings: an OpenAI-compatible server that answers with the recorded attempts of a file.

It invents nothing: a question that is not recorded is 404, and a request gets at most as many choices as are
recorded. Requests with a seed go through the recorded attempts in file order, each seed from where the last new one
ended, and begin again after the last; a seed that comes again gets what it got before. So a run that asks a question
as often as it is recorded gets each recorded attempt once, whether it asks by `n` or one by one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from prosetting.core.openai_server import Ask, RequestError
from prosetting.errors import DataError
from prosetting.records import QuestionId, question_id_of

MODEL = "prosetting-replay"


class Recordings:
    """Recorded attempts by question, and which of them come next. May be asked by many threads at once."""

    def __init__(self, attempts: Mapping[QuestionId, Sequence[str]], *, most_lines: int) -> None:
        """`most_lines` is the length in lines of the longest recorded question."""
        self._attempts = attempts
        self._most_lines = most_lines
        self._next: dict[QuestionId, int] = {}
        self._starts: dict[tuple[QuestionId, int], int] = {}
        self._lock = threading.Lock()

    def answer(self, ask: Ask) -> list[str]:
        """The recorded attempts at the question that the message is, or that it begins with, an instruction
        following on a new line; the longest such question counts. Without a seed the first ones in file order."""
        question = self._question_of(ask.user)
        if question is None:
            raise RequestError(404, f"no attempt is recorded for this question: {ask.user[:80]!r}", code="not_recorded")
        attempts = self._attempts[question]
        count = min(ask.n, len(attempts))
        start = 0 if ask.seed is None else self._start(question, ask.seed, count)
        return [attempts[(start + index) % len(attempts)] for index in range(count)]

    def _question_of(self, message: str) -> QuestionId | None:
        lines = message.strip().split("\n")
        for length in range(min(len(lines), self._most_lines), 0, -1):
            question = _id("\n".join(lines[:length]))
            if question in self._attempts:
                return question
        return None

    def _start(self, question: QuestionId, seed: int, count: int) -> int:
        with self._lock:
            start = self._starts.get((question, seed))
            if start is None:
                start = self._starts[question, seed] = self._next.get(question, 0)
                self._next[question] = start + count
            return start


def load_recordings(file: Path) -> Recordings:
    """Read a JSON Lines file of rows with `question` and `response`; other fields are ignored, blank lines passed
    over. Raises DataError that names the line and what is wrong with it."""
    try:
        lines = file.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}", next_step="check the path") from None
    attempts: dict[QuestionId, list[str]] = {}
    most_lines = 0
    for number, line in enumerate(lines, start=1):
        if line.strip():
            question, response = _row(line, f"{file}, line {number}")
            attempts.setdefault(_id(question), []).append(response)
            most_lines = max(most_lines, question.strip().count("\n") + 1)
    if not attempts:
        raise _wrong(str(file), "no rows")
    return Recordings(attempts, most_lines=most_lines)


def _row(line: bytes, where: str) -> tuple[str, str]:
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _wrong(where, f"not JSON ({getattr(error, 'msg', error)})") from None
    if not isinstance(row, dict):
        raise _wrong(where, f"a {type(row).__name__}, not an object")
    for name in ("question", "response"):
        if not isinstance(row.get(name), str):
            found = "is not text" if name in row else f"is missing; it has {', '.join(map(repr, row)) or 'none'}"
            raise _wrong(where, f"{name!r} {found}")
    if not row["question"].strip():
        raise _wrong(where, "the question is empty")
    return row["question"], row["response"]


def _wrong(where: str, what: str) -> DataError:
    return DataError(f"{where}: {what}", next_step='write one {"question": …, "response": …} a line, in UTF-8')


def _id(text: str) -> QuestionId:
    # JSON may carry halves of surrogate pairs, which no encoding takes.
    return question_id_of(text.encode("utf-8", "replace").decode("utf-8"))
