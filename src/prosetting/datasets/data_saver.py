"""The only writer of parquet: a round's preference pairs, in the columns that DPO tools expect and one row a question;
in the verl flow its questions instead, in verl's columns.

All are written as a stream, in row groups of a few thousand questions, so that memory does not grow with the round.
In a group each text stands once, however many pairs it is in: `chosen`, `rejected` and `prompt` are indices into it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prosetting.core.artifacts import replace_atomically, write_json
from prosetting.core.crash_points import reached
from prosetting.datasets.dpo_data_converter import VALIDATION_SHARE, is_validation
from prosetting.records import PoolEntry, QuestionPairs

PAIR_SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("question_id", pa.string()),
        ("chosen_attempt", pa.int32()),
        ("rejected_attempt", pa.int32()),
        ("round", pa.int32()),
    ]
)
QUESTION_SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("round", pa.int32()),
        ("prompt", pa.string()),
        ("completions", pa.list_(pa.string())),
        ("attempts", pa.list_(pa.int32())),
        ("chosen", pa.list_(pa.int32())),
        ("rejected", pa.list_(pa.int32())),
    ]
)
VERL_SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        (
            "extra_info",
            pa.struct(
                [
                    ("index", pa.int64()),
                    ("question_id", pa.string()),
                    ("round", pa.int32()),
                    ("pass_rate", pa.float64()),
                ]
            ),
        ),
    ]
)
POOL_SCHEMA = pa.schema(
    [
        ("round", pa.int32()),
        *(
            (name, pa.string())
            for name in ("question_id", "text", "reference", "solution", "kind", "parent_id", "reason")
        ),
    ]
)
_ENCODED_PAIR_SCHEMA = pa.schema(
    (field.name, pa.dictionary(pa.int32(), field.type) if field.type == pa.string() else field.type)
    for field in PAIR_SCHEMA
)
SIDES = ("train", "validation")
PAIR_FILES = (*(f"{side}.parquet" for side in SIDES), *(f"{side}_by_question.parquet" for side in SIDES))
QUESTIONS_A_GROUP = 2_000
LONGEST_GROUP = 32 * 2**20
"""Characters of completions in a row group, beside the question that goes beyond."""


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Pairs and supervised rows written, by side of the split, and the questions they come from."""

    train: int
    validation: int
    supervised_train: int
    supervised_validation: int
    questions: int

    @property
    def pairs(self) -> int:
        return self.train + self.validation

    @property
    def supervised_rows(self) -> int:
        return self.supervised_train + self.supervised_validation


def load_ahead() -> None:
    """pyarrow imports pandas, where that is installed, for its first array: half of what a round's pairs take."""
    pa.array([0])


def save_pairs(folder: Path, round_: int, questions: Iterable[QuestionPairs]) -> PairCounts:
    """Write PAIR_FILES and dataset_info.json of one round: every pair as a row, and every question as a row."""
    rows_written, supervised = dict.fromkeys(SIDES, 0), dict.fromkeys(SIDES, 0)
    total = 0
    with ExitStack() as stack:
        paths = {name: stack.enter_context(replace_atomically(folder / name)) for name in PAIR_FILES}
        pairs = {side: stack.enter_context(_pair_writer(paths[f"{side}.parquet"])) for side in SIDES}
        by_question = {
            side: stack.enter_context(_question_writer(paths[f"{side}_by_question.parquet"])) for side in SIDES
        }
        for group in _groups(questions):
            total += len(group)
            sides: dict[str, list[QuestionPairs]] = {side: [] for side in SIDES}
            for question in group:
                sides["validation" if is_validation(question.question_id) else "train"].append(question)
            for side, part in sides.items():
                if part:
                    rows, table = _tables(part)
                    rows_written[side] += rows.num_rows
                    supervised[side] += pc.sum(pc.equal(rows["chosen_attempt"], rows["rejected_attempt"])).as_py()
                    pairs[side].write_table(rows)
                    by_question[side].write_table(table)
            reached("parquet:rows_written")
    found = PairCounts(
        train=rows_written["train"] - supervised["train"],
        validation=rows_written["validation"] - supervised["validation"],
        supervised_train=supervised["train"],
        supervised_validation=supervised["validation"],
        questions=total,
    )
    write_json(folder / "dataset_info.json", _info(round_, found))
    return found


