"""The only writer of parquet: a round's preference pairs, in the columns that DPO tools expect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prosetting.core.artifacts import replace_atomically, write_json
from prosetting.core.crash_points import reached
from prosetting.datasets.dpo_data_converter import VALIDATION_SHARE, is_validation
from prosetting.records import PreferencePair

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
ROWS_A_GROUP = 50_000


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Pairs written, by side of the split, and the questions they come from."""

    train: int
    validation: int
    questions: int

    @property
    def total(self) -> int:
        return self.train + self.validation


def save_pairs(folder: Path, round_: int, pairs: Iterable[PreferencePair]) -> PairCounts:
    """Write train.parquet, validation.parquet and dataset_info.json of one round."""
    counts = {"train": 0, "validation": 0}
    questions: set[str] = set()
    with (
        replace_atomically(folder / "train.parquet") as train_path,
        replace_atomically(folder / "validation.parquet") as validation_path,
        _writer(train_path) as train,
        _writer(validation_path) as validation,
    ):
        for chunk in _chunks(pairs):
            sides = {"train": [], "validation": []}  # type: dict[str, list[PreferencePair]]
            for pair in chunk:
                sides["validation" if is_validation(pair.question_id) else "train"].append(pair)
                questions.add(pair.question_id)
            for name, writer in (("train", train), ("validation", validation)):
                counts[name] += len(sides[name])
                writer.write_table(pa.Table.from_pylist([asdict(pair) for pair in sides[name]], PAIR_SCHEMA))
            reached("parquet:rows_written")
        train.close()
        validation.close()
    found = PairCounts(counts["train"], counts["validation"], len(questions))
    write_json(folder / "dataset_info.json", _info(round_, found))
    return found


def _writer(path: Path) -> Any:
    return pq.ParquetWriter(path, PAIR_SCHEMA, compression="zstd", use_dictionary=True, write_page_checksum=True)


def _chunks(pairs: Iterable[PreferencePair]) -> Iterator[list[PreferencePair]]:
    stream = iter(pairs)
    while chunk := list(islice(stream, ROWS_A_GROUP)):
        yield chunk


def _info(round_: int, counts: PairCounts) -> dict[str, Any]:
    return {
        "round": round_,
        "format": "preference pairs (prompt, chosen, rejected)",
        "columns": {field.name: str(field.type) for field in PAIR_SCHEMA},
        "train_rows": counts.train,
        "validation_rows": counts.validation,
        "questions": counts.questions,
        "split": f"by question id: validation when int(id[:8], 16) / 16**8 < {VALIDATION_SHARE}",
    }
