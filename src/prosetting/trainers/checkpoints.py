"""Folders of weights that are whole or not there: trainer checkpoints and finished models.

A folder is sealed by `complete.json`, written last: the SHA-256 of every file in it and the run of training that
it belongs to. A folder whose seal is missing, broken or another run's is never loaded: it is moved to quarantine.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosetting.core.artifacts import read_json, write_json
from prosetting.core.crash_points import kind_of, reached
from prosetting.errors import DataError, TrainingError

log = logging.getLogger("prosetting")

SEAL = "complete.json"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
CHECKPOINTS_KEPT = 2
DROPPED = "dropped"
LOCK = "lock"
LOCK_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Sealed:
    """A folder found whole. `facts` is what its maker put into the seal."""

    folder: Path
    facts: dict[str, Any]


def seal(folder: Path, run: str, facts: dict[str, Any]) -> None:
    """Put every file of `folder` on the disk, then write its seal for `run`."""
    files = {}
    for file in _files(folder):
        files[str(file.relative_to(folder))] = sha256(file)
        sync(file)
    for inner in {file.parent for file in _files(folder)} | {folder, folder.parent}:
        sync(inner)
    reached(f"folder:synced:{kind_of(folder)}")
    write_json(folder / SEAL, {"run": run, "facts": facts, "files": files})


def open_sealed(folder: Path, run: str) -> Sealed:
    """Read every byte of `folder` against its seal. Raises DataError that says what is wrong with it."""
    content = read_json(folder / SEAL)
    try:
        of_run, facts, listed = content["run"], dict(content["facts"]), dict(content["files"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / SEAL} is no seal", next_step="prosetting status") from error
    found = {str(file.relative_to(folder)): file for file in _files(folder)}
    if of_run != run:
        problem = "it was made by another training (other weights, pairs or settings)"
    elif differing := found.keys() ^ listed.keys():
        problem = f"{min(differing)} is {'missing' if min(differing) in listed else 'not in its seal'}"
    elif changed := [name for name, file in found.items() if sha256(file) != listed[name]]:
        problem = f"{changed[0]} is damaged"
    else:
        return Sealed(folder, facts)
    raise DataError(f"{folder} is not used: {problem}", next_step="prosetting status")


def quarantine(folder: Path, into: Path, why: str) -> Path:
    """Move `folder` out of the way, to `into`/NAME-N, and say so in the log. Nothing is deleted."""
    into.mkdir(parents=True, exist_ok=True)
    number = 1
    while (target := into / f"{folder.name}-{number}").exists():
        number += 1
    os.replace(folder, target)
    sync(into)
    sync(folder.parent)
    log.warning("%s; it was moved to %s", why, target)
    return target


def sealed_or_quarantined(folder: Path, run: str, into: Path) -> Sealed | None:
    """`folder` if it is whole and of `run`; None where there is none, or where it had to go to quarantine."""
    if not folder.exists():
        return None
    try:
        return open_sealed(folder, run)
    except DataError as error:
        quarantine(folder, into, error.what)
        return None


def checkpoints(work: Path) -> list[Path]:
    """The trainer checkpoints in `work`, the newest first."""
    steps = {folder: CHECKPOINT.fullmatch(folder.name) for folder in work.glob("checkpoint-*") if folder.is_dir()}
    numbered = [(int(match[1]), folder) for folder, match in steps.items() if match]
    return [folder for _, folder in sorted(numbered, reverse=True)]


def newest_checkpoint(work: Path, run: str, into: Path) -> Sealed | None:
    """The newest whole checkpoint of `run`; those met before it go to quarantine."""
    found = (sealed_or_quarantined(folder, run, into) for folder in checkpoints(work))
    return next((sealed for sealed in found if sealed), None)


def drop_older(work: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, each under another name first: a half one is never met."""
    clear_dropped(work)
    for folder in checkpoints(work)[keep:]:
        os.replace(folder, work / DROPPED)
        clear_dropped(work)


def clear_dropped(work: Path) -> None:
    shutil.rmtree(work / DROPPED, ignore_errors=True)


def put_in_place(new: Path, target: Path) -> None:
    """Make the folder `new` be `target`, where nothing stands, in one step."""
    reached(f"folder:made:{kind_of(target)}")
    os.replace(new, target)
    reached(f"folder:renamed:{kind_of(target)}")
    sync(target.parent)
    reached(f"folder:settled:{kind_of(target)}")


@contextmanager
def hold(work: Path, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """Hold `work` alone. A trainer whose run was killed lives on for a second: it is waited for.

    Raises TrainingError when another still holds it after `wait_s`.
    """
    work.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + wait_s
    with (work / LOCK).open("a") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise TrainingError(
                        f"another training still works in {work}", next_step="end that process, then start again"
                    ) from None
                time.sleep(0.1)
        yield


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Have the disk hold what `path`, a file or a folder, holds now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(folder: Path) -> list[Path]:
    """All files below `folder` but its seal and what an unfinished writing of the seal left."""
    return sorted(
        path
        for path in folder.rglob("*")
        if not path.is_dir()
        and not (path.parent == folder and (path.name == SEAL or path.name.startswith(f".{SEAL}.")))
    )
