"""The journal's file: opened, written in transactions, read in pages, and the facts of the run as a whole."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

from prosetting.core.crash_points import connection_class
from prosetting.core.journal_rows import JOURNAL_VERSION, SCHEMA
from prosetting.core.question_index import QuestionIndex
from prosetting.core.storage import journal_damaged, pause_for
from prosetting.errors import WorkspaceError

PAGE = 500
"""Rows that are in memory at a time when a round is read."""


class JournalFile:
    """What every part of `Journal` has; not made by itself."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        refuse_other_version(path)
        self.last_written_at = path.stat().st_mtime if path.exists() else time.time()
        """When the journal was written last before it was opened here, in seconds since the epoch."""
        if read_only and not (path.exists() and path.stat().st_size):
            raise WorkspaceError(f"no run has been started in {path.parent}", next_step="start one: prosetting run")
        try:
            target = f"file:{path}?mode=ro" if read_only else f"file:{path}"
            self._db = sqlite3.connect(target, uri=True, isolation_level=None, timeout=30, factory=connection_class())
            self._db.execute("PRAGMA journal_mode" if read_only else f"PRAGMA journal_mode={journal_mode()}")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            if not read_only and not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
                self._create()
            self.question_index = QuestionIndex(self._db)
        except sqlite3.DatabaseError as error:
            raise pause_for(error, path.parent) or journal_damaged(path, error) from error

    def _create(self) -> None:
        with self.transaction():
            for statement in SCHEMA.split(";\n\n"):
                self._db.execute(statement)
            self.set_fact("journal_version", JOURNAL_VERSION)

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside are committed together, or none. One inside another joins it."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled back already.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All reads inside see one state. A run's commit waits for its end: for a few milliseconds of reading."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("ROLLBACK")

    def _in_pages(self, statement: str, of: tuple[Any, ...], start: tuple[Any, ...], key: slice) -> Iterator[Any]:
        """All rows of a statement that takes `of`, the key of the row to go on after, and how many at most.

        `key` is where a row holds its key, `start` one before the first. A page is whole before it is given away, so no
        cursor stands open while a caller writes.
        """
        after: tuple[Any, ...] | None = start
        while after is not None:
            rows = self._db.execute(statement, (*of, *after, PAGE)).fetchall()
            yield from rows
            after = rows[-1][key] if len(rows) == PAGE else None

    def set_fact(self, name: str, value: Any) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value, sort_keys=True)))

    def fact(self, name: str) -> Any:
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else None


def refuse_other_version(path: Path) -> None:
    """Raises WorkspaceError for a journal of another version; touches neither it nor its folder.

    `immutable` leaves even a commit that was cut short to whoever opens the journal to write.
    """
    if not (path.exists() and path.stat().st_size):
        return
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as db:
        try:
            row = db.execute("SELECT value FROM facts WHERE name = 'journal_version'").fetchone()
        except sqlite3.DatabaseError:
            return  # damaged, or not created yet: for `Journal` to tell
    if row and row[0] != str(JOURNAL_VERSION):
        raise WorkspaceError(
            f"{path} is of journal version {row[0]}, this program reads {JOURNAL_VERSION}",
            next_step="use the version that made it, or set another WORKSPACE_DIR",
        )


def journal_mode() -> str:
    """WAL loses data in a race of two connections before SQLite 3.51.3 (fixed also in 3.50.7 and 3.44.6)."""
    version = sqlite3.sqlite_version_info
    sound = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    return "WAL" if sound else "TRUNCATE"
