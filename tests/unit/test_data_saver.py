import json

import pyarrow.parquet as pq

from prosetting.datasets.data_saver import PAIR_SCHEMA, save_pairs
from prosetting.datasets.dpo_data_converter import is_validation
from prosetting.records import PreferencePair, question_id_of


def pair(number: int) -> PreferencePair:
    return PreferencePair("p", f"good {number}", "bad", question_id_of(str(number)), 0, 1, 2)


def test_pairs_are_split_by_question_and_come_back_whole(tmp_path):
    pairs = [pair(n) for n in range(200)]
    counts = save_pairs(tmp_path, 2, pairs)
    train, validation = (pq.read_table(tmp_path / f"{side}.parquet").to_pylist() for side in ("train", "validation"))
    assert (len(train), len(validation)) == (counts.train, counts.validation)
    assert not any(is_validation(row["question_id"]) for row in train)
    assert all(is_validation(row["question_id"]) for row in validation)
    assert {row["chosen"] for row in train + validation} == {p.chosen for p in pairs}
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert (info["train_rows"], info["validation_rows"], info["questions"]) == (counts.train, counts.validation, 200)


def test_a_round_without_pairs_leaves_readable_empty_files(tmp_path):
    counts = save_pairs(tmp_path, 1, [])
    assert counts.total == 0
    for side in ("train", "validation"):
        table = pq.read_table(tmp_path / f"{side}.parquet")
        assert table.num_rows == 0
        assert table.schema.equals(PAIR_SCHEMA)
