"""Read a question file of any of the common shapes into `Question` records, and say exactly what is wrong.

`.jsonl` holds one object a line; `.json` a list of objects, or one object with that list under `data` or
`questions`. GSM8K's annotated answers and MATH's worked solutions are recognised by their form, not by name.
A bad row is reported with its place and left out; a file without a good row stops the run.
"""

from __future__ import annotations

import codecs
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
MOST_TOLD = 10  # notices about single rows, and bad rows in an error; then their number

_LIST_FIELDS = ("data", "questions")
_ACCEPTED = f"one of {', '.join(QUESTION_FIELDS)}; the answer, if any, as one of {', '.join(ANSWER_FIELDS)}"
_log = logging.getLogger(__name__)
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class _Row:
    """One object of the file and where it stands, as the user would look for it ("line 7", "row 3").

    `value` is the decoded JSON, or the `_BadRow` that says why there is none.
    """

    where: str
    value: Any


class _BadRow(Exception):
    """A row that cannot be used: where it stands, what is wrong or missing, and what would mend it."""

    def __init__(self, where: str, what: str, next_step: str) -> None:
        super().__init__(f"{where}: {what}")
        self.next_step = next_step


def load_questions(path: Path) -> list[Question]:
    """The questions of `path` in file order, each once.

    Bad rows are told as warnings and left out; so are all rows of a question that stands there with two different
    answers. Raises `DataError` for a file that cannot be read as a whole or has no good row.
    """
    good: dict[QuestionId, tuple[str, Question]] = {}
    bad: list[_BadRow] = []
    repeats: list[str] = []
    contradicted: set[QuestionId] = set()
    for row in _rows(path):
        try:
            question = _question_of(row)
        except _BadRow as error:
            bad.append(error)
            continue
        question_id = question.question_id
        where, first = good.setdefault(question_id, (row.where, question))
        if first is question:
            continue
        if None not in (first.reference, question.reference) and first.reference != question.reference:
            if question_id not in contradicted:
                bad.append(_two_answers(where, first, row.where, question))
            bad.append(_two_answers(row.where, question, where, first))
            contradicted.add(question_id)
            continue
        repeats.append(f"{row.where} repeats the question of {where}; it is kept once")
        if first.reference is None:
            good[question_id] = (where, question)
    questions = [question for question_id, (_, question) in good.items() if question_id not in contradicted]
    if not questions:
        raise _nothing_good(path, bad)
    _tell(path, [f"{error} (left out; {error.next_step})" for error in bad], "bad rows left out")
    _tell(path, repeats, "repeated questions")
    return questions


def _two_answers(where: str, question: Question, other: str, other_question: Question) -> _BadRow:
    answers = f"the answer {_shown(question.reference)}, in {other} {_shown(other_question.reference)}"
    return _BadRow(where, f"the same question has here {answers}", "remove the row with the wrong answer")


def _nothing_good(path: Path, bad: list[_BadRow]) -> DataError:
    if not bad:
        return DataError(f"{path}: no questions in the file", next_step=f"add rows with a question field: {_ACCEPTED}")
    told = "\n    ".join(map(str, bad[:MOST_TOLD]))
    return DataError(f"{path}: none of its {len(bad)} rows is a good question:\n    {told}", next_step=bad[0].next_step)


def _tell(path: Path, notices: list[str], what: str) -> None:
    for notice in notices[:MOST_TOLD]:
        _log.warning("%s, %s", path, notice)
    if len(notices) > MOST_TOLD:
        _log.warning("%s: %d more; %d %s in all", path, len(notices) - MOST_TOLD, len(notices), what)


def _rows(path: Path) -> Iterator[_Row]:
    if path.suffix not in {".json", ".jsonl"}:
        raise DataError(
            f"{path}: a question file ends in .json or .jsonl, this one in {path.suffix or 'neither'!r}",
            next_step="convert it to one JSON object a line and name it .jsonl",
        )
    raw = _read(path)
    return _jsonl_rows(raw) if path.suffix == ".jsonl" else _json_rows(path, raw)


def _read(path: Path) -> bytes:
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
    raw = raw.removeprefix(codecs.BOM_UTF8)
    if not raw.strip():
        raise DataError(f"{path}: the file is empty", next_step=f"add rows with a question field: {_ACCEPTED}")
    return raw


