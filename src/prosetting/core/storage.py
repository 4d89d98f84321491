"""What the disk under a run can hold, and what a failed write means: a pause, never a damaged run."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prosetting.errors import RunPaused, WorkspaceError

MIB = 2**20
ENOUGH_FOR_A_WHILE = 512 * MIB
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_FAILING = {errno.EIO}
_SQLITE_NUMBERS = {
    "SQLITE_FULL": errno.ENOSPC,
    "SQLITE_READONLY": errno.EROFS,
    "SQLITE_PERM": errno.EACCES,
    "SQLITE_CANTOPEN": errno.EACCES,
    "SQLITE_IOERR": errno.EIO,
}
_DAMAGED = {"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_CORRUPT_INDEX", "SQLITE_CORRUPT_SEQUENCE"}
_WORDS = {
    "database or disk is full": errno.ENOSPC,
    "disk I/O error": errno.EIO,
    "attempt to write a readonly database": errno.EROFS,
    "unable to open database file": errno.EACCES,
}


def pause_for(error: BaseException, folder: Path) -> RunPaused | None:
    """The pause that a failed write is, or None for every other error. `folder` is where the run writes."""
    number = _number(error)
    if number is None:
        return None
    place = _existing(Path(error.filename) if isinstance(error, OSError) and error.filename else folder)
    free = shutil.disk_usage(place).free
    what = f"{error} (file system {mount_point(place)}, {_size(free)} free there)"
    if number in _FULL:
        step = f"make room on {mount_point(place)}, {_size(ENOUGH_FOR_A_WHILE)} more will do for a while"
    elif number in _FORBIDDEN:
        step = f"make {place} writable again"
    else:
        step = f"look after that disk (dmesg), or move {folder} to another one and set WORKSPACE_DIR"
    return RunPaused(
        f"the run cannot use its files: {what}", next_step=f"{step}; then the same command goes on from here"
    )


@contextmanager
def writes_pause(folder: Path) -> Iterator[None]:
    """A write inside that the disk does not take is raised as RunPaused, a damaged journal as WorkspaceError."""
    try:
        yield
    except (OSError, sqlite3.DatabaseError) as error:
        if told := pause_for(error, folder) or damage_for(error, folder):
            raise told from error
        raise


def damage_for(error: BaseException, folder: Path) -> WorkspaceError | None:
    """The refusal that a damaged journal is, or None for every other error."""
    if not isinstance(error, sqlite3.DatabaseError) or getattr(error, "sqlite_errorname", "") not in _DAMAGED:
        return None
    return journal_damaged(folder / "prosetting.db", error)


def journal_damaged(journal: Path, error: BaseException) -> WorkspaceError:
    """A journal that does not read is never begun anew: what is in it was paid for."""
    return WorkspaceError(
        f"the journal {journal} cannot be read: {error}. It is left as it is",
        next_step=f"restore it from a copy, or save what can be: sqlite3 {journal} .recover | sqlite3 mended.db."
        " Another WORKSPACE_DIR starts anew",
    )


def check_room(folder: Path, needed_bytes: int, what: str) -> None:
    """Raises RunPaused when the file system of `folder` has less than `needed_bytes` free for `what`."""
    place = _existing(folder)
    free = shutil.disk_usage(place).free
    if free < needed_bytes:
        raise RunPaused(
            f"{what} needs about {_size(needed_bytes)}, the file system {mount_point(place)} has {_size(free)} free",
            next_step=f"free {_size(needed_bytes - free)} there; then the same command goes on from here",
        )


def mount_point(path: Path) -> Path:
    """The root of the file system that holds `path`."""
    path = path.absolute()
    while not path.is_mount():
        path = path.parent
    return path


def _number(error: BaseException) -> int | None:
    """The errno of a failed write, of the operating system's or as SQLite tells it."""
    if isinstance(error, sqlite3.OperationalError):
        name = getattr(error, "sqlite_errorname", "")
        by_name = next((number for known, number in _SQLITE_NUMBERS.items() if name.startswith(known)), None)
        return by_name or _WORDS.get(str(error))
    if isinstance(error, OSError) and error.errno in _FULL | _FORBIDDEN | _FAILING:
        return error.errno
    return None


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def _size(size_bytes: int) -> str:
    return f"{size_bytes / MIB:,.1f} MiB" if size_bytes < 1024 * MIB else f"{size_bytes / MIB / 1024:,.1f} GiB"
