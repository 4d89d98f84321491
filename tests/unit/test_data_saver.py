import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prosetting.datasets import data_saver
from prosetting.datasets.data_saver import PAIR_FILES, PAIR_SCHEMA, QUESTION_SCHEMA, save_pairs
from prosetting.datasets.dpo_data_converter import is_validation
from prosetting.records import QuestionPairs, question_id_of


def question(number: int, attempts: int = 5) -> QuestionPairs:
    """A question whose first attempts are chosen over the others, as many as its number says."""
    correct = 1 + number % (attempts - 1)
    pairs = [(c, r) for c in range(correct) for r in range(correct, attempts)]
    texts = tuple(f"attempt {a} at {number}: {random.Random(number * 10 + a).random()}" for a in range(attempts))
    chosen, rejected = zip(*pairs, strict=True)
    id_ = question_id_of(str(number))
    return QuestionPairs(f"prompt {number}", id_, 2, texts, tuple(range(3, 3 + attempts)), chosen, rejected)


def rows(folder, name):
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def triplets(questions):
    return [
        {
            "prompt": q.prompt,
            "chosen": q.completions[c],
            "rejected": q.completions[r],
            "question_id": q.question_id,
            "chosen_attempt": q.attempts[c],
            "rejected_attempt": q.attempts[r],
            "round": q.round,
        }
        for q in questions
        for c, r in zip(q.chosen, q.rejected, strict=True)
    ]


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(data_saver, "QUESTIONS_A_GROUP", 7)


@pytest.mark.usefixtures("small_groups")
def test_every_pair_comes_back_as_a_row_in_order_and_split_by_question(tmp_path):
    questions = [question(n) for n in range(200)]
    counts = save_pairs(tmp_path, 2, iter(questions))
    train, validation = rows(tmp_path, "train"), rows(tmp_path, "validation")
    assert train == triplets(q for q in questions if not is_validation(q.question_id))
    assert validation == triplets(q for q in questions if is_validation(q.question_id))
    assert validation
    assert (counts.train, counts.validation, counts.questions) == (len(train), len(validation), 200)


@pytest.mark.usefixtures("small_groups")
def test_every_question_comes_back_as_one_row(tmp_path):
    questions = [question(n) for n in range(200)]
    save_pairs(tmp_path, 2, iter(questions))
    found = {
        side: [
            QuestionPairs(**{name: tuple(value) if isinstance(value, list) else value for name, value in row.items()})
            for row in rows(tmp_path, f"{side}_by_question")
        ]
        for side in ("train", "validation")
    }
    assert found["train"] == [q for q in questions if not is_validation(q.question_id)]
    assert found["validation"] == [q for q in questions if is_validation(q.question_id)]


def test_the_columns_are_plain_strings_numbers_and_lists(tmp_path):
    save_pairs(tmp_path, 2, [question(n) for n in range(40)])
    for side in ("train", "validation"):
        assert pq.read_table(tmp_path / f"{side}.parquet").schema.equals(PAIR_SCHEMA)
        assert pq.read_table(tmp_path / f"{side}_by_question.parquet").schema.equals(QUESTION_SCHEMA)


def test_a_text_is_in_a_row_group_once_however_many_pairs_it_is_in(tmp_path):
    save_pairs(tmp_path, 2, [question(3, attempts=64), question(4, attempts=64)])
    column = pq.read_table(tmp_path / "train.parquet", read_dictionary=["rejected"])["rejected"]
    assert [chunk.dictionary.to_pylist() for chunk in column.chunks] == [
        [*question(3, 64).completions[4:], *question(4, 64).completions[5:]]
    ]


def test_a_group_ends_where_its_texts_are_long(tmp_path, monkeypatch):
    monkeypatch.setattr(data_saver, "LONGEST_GROUP", 1_000)
    save_pairs(tmp_path, 2, [question(n) for n in range(40)])
    assert pq.ParquetFile(tmp_path / "train.parquet").metadata.num_row_groups > 5


def test_the_files_tell_of_themselves(tmp_path):
    counts = save_pairs(tmp_path, 2, [question(n) for n in range(40)])
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert (info["round"], info["train_rows"], info["validation_rows"]) == (2, counts.train, counts.validation)
    assert info["questions"] == 40
    assert set(info["columns"]) == set(PAIR_SCHEMA.names)
    assert set(info["by_question"]["columns"]) == set(QUESTION_SCHEMA.names)


def test_a_round_without_pairs_leaves_readable_empty_files(tmp_path):
    assert save_pairs(tmp_path, 1, []).pairs == 0
    assert [pq.read_table(tmp_path / name).num_rows for name in PAIR_FILES] == [0, 0, 0, 0]


def test_questions_that_fail_on_their_way_leave_the_files_as_they_were(tmp_path):
    save_pairs(tmp_path, 2, [question(1)])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken():
        yield question(2)
        raise pa.ArrowInvalid("the journal is gone")

    with pytest.raises(pa.ArrowInvalid):
        save_pairs(tmp_path, 2, broken())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