def _jsonl_rows(raw: bytes) -> Iterator[_Row]:
    # Not splitlines(): U+2028 and others may stand inside a JSON string.
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if line.strip():
            yield _Row(f"line {number}", _parsed(f"line {number}", line))


def _parsed(where: str, line: bytes) -> Any:
    """The decoded line, or the `_BadRow` that it is."""
    try:
        text = line.decode()
        if len(text) > MAX_ROW_CHARS:
            return _too_long(where, len(text))
        return json.loads(text, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        return _BadRow(where, f"not UTF-8 text (byte 0x{line[error.start]:02x})", "save the file as UTF-8")
    except json.JSONDecodeError as error:
        hint = "check this line for a missing quote, comma or bracket"
        return _BadRow(f"{where}, column {error.colno}", f"not JSON ({error.msg})", hint)
    except (ValueError, RecursionError) as error:
        return _BadRow(where, f"not JSON that can be used ({error})", "mend the value or remove the row")


def _json_rows(path: Path, raw: bytes) -> Iterator[_Row]:
    content = _document(path, raw)
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


def _document(path: Path, raw: bytes) -> Any:
    try:
        return json.loads(raw.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 text (byte 0x{raw[error.start]:02x} at offset {error.start})",
            next_step="save the file as UTF-8",
        ) from None
    except json.JSONDecodeError as error:
        hint = "check this line for a missing quote, comma or bracket"
        if raw.lstrip().startswith(b"{") and error.msg == "Extra data":
            hint = "the file looks like one object a line: name it .jsonl"
        where = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{path}, {where}: not JSON ({error.msg})", next_step=hint) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON that can be used ({error})", next_step="mend or remove the value") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _question_of(row: _Row) -> Question:
    value, where = row.value, row.where
    if isinstance(value, _BadRow):
        raise value
    if not isinstance(value, dict):
        example = f'{{"{QUESTION_FIELDS[0]}": "...", "{ANSWER_FIELDS[0]}": "..."}}'
        raise _BadRow(where, f"{_kind(value)} where an object with a question is expected", f"write it as {example}")
    size = sum(len(item) for item in value.values() if isinstance(item, str))
    if size > MAX_ROW_CHARS:
        raise _too_long(where, size)
    if any(_SURROGATE.search(item) for item in value.values() if isinstance(item, str)):
        what = "an escape such as \\ud83d stands for half a character"
        raise _BadRow(where, what, "write the character itself, or remove the row")
    name = next((name for name in QUESTION_FIELDS if name in value), None)
    if name is None:
        raise _no_question_field(where, value)
    text = value[name]
    if not isinstance(text, str) or not text.strip():
        what = f"the field {name!r} is {_kind(text)}, a question is a text that is not empty"
        raise _BadRow(where, what, "write the question into it, or remove the row")
    reference = _reference_of(where, value)
    solution = value.get("solution")
    if reference is not None and "####" in reference:
        solution, reference = solution or reference, reference.rsplit("####", 1)[1].strip() or None
    if not isinstance(solution, str) or not solution.strip():
        solution = None
    return Question(question_id_of(text), text, reference, solution)


def _reference_of(where: str, value: dict[str, Any]) -> str | None:
    for name in ANSWER_FIELDS:
        answer = value.get(name)
        if answer is None:
            continue
        if isinstance(answer, bool) or not isinstance(answer, str | int | float):
            what = f"the field {name!r} is {_kind(answer)}, an answer is a text or a number"
            raise _BadRow(where, what, "write the answer as text, or remove the field: then the teacher decides")
        if str(answer).strip():
            return str(answer).strip()
    return None


def _no_question_field(where: str, value: dict[str, Any]) -> _BadRow:
    for name in value:
        close = difflib.get_close_matches(name.lower(), QUESTION_FIELDS, n=1, cutoff=0.7)
        if close:
            return _BadRow(where, f"no question field; found {_names(value)}", f"rename {name!r} to {close[0]!r}")
    return _BadRow(where, f"no question field; found {_names(value)}", f"name the field with the question {_ACCEPTED}")


def _too_long(where: str, size: int) -> _BadRow:
    return _BadRow(
        where,
        f"{size:,} characters, a row may have {MAX_ROW_CHARS:,}",
        "shorten the row or remove it; is the file really one question a row?",
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
