"""What verl trains on: a row a question, and never one that nobody can grade."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from prosetting.datasets import data_saver
from prosetting.datasets.data_saver import VERL_SCHEMA, save_verl_rows
from prosetting.datasets.verl_data import verl_row
from prosetting.records import Grade, Question, Verdict, question_id_of


def a_question(reference: str | None = "9") -> Question:
    text = "Max starts with 5 cards."
    return Question(question_id_of(text), text, reference)


def grades(*verdicts: Verdict) -> list[Grade]:
    return [Grade(2, a_question().question_id, number, verdict, "rules") for number, verdict in enumerate(verdicts)]


def test_a_row_holds_the_prompt_the_reference_and_who_it_is() -> None:
    question = a_question()
    given = grades(Verdict.CORRECT, Verdict.INCORRECT, Verdict.INCORRECT, Verdict.UNKNOWN)
    assert verl_row(question, given, prompt="Max starts.\nBox it.", round_=2, index=7) == {
        "data_source": "prosetting",
        "prompt": [{"role": "user", "content": "Max starts.\nBox it."}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "9"},
        "extra_info": {"index": 7, "question_id": question.question_id, "round": 2, "pass_rate": pytest.approx(1 / 3)},
    }


def test_without_a_reference_teacher1_decides() -> None:
    row = verl_row(a_question(None), grades(Verdict.CORRECT), prompt="?", round_=1, index=0)
    assert row
    assert row["reward_model"] == {"style": "model", "ground_truth": ""}


@pytest.mark.parametrize("given", [[], grades(Verdict.UNKNOWN, Verdict.UNKNOWN)])
def test_a_question_that_nobody_could_grade_is_left_out(given: list[Grade]) -> None:
    assert verl_row(a_question(), given, prompt="?", round_=1, index=0) is None


def test_json_and_parquet_hold_the_same_rows_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_saver, "QUESTIONS_A_GROUP", 3)
    hostile = 'x"\n\\ \u2028 日本 {"a": 1} </script>'
    rows = [
        verl_row(a_question(), grades(Verdict.CORRECT), prompt=f"{hostile} {n}", round_=1, index=n) for n in range(7)
    ]
    json_file, parquet_file = tmp_path / "deep" / "solver.json", tmp_path / "deep" / "solver.parquet"
    assert save_verl_rows(json_file, parquet_file, filter(None, rows)) == 7
    assert json.loads(json_file.read_text(encoding="utf-8")) == rows
    table = pq.ParquetFile(parquet_file)
    assert table.read().to_pylist() == rows
    assert table.num_row_groups == 3
    assert table.schema_arrow == VERL_SCHEMA


def test_no_rows_are_files_too(tmp_path: Path) -> None:
    assert save_verl_rows(tmp_path / "s.json", tmp_path / "s.parquet", []) == 0
    assert json.loads((tmp_path / "s.json").read_text()) == []
    assert pq.read_table(tmp_path / "s.parquet").num_rows == 0


def test_a_write_that_fails_leaves_neither_file(tmp_path: Path) -> None:
    def rows():
        yield verl_row(a_question(), grades(Verdict.CORRECT), prompt="?", round_=1, index=0)
        raise ValueError("the journal went away")

    with pytest.raises(ValueError, match="went away"):
        save_verl_rows(tmp_path / "s.json", tmp_path / "s.parquet", rows())
    assert list(tmp_path.iterdir()) == []
