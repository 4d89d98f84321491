from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prosetting.collectors.data_normalizer import MAX_ROW_CHARS, load_questions
from prosetting.errors import DataError
from prosetting.records import Question, question_id_of

SHARED = Path(os.environ.get("PROSETTING_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def load(folder: Path, *rows: object) -> list[Question]:
    return load_questions(write(folder, "q.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))


def error_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_questions(path)
    return str(caught.value)


@pytest.mark.parametrize("field", ["question", "problem", "prompt", "query", "input"])
def test_every_question_field_is_read(tmp_path: Path, field: str) -> None:
    assert load(tmp_path, {field: "How many?"}) == [Question(question_id_of("How many?"), "How many?")]


@pytest.mark.parametrize("field", ["answer", "reference", "reference_answer", "ground_truth", "final_answer"])
def test_every_answer_field_is_read(tmp_path: Path, field: str) -> None:
    assert load(tmp_path, {"question": "q", field: " 18 "})[0].reference == "18"


@pytest.mark.parametrize(
    "wrap",
    [lambda rows: rows, lambda rows: {"data": rows}, lambda rows: {"questions": rows}],
    ids=["list", "data", "qs"],
)
def test_json_files_of_three_shapes_are_read(tmp_path: Path, wrap: object) -> None:
    rows = [{"question": "a", "answer": 1}, {"question": "b", "answer": 2.5}]
    questions = load_questions(write(tmp_path, "q.json", json.dumps(wrap(rows))))  # type: ignore[operator]
    assert [(q.text, q.reference) for q in questions] == [("a", "1"), ("b", "2.5")]


def test_a_gsm8k_answer_gives_reference_and_solution(tmp_path: Path) -> None:
    worked = "48/2 = <<48/2=24>>24\n#### 1,024"
    (question,) = load(tmp_path, {"question": "q", "answer": worked})
    assert (question.reference, question.solution) == ("1,024", worked)


def test_a_math_row_keeps_its_solution(tmp_path: Path) -> None:
    (question,) = load(tmp_path, {"problem": "q", "solution": r"so \boxed{5}", "answer": "5"})
    assert (question.reference, question.solution) == ("5", r"so \boxed{5}")


@pytest.mark.parametrize("row", [{}, {"answer": None}, {"answer": ""}, {"answer": "  "}])
def test_a_missing_answer_leaves_the_reference_open(tmp_path: Path, row: dict[str, object]) -> None:
    assert load(tmp_path, {"question": "q"} | row)[0].reference is None


def test_a_repeated_question_is_kept_once_with_a_notice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        questions = load(tmp_path, {"question": "How  many?", "answer": 1}, {"question": "How many?", "answer": "1"})
    assert len(questions) == 1
    assert "line 2 repeats the question of line 1" in caplog.text


def warnings_of(path: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    with caplog.at_level(logging.WARNING):
        load_questions(path)
    return told(caplog)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Our own messages: asyncio adds what earlier tests left to the garbage collector."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("prosetting")]


def test_one_question_with_two_answers_is_left_out_and_names_both(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = ['{"question": "q", "answer": 1}', "", '{"question": "q", "answer": 2}', '{"question": "good"}']
    path = write(tmp_path, "q.jsonl", "\n".join([*rows, '{"question": "q", "answer": 1}']))
    assert [question.text for question in load_questions(path)] == ["good"]
    first, second, *_ = told(caplog)
    assert "line 1: the same question has here the answer '1', in line 3 '2'" in first
    assert "line 3: the same question has here the answer '2', in line 1 '1'" in second


@pytest.mark.parametrize("rows", [(None, "5"), ("5", None), ("5", "5")])
def test_a_row_without_an_answer_contradicts_none(tmp_path: Path, rows: tuple[str | None, ...]) -> None:
    (question,) = load(tmp_path, *({"question": "q", "answer": answer} for answer in rows))
    assert question.reference == "5"


BAD_ROWS = [
    pytest.param(b'{"question": ', "line 2, column 14: not JSON", id="cut off"),
    pytest.param(b'{"question": "\xff"}', "line 2: not UTF-8", id="not UTF-8"),
    pytest.param(b'["b"]', "line 2: a list where an object", id="a list"),
    pytest.param(b'{"quesiton": "a"}', "line 2: no question field; found 'quesiton'", id="misspelt"),
    pytest.param(b'{"text": "a", "label": 1}', "found 'text', 'label'", id="other fields"),
    pytest.param(b'{"question": 5}', "the field 'question' is a number", id="a number"),
    pytest.param(b'{"question": " "}', "is an empty text", id="empty"),
    pytest.param(b'{"question": "a", "answer": ["5"]}', "the field 'answer' is a list", id="a list of answers"),
    pytest.param(b'{"question": "a", "answer": true}', "is true or false", id="a truth value"),
    pytest.param(b'{"question": "a", "answer": NaN}', "NaN is no JSON value", id="NaN"),
    pytest.param(b'{"question": "b \\ud83d?"}', "line 2: an escape", id="half a character"),
    pytest.param(b"[" * 50_000, "line 2: not JSON", id="nested too deeply"),
    pytest.param(b'{"question": "' + b"a" * MAX_ROW_CHARS + b'"}', "a row may have 100,000", id="too long"),
]


@pytest.mark.parametrize(("line", "expected"), BAD_ROWS)
def test_a_bad_row_is_told_with_its_line_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, line: bytes, expected: str
) -> None:
    path = write(tmp_path, "q.jsonl", b'{"question": "good"}\n' + line + b'\n{"question": "too"}\n')
    assert [question.text for question in load_questions(path)] == ["good", "too"]
    warning = told(caplog)[0]
    assert expected in warning
    assert warning.startswith(f"{path}, line 2")


def test_a_bad_row_of_a_json_list_is_told_with_its_number_and_what_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, "q.json", '[{"question": "a"}, 5]')
    (told,) = warnings_of(path, caplog)
    assert told.startswith(f"{path}, row 2: a number where an object with a question is expected (left out; write it")


def test_after_ten_bad_rows_only_their_number_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, "q.jsonl", '{"question": "a"}\n' + "oops\n" * 25)
    told = warnings_of(path, caplog)
    assert len(told) == 11
    assert told[-1].endswith("15 more; 25 bad rows left out in all")


def test_a_file_without_a_good_row_names_the_first_bad_ones(tmp_path: Path) -> None:
    message = error_of(write(tmp_path, "q.jsonl", '{"quesiton": "a"}\n{"question": ""}\n'))
    assert "none of its 2 rows is a good question" in message
    assert "line 1: no question field; found 'quesiton'" in message
    assert "line 2: the field 'question'" in message
    assert "rename 'quesiton' to 'question'" in message


def test_users_see_what_is_left_out_before_any_logging_is_set_up(tmp_path: Path) -> None:
    path = write(tmp_path, "q.jsonl", '{"question": "a"}\noops\n')
    code = f"from pathlib import Path; from {load_questions.__module__} import *; load_questions(Path({str(path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "line 2, column 1: not JSON" in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("q.jsonl", "", "the file is empty"),
        ("q.json", "[]", "no questions"),
        ("q.json", '[\n{"question": "a",}\n]', "line 2, column"),
        ("q.json", '{"question": "a"}\n{"question": "b"}\n', "name it .jsonl"),
        ("q.json", b'[{"question": "a"},\n{"question": "\xff"}]', "line 2: not UTF-8"),
        ("q.json", '{"rows": []}', "no list of questions"),
        ("q.json", '"text"', "the text 'text'"),
        ("q.json", '[{"question": NaN}]', "NaN is no JSON value"),
        ("q.csv", "question,answer", "ends in .json or .jsonl"),
        ("q.json", "[" * 200_000, "not JSON"),
    ],
)
def test_a_file_that_is_bad_as_a_whole_stops(tmp_path: Path, name: str, content: str | bytes, expected: str) -> None:
    path = write(tmp_path, name, content)
    message = error_of(path)
    assert expected in message
    assert str(path) in message


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    assert "no such question file" in error_of(tmp_path / "none.jsonl")
    (tmp_path / "folder.json").mkdir()
    assert "cannot be read" in error_of(tmp_path / "folder.json")


@pytest.mark.parametrize(
    ("name", "count"), [("gsm8k_train", 7473), ("gsm8k_test", 1319), ("math500", 500), ("math_test_5000", 5000)]
)
def test_real_question_files_are_read(name: str, count: int) -> None:
    path = SHARED / "questions" / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not there; set PROSETTING_SHARED_DATA to the folder that holds questions/")
    questions = load_questions(path)
    assert count - 10 <= len(questions) <= count
    assert all(question.solution for question in questions)
    if name != "math_test_5000":
        assert all(question.reference for question in questions)
