"""Processes that an earlier run of a workspace left behind: found by a mark in their environment, and ended.

Children end themselves once their run is gone (`children`), but one that hangs in a driver call, or is stopped, cannot
do that and keeps its GPU. While a run lives, all that it starts, and all that these start, inherit its workspace's
identity in MARK. The kernel keeps what a process was started with: there is no list that could be stale, and no number
that another process could have by now. Without /proc (macOS) nothing is looked for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prosetting.core.children import RUN_PID
from prosetting.core.text import printable

MARK = "PROSETTING_RUN_WORKSPACE"
PATIENCE_S = 10.0
_READ_DEADLINE_S = 1.0
_POLL_S = 0.05
_PROC = Path("/proc")
_LONGEST_COMMAND = 120  # characters

log = logging.getLogger("prosetting")


@contextmanager
def none_left_behind(workspace: Path) -> Iterator[None]:
    """For a run that holds the workspace's lock: end what an earlier one left, then mark what is started here."""
    mark = mark_of(workspace)
    end_orphans(mark)
    before = os.environ.get(MARK)
    os.environ[MARK] = mark
    try:
        yield
    finally:
        del os.environ[MARK]
        if before is not None:
            os.environ[MARK] = before


def mark_of(workspace: Path) -> str:
    """The folder itself, not its path: containers that share the process table may each have one of that path."""
    folder = workspace.stat()
    return f"{folder.st_dev}:{folder.st_ino}"


def _entry(mark: str) -> str:
    """The mark as it stands in an environment."""
    return f"{MARK}={mark}"


def pids_of_run(workspace: Path) -> set[int]:
    """The processes that the run of this workspace has started, and they, and that are alive; not the run itself."""
    return set(_marked(_entry(mark_of(workspace)), set()))


def end_orphans(mark: str) -> list[int]:
    """Kill this user's processes with that mark and wait until they are gone: those that PATIENCE_S did not end. What
    is a child of this run already is spared.

    What it ended, and what it could not end or look at, goes to the log.
    """
    left, found, unreadable = _end_marked(_entry(mark), spare=_is_of_this_run)
    for pid, command in found.items():
        outcome = "cannot be ended, and may hold a GPU" if pid in left else "ended"
        log.warning("an earlier run left process %d behind (%s): %s", pid, command, outcome)
    for pid in unreadable:
        log.warning("process %d hangs in the kernel; if an earlier run left it behind, it may hold a GPU", pid)
    return list(left)


def end_processes_with(variable: str, value: str) -> None:
    """Kill what was started with this in its environment: the part of a child's family that has left its group."""
    left, _, _ = _end_marked(f"{variable}={value}")
    for pid, command in left.items():
        log.warning("process %d cannot be ended, and may hold a GPU: %s", pid, command)


def _end_marked(
    entry: str, *, spare: Callable[[int], bool] = lambda pid: False
) -> tuple[dict[int, str], dict[int, str], set[int]]:
    """Kill until nothing with that entry in its environment is left, for PATIENCE_S at most: what is left all the
    same, what there was, and what cannot be looked at."""
    unreadable: set[int] = set()

    def marked() -> dict[int, str]:
        return {pid: command for pid, command in _marked(entry, unreadable).items() if not spare(pid)}

    left = marked()
    found = dict(left)
    deadline = time.monotonic() + PATIENCE_S
    while left and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)
        left = marked()
        found |= left
    return left, found, unreadable


def _marked(entry: str, unreadable: set[int]) -> dict[int, str]:
    """The command of each process of this user that was started with the entry; never of this one or its callers.

    A process that lets nobody read its memory is added to `unreadable` and not asked again.
    """
    wanted, passed_over, found = entry.encode(), unreadable | _with_callers(os.getpid()), {}
    for process in _PROC.glob("[0-9]*"):
        pid = int(process.name)
        if pid in passed_over or not _is_ours(process):
            continue
        texts = _environment_and_command(process)
        if texts is None:
            unreadable.add(pid)
        elif wanted in texts[0].split(b"\0"):
            found[pid] = printable(texts[1].replace(b"\0", b" ").decode(errors="replace"))[:_LONGEST_COMMAND]
    return found


def _is_ours(entry: Path) -> bool:
    try:
        return entry.stat().st_uid == os.geteuid()
    except OSError:
        return False


def _environment_and_command(entry: Path) -> tuple[bytes, bytes] | None:
    """As the process was started; empty once it is gone. None for one that hangs with its memory locked: whoever
    reads that hangs too, so a thread does it that nobody waits for."""
    found: list[tuple[bytes, bytes]] = []

    def read() -> None:
        try:
            found.append(((entry / "environ").read_bytes(), (entry / "cmdline").read_bytes()))
        except OSError:
            found.append((b"", b""))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(_READ_DEADLINE_S)
    return found[0] if found else None


def _is_of_this_run(pid: int) -> bool:
    """One that this process has started as a child of its run, before it was marked."""
    texts = _environment_and_command(_PROC / str(pid)) or (b"", b"")
    return f"{RUN_PID}={os.getpid()}".encode() in texts[0].split(b"\0") and os.getpid() in _with_callers(pid)


def _with_callers(pid: int) -> set[int]:
    callers: set[int] = set()
    while pid > 0:
        callers.add(pid)
        try:
            pid = int((_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            break
    return callers