def save_verl_rows(json_file: Path, parquet_file: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write verl's training file twice, as a JSON array for people and as parquet, which is trained on; how many rows.

    Both hold the rows of `verl_row`, and verl reads either.
    """
    stream, total = iter(rows), 0
    with replace_atomically(json_file) as json_path, replace_atomically(parquet_file) as parquet_path:
        with (
            json_path.open("w", encoding="utf-8") as text,
            pq.ParquetWriter(parquet_path, VERL_SCHEMA, compression="zstd", write_page_checksum=True) as table,
        ):
            opening = "["
            while group := list(islice(stream, QUESTIONS_A_GROUP)):
                for row in group:
                    text.write(f"{opening}\n{json.dumps(row, ensure_ascii=False)}")
                    opening = ","
                table.write_table(pa.Table.from_pylist(group, VERL_SCHEMA))
                total += len(group)
            text.write("[]" if opening == "[" else "\n]")
        reached("parquet:rows_written")
    return total


def save_pools(file: Path, pools: Iterable[tuple[int, PoolEntry]]) -> int:
    """Write the questions of rounds' pools, each with its round, to one file; how many rows it has."""
    stream, total = iter(pools), 0
    with replace_atomically(file) as temporary, pq.ParquetWriter(temporary, POOL_SCHEMA, compression="zstd") as writer:
        while group := list(islice(stream, QUESTIONS_A_GROUP)):
            rows = [{**asdict(entry.question), "round": round_, "reason": entry.reason} for round_, entry in group]
            writer.write_table(pa.Table.from_pylist(rows, schema=POOL_SCHEMA))
            total += len(rows)
    return total


def _tables(questions: Sequence[QuestionPairs]) -> tuple[pa.Table, pa.Table]:
    """The pairs of these questions as rows, and the questions as rows; both point into the same texts."""
    texts = _flat([question.completions for question in questions], pa.string())
    attempts = _flat([question.attempts for question in questions], pa.int32())
    starts = _offsets([len(question.completions) for question in questions])
    pair_starts = _offsets([len(question.chosen) for question in questions])
    by_question = {
        "question_id": pa.array([question.question_id for question in questions], pa.string()),
        "round": pa.array([question.round for question in questions], pa.int32()),
        "prompt": pa.array([question.prompt for question in questions], pa.string()),
        "completions": pa.ListArray.from_arrays(starts, texts),
        "attempts": pa.ListArray.from_arrays(starts, attempts),
        "chosen": pa.ListArray.from_arrays(pair_starts, _flat([question.chosen for question in questions], pa.int32())),
        "rejected": pa.ListArray.from_arrays(
            pair_starts, _flat([question.rejected for question in questions], pa.int32())
        ),
    }
    question_of = pc.list_parent_indices(by_question["chosen"])
    columns = {name: _indexed(by_question[name], question_of) for name in ("prompt", "question_id")}
    columns["round"] = by_question["round"].take(question_of)
    first_text = starts.take(question_of)
    for side in ("chosen", "rejected"):
        place = pc.add(first_text, by_question[side].values)
        columns[side] = _indexed(texts, place)
        columns[f"{side}_attempt"] = attempts.take(place)
    return (
        pa.table([columns[name] for name in PAIR_SCHEMA.names], schema=_ENCODED_PAIR_SCHEMA),
        pa.table([by_question[name] for name in QUESTION_SCHEMA.names], schema=QUESTION_SCHEMA),
    )


def _indexed(values: pa.Array, places: pa.Array) -> pa.DictionaryArray:
    """`values[places]`, with a dictionary of only those values that occur in it."""
    used = places.dictionary_encode()
    return pa.DictionaryArray.from_arrays(used.indices, values.take(used.dictionary))


def _flat(rows: Sequence[Sequence[object]], type_: pa.DataType) -> pa.Array:
    return pa.array(list(chain.from_iterable(rows)), type_)


def _offsets(lengths: list[int]) -> pa.Array:
    return pa.array(list(accumulate(lengths, initial=0)), pa.int32())


def _pair_writer(path: Path) -> Any:
    # Without the schema in the file readers get plain strings back. The limit keeps a group's texts in its dictionary.
    return pq.ParquetWriter(
        path,
        _ENCODED_PAIR_SCHEMA,
        compression="zstd",
        store_schema=False,
        dictionary_pagesize_limit=2**30,
        write_statistics=["question_id"],
        write_page_checksum=True,
    )


def _question_writer(path: Path) -> Any:
    return pq.ParquetWriter(
        path,
        QUESTION_SCHEMA,
        compression="zstd",
        use_dictionary=["round"],
        write_statistics=["question_id"],
        write_page_checksum=True,
    )


def _groups(questions: Iterable[QuestionPairs]) -> Iterator[list[QuestionPairs]]:
    group: list[QuestionPairs] = []
    characters = 0
    for question in questions:
        group.append(question)
        characters += sum(map(len, question.completions))
        if len(group) == QUESTIONS_A_GROUP or characters >= LONGEST_GROUP:
            yield group
            group, characters = [], 0
    if group:
        yield group


def _info(round_: int, counts: PairCounts) -> dict[str, Any]:
    return {
        "round": round_,
        "format": "preference pairs (prompt, chosen, rejected)",
        "columns": {field.name: str(field.type) for field in PAIR_SCHEMA},
        "train_rows": counts.train + counts.supervised_train,
        "validation_rows": counts.validation + counts.supervised_validation,
        "supervised": {
            "format": "chosen = rejected: no preference, a correct attempt for a supervised loss alone",
            "train_rows": counts.supervised_train,
            "validation_rows": counts.supervised_validation,
        },
        "questions": counts.questions,
        "by_question": {
            "format": "one row a question; pair p prefers completions[chosen[p]] to completions[rejected[p]]",
            "columns": {field.name: str(field.type) for field in QUESTION_SCHEMA},
        },
        "split": f"by question id: validation when int(id[:8], 16) / 16**8 < {VALIDATION_SHARE}",
    }
