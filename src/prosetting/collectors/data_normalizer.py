"""Read a question file of any of the common shapes into `Question` records, or say exactly what is wrong.

`.jsonl` holds one object a line; `.json` a list of objects, or one object with that list under `data` or
`questions`. GSM8K's annotated answers and MATH's worked solutions are recognised by their form, not by name.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosetting.errors import DataError
from prosetting.records import Question, QuestionId, question_id_of

QUESTION_FIELDS = ("question", "problem", "prompt", "query", "input")
ANSWER_FIELDS = ("answer", "reference", "reference_answer", "ground_truth", "final_answer")
MAX_ROW_CHARS = 100_000

_LIST_FIELDS = ("data", "questions")
_ACCEPTED = f"one of {', '.join(QUESTION_FIELDS)}; the answer, if any, as one of {', '.join(ANSWER_FIELDS)}"
_log = logging.getLogger(__name__)
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class _Row:
    """One object of the file and where it stands, as the user would look for it ("line 7", "row 3")."""

    where: str
    value: Any


def load_questions(path: Path) -> list[Question]:
    """The questions of `path` in file order, each once. Raises `DataError` naming file, line and remedy."""
    text = _read_text(path)
    rows = _jsonl_rows(path, text) if path.suffix == ".jsonl" else _json_rows(path, text)
    questions: dict[QuestionId, Question] = {}
    places: dict[QuestionId, str] = {}
    for row in rows:
        question = _question_of(path, row)
        first = questions.setdefault(question.question_id, question)
        where = places.setdefault(question.question_id, row.where)
        if first is question:
            continue
        if first.reference != question.reference:
            raise DataError(
                f"{path}: the same question stands in {where} with the answer {_shown(first.reference)} and in "
                f"{row.where} with the answer {_shown(question.reference)}",
                next_step="remove the row with the wrong answer",
            )
        _log.warning("%s: %s repeats the question of %s; it is kept once", path, row.where, where)
    if not questions:
        raise DataError(f"{path}: no questions in the file", next_step=f"add rows with a question field: {_ACCEPTED}")
    return list(questions.values())


def _read_text(path: Path) -> str:
    if path.suffix not in {".json", ".jsonl"}:
        raise DataError(
            f"{path}: a question file ends in .json or .jsonl, this one in {path.suffix or 'neither'!r}",
            next_step="convert it to one JSON object a line and name it .jsonl",
        )
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DataError(
            f"{path}: there is no such question file", next_step="check QUESTIONS_FILE, or the path on the command line"
        ) from None
    except OSError as error:
        raise DataError(
            f"{path}: the question file cannot be read ({error.strerror})",
            next_step="check the path and its permissions",
        ) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 text (byte 0x{raw[error.start]:02x} at offset {error.start})",
            next_step="save the file as UTF-8",
        ) from None
    if not text.strip():
        raise DataError(f"{path}: the file is empty", next_step=f"add rows with a question field: {_ACCEPTED}")
    return text


def _jsonl_rows(path: Path, text: str) -> Iterator[_Row]:
    # Not splitlines(): U+2028 and others may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"line {number}"
            if len(line) > MAX_ROW_CHARS:
                raise _too_long(path, where, len(line))
            yield _Row(where, _parsed(path, line, number))


def _json_rows(path: Path, text: str) -> Iterator[_Row]:
    content = _parsed(path, text, None)
    if isinstance(content, dict):
        found = [name for name in _LIST_FIELDS if isinstance(content.get(name), list)]
        if not found:
            raise DataError(
                f"{path}: the file holds one object with the fields {_names(content)} and no list of questions",
                next_step='make it a list of objects, or {"questions": [...]}',
            )
        content = content[found[0]]
    if not isinstance(content, list):
        raise DataError(
            f"{path}: the file holds {_kind(content)} and no list of questions",
            next_step='make it a list of objects, or {"questions": [...]}',
        )
    for number, value in enumerate(content, start=1):
        yield _Row(f"row {number}", value)


def _parsed(path: Path, text: str, line: int | None) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        hint = "check this line for a missing quote, comma or bracket"
        if line is None and text.lstrip().startswith("{") and error.msg == "Extra data":
            hint = "the file looks like one object a line: name it .jsonl"
        raise DataError(
            f"{path}, line {line or error.lineno}, column {error.colno}: not JSON ({error.msg})", next_step=hint
        ) from None
    except (ValueError, RecursionError) as error:
        place = f", line {line}" if line else ""
        raise DataError(
            f"{path}{place}: not JSON that can be used ({error})", next_step="mend the value or remove the row"
        ) from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _question_of(path: Path, row: _Row) -> Question:
    value = row.value
    if not isinstance(value, dict):
        raise DataError(
            f"{path}, {row.where}: {_kind(value)} where an object with a question is expected",
            next_step=f'write it as {{"{QUESTION_FIELDS[0]}": "...", "{ANSWER_FIELDS[0]}": "..."}}',
        )
    size = sum(len(item) for item in value.values() if isinstance(item, str))
    if size > MAX_ROW_CHARS:
        raise _too_long(path, row.where, size)
    if any(_SURROGATE.search(item) for item in value.values() if isinstance(item, str)):
        raise DataError(
            f"{path}, {row.where}: an escape such as \\ud83d stands for half a character",
            next_step="write the character itself, or remove the row",
        )
    name = next((name for name in QUESTION_FIELDS if name in value), None)
    if name is None:
        raise _no_question_field(path, row.where, value)
    text = value[name]
    if not isinstance(text, str) or not text.strip():
        raise DataError(
            f"{path}, {row.where}: the field {name!r} is {_kind(text)}, a question is a text that is not empty",
            next_step="write the question into it, or remove the row",
        )
    reference = _reference_of(path, row.where, value)
    solution = value.get("solution")
    if reference is not None and "####" in reference:
        solution, reference = solution or reference, reference.rsplit("####", 1)[1].strip() or None
    if not isinstance(solution, str) or not solution.strip():
        solution = None
    return Question(question_id_of(text), text, reference, solution)


def _reference_of(path: Path, where: str, value: dict[str, Any]) -> str | None:
    for name in ANSWER_FIELDS:
        answer = value.get(name)
        if answer is None:
            continue
        if isinstance(answer, bool) or not isinstance(answer, str | int | float):
            raise DataError(
                f"{path}, {where}: the field {name!r} is {_kind(answer)}, an answer is a text or a number",
                next_step="write the answer as text, or remove the field: then the teacher decides",
            )
        if str(answer).strip():
            return str(answer).strip()
    return None


def _no_question_field(path: Path, where: str, value: dict[str, Any]) -> DataError:
    for name in value:
        close = difflib.get_close_matches(name.lower(), QUESTION_FIELDS, n=1, cutoff=0.7)
        if close:
            return DataError(
                f"{path}, {where}: no question field; found {_names(value)}",
                next_step=f"rename {name!r} to {close[0]!r}",
            )
    return DataError(
        f"{path}, {where}: no question field; found {_names(value)}",
        next_step=f"name the field with the question {_ACCEPTED}",
    )


def _too_long(path: Path, where: str, size: int) -> DataError:
    return DataError(
        f"{path}, {where}: {size:,} characters, a row may have {MAX_ROW_CHARS:,}",
        next_step="shorten the row or remove it; is the file really one question a row?",
    )


def _names(value: dict[str, Any]) -> str:
    names = ", ".join(repr(name[:40]) for name in list(value)[:8])
    return (names or "no fields") + (", …" if len(value) > 8 else "")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return "an empty text" if not value.strip() else f"the text {value[:40]!r}"
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds[type(value)]


def _shown(reference: str | None) -> str:
    return "(none)" if reference is None else repr(reference[:80])
