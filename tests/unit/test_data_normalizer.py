from __future__ import annotations

import json
import logging
import os
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


def test_one_question_with_two_answers_names_both(tmp_path: Path) -> None:
    path = write(tmp_path, "q.jsonl", '{"question": "q", "answer": 1}\n\n{"question": "q", "answer": 2}\n')
    message = error_of(path)
    assert "line 1 with the answer '1'" in message
    assert "line 3 with the answer '2'" in message


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("q.jsonl", "", "the file is empty"),
        ("q.json", "[]", "no questions"),
        ("q.jsonl", '{"question": "a"}\n{"question": \n', "line 2, column 14: not JSON"),
        ("q.json", '[\n{"question": "a",}\n]', "line 2, column"),
        ("q.json", '{"question": "a"}\n{"question": "b"}\n', "name it .jsonl"),
        ("q.json", '{"rows": []}', "no list of questions"),
        ("q.json", '"text"', "the text 'text'"),
        ("q.jsonl", b'{"question": "a"}\n{"question": "\xff"}\n', "line 2: not UTF-8"),
        ("q.jsonl", '{"question": "a"}\n["b"]\n', "line 2: a list where an object"),
        ("q.json", '[{"question": "a"}, 5]', "row 2: a number where an object"),
        ("q.jsonl", '{"quesiton": "a"}', "rename 'quesiton' to 'question'"),
        ("q.jsonl", '{"text": "a", "label": 1}', "found 'text', 'label'"),
        ("q.jsonl", '{"question": 5}', "the field 'question' is a number"),
        ("q.jsonl", '{"question": " "}', "is an empty text"),
        ("q.jsonl", '{"question": "a", "answer": ["5"]}', "the field 'answer' is a list"),
        ("q.jsonl", '{"question": "a", "answer": true}', "is true or false"),
        ("q.jsonl", '{"question": "a", "answer": NaN}', "NaN is no JSON value"),
        ("q.jsonl", json.dumps({"question": "a" * (MAX_ROW_CHARS + 1)}), "a row may have 100,000"),
        ("q.json", json.dumps([{"question": "a" * (MAX_ROW_CHARS + 1)}]), "row 1"),
        ("q.csv", "question,answer", "ends in .json or .jsonl"),
        ("q.json", "[" * 200_000, "not JSON"),
    ],
)
def test_a_bad_file_is_told_with_its_place(tmp_path: Path, name: str, content: str | bytes, expected: str) -> None:
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


def test_half_a_character_is_refused_with_its_line(tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_text('{"question": "a?"}\n{"question": "b \\ud83d?"}\n')
    with pytest.raises(DataError, match="line 2: an escape"):
        load_questions(file)
