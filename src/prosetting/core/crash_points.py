"""Named points of a run at which it can be made to die or to fail: how its promises are tested.

    PROSETTING_CRASH_AT=journal:before_commit:grades#2     kill -9 itself at the second time it gets there
    PROSETTING_FAIL_AT=artifact:begun:train.parquet#1:ENOSPC   that error is raised there; with `#1+` ever after
    PROSETTING_CRASH_LOG=FILE                              append a line for each point reached

A point stands at every write, sync, rename, commit and child start. The variables hold for child processes too,
each of which counts for itself. Without them a point costs one comparison.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CRASH_AT, FAIL_AT, CRASH_LOG = "PROSETTING_CRASH_AT", "PROSETTING_FAIL_AT", "PROSETTING_CRASH_LOG"
KILLED = "killed"
_FAULT = re.compile(r"(?P<name>.+)#(?P<nth>\d+)(?P<persistent>\+?):(?P<code>[A-Z]+)")
# What SQLite makes of these errors.
_SQLITE_WORDS = {
    errno.ENOSPC: "database or disk is full",
    errno.EIO: "disk I/O error",
    errno.EACCES: "attempt to write a readonly database",
}


@dataclass(slots=True)
class _Orders:
    """What the environment asks for, and how often each point was reached in this process."""

    crash: tuple[str, int] | None
    fail: re.Match[str] | None
    log: str
    counts: Counter[str] = field(default_factory=Counter)

    def reached(self, name: str, detail: str) -> None:
        self.counts[name] += 1
        self._write(name, detail)
        if self.crash == (name, self.counts[name]):
            self._write(KILLED, f"{name}#{self.counts[name]}")
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fail and self.fail["name"] == name and self._is_due(self.fail):
            raise _error(name, self.fail["code"])

    def _is_due(self, fail: re.Match[str]) -> bool:
        count, nth = self.counts[fail["name"]], int(fail["nth"])
        return count >= nth if fail["persistent"] else count == nth

    def _write(self, name: str, detail: str) -> None:
        if self.log:
            descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            os.write(descriptor, f"{name}\t{detail}\n".encode())
            os.close(descriptor)


def _orders(environ: Mapping[str, str]) -> _Orders | None:
    crash, fail, log = (environ.get(name, "") for name in (CRASH_AT, FAIL_AT, CRASH_LOG))
    if not (crash or fail or log):
        return None
    name, _, nth = crash.rpartition("#")
    return _Orders((name, int(nth)) if crash else None, _FAULT.fullmatch(fail), log)


_active = _orders(os.environ)


def arm() -> None:
    """Read the environment again: for a process that was forked, not started."""
    global _active
    _active = _orders(os.environ)


def reached(name: str, detail: str = "") -> None:
    """Say that the run is at this point. `detail` goes to the log only. Raises what PROSETTING_FAIL_AT orders."""
    if _active is not None:
        _active.reached(name, detail)


def kind_of(path: Path) -> str:
    """A file's name without its numbers: the same for every round."""
    return re.sub(r"\d+", "N", path.name)


def _error(name: str, code: str) -> Exception:
    number = getattr(errno, code)
    if name.startswith("journal:"):
        return sqlite3.OperationalError(_SQLITE_WORDS[number])
    return OSError(number, os.strerror(number))


# The journal's commits, named by the tables that they write


def connection_class() -> type[sqlite3.Connection]:
    """What the journal connects with: sqlite3's own class unless a point may matter."""
    return sqlite3.Connection if _active is None else _WatchedConnection


_WRITE = re.compile(r"\s*(?:INSERT(?: OR \w+)? INTO|DELETE FROM|UPDATE|(CREATE) (?:TABLE|INDEX))\s+(\w+)")


class _WatchedConnection(sqlite3.Connection):
    """Reaches `journal:before_commit:TABLE` and `journal:after_commit:TABLE` for each table of a commit."""

    _tables: frozenset[str] = frozenset()

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        with self._watched(sql):
            return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        with self._watched(sql):
            return super().executemany(sql, parameters)

    @contextmanager
    def _watched(self, sql: str) -> Iterator[None]:
        if sql.startswith(("BEGIN", "ROLLBACK")):
            self._tables = frozenset()
        elif match := _WRITE.match(sql):
            self._tables |= {"schema" if match[1] else match[2]}
        commits = bool(self._tables) and (sql == "COMMIT" or not self.in_transaction)
        tables, self._tables = sorted(self._tables), frozenset() if commits else self._tables
        for table in tables if commits else ():
            reached(f"journal:before_commit:{table}")
        yield
        for table in tables if commits else ():
            reached(f"journal:after_commit:{table}")
