"""The rounds of one journal up to a given one, copied into another that is new.

Rows of a round that is over never change, so they are read piece by piece: a run that writes to the source waits
for no more than one piece.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from prosetting.core.journal_rows import Split

ROWS_A_PIECE = 10_000
_KEYS = {
    "pools": ("round", "question_id"),
    "enhancements": ("round", "question_id"),
    "judge_checks": ("split", "round", "kind", "name"),
    "trajectories": ("split", "round", "question_id", "attempt"),
    "grades": ("split", "round", "question_id", "attempt"),
    "stages": ("round", "stage"),
    "spans": ("rowid",),
    "failures": ("rowid",),
    "teacher_calls": ("request_hash",),
    "questions": ("question_id",),
}
"""Every table with what its pieces are ordered by, but the facts, which the caller decides on, and what the
journal makes itself: counts and totals as rows are written, the index of questions when a gate is opened."""
_USED = "SELECT question_id FROM pools UNION SELECT admitted_id FROM enhancements WHERE admitted_id IS NOT NULL"


def copy_rounds(source: Path, target: Path, last_round: int, *, without: Mapping[Split, str] | None = None) -> None:
    """Copy all that belongs to rounds up to `last_round`, the pool after it, and every teacher reply.

    `last_round` 0 copies the first pool and the replies. `target` is a journal that was made just now; nobody else
    has it open. Both are of this program's version. `without` names splits whose attempts stay behind, each with the
    stage that scored them.
    """
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=30, isolation_level=None)) as reader,
        closing(sqlite3.connect(target, isolation_level=None)) as writer,
    ):
        writer.execute("PRAGMA synchronous=FULL")
        writer.execute("BEGIN IMMEDIATE")
        for table, keys in _KEYS.items():
            for rows in _pieces(reader, table, keys, last_round, without or {}):
                places = ", ".join("?" * len(rows[0]))
                writer.executemany(f"INSERT INTO {table} VALUES ({places})", rows)
        writer.execute(f"DELETE FROM questions WHERE question_id NOT IN ({_USED})")
        writer.execute("COMMIT")


def _pieces(
    reader: sqlite3.Connection, table: str, keys: Sequence[str], last_round: int, without: Mapping[Split, str]
) -> Iterator[list[tuple[Any, ...]]]:
    """The table's rows in the order of `keys`, without those of later rounds."""
    condition = f"{_belongs(table, last_round)} AND {_stays(table, without)}"
    order, places = ", ".join(keys), ", ".join("?" * len(keys))
    after: tuple[Any, ...] | None = None
    while True:
        behind = f" AND ({order}) > ({places})" if after else ""
        rows = reader.execute(
            f"SELECT {order}, * FROM {table} WHERE {condition}{behind} ORDER BY {order} LIMIT {ROWS_A_PIECE}",
            after or (),
        ).fetchall()
        if not rows:
            return
        after = rows[-1][: len(keys)]
        yield [row[len(keys) :] for row in rows]


def _belongs(table: str, last_round: int) -> str:
    if table in ("teacher_calls", "questions"):
        return "TRUE"
    if table == "pools":
        return f"round <= {last_round + 1}"
    # Round 0 is the base, whose held-out attempts the first round draws.
    return f"round <= {last_round}" if last_round else "FALSE"


def _stays(table: str, without: Mapping[Split, str]) -> str:
    if table == "stages":
        return f"stage NOT IN ({_quoted(without.values())})"
    return f"split NOT IN ({_quoted(without)})" if "split" in _KEYS[table] else "TRUE"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)  # our own words
