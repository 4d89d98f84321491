"""Child processes that never outlive the run.

Samplers, trainers and the embedded teacher run as `python -m …` in process groups of their own, so that one
signal ends a whole group. Each child watches the run: once the run is gone, even by kill -9, it ends its group.
What cannot do so any more, the workspace's next run ends (`orphans`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from prosetting.core import forked as forked_program
from prosetting.core.crash_points import reached

RUN_PID = "PROSETTING_RUN_PID"
WATCH_INTERVAL_S = 1.0
END_GRACE_S = 5.0
_ended: weakref.WeakSet[subprocess.Popen[str]] = weakref.WeakSet()


def start_child(
    module_and_args: Sequence[str],
    *,
    log_file: Path,
    extra_env: Mapping[str, str] | None = None,
    pipes: bool = False,
    forked: bool = False,
    python: str = sys.executable,
    python_options: Sequence[str] = ("-m",),
) -> subprocess.Popen[str]:
    """Start `python -m module args…`, its messages appended to `log_file`.

    With `pipes`, stdin and stdout are text pipes for a protocol; otherwise stdout goes to the log too. `forked`: as a
    fork of the run's fork server where there is one, with its libraries loaded.
    Another `python` is another environment, whose programs are given no keys of endpoints.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    reached(f"child:to_start:{module_and_args[0]}")
    with log_file.open("a") as log:
        stream: IO[str] | int = subprocess.PIPE if pipes else log
        child = subprocess.Popen(
            forked_command(module_and_args) if forked else [python, *python_options, *module_and_args],
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=stream,
            stderr=log,
            text=True,
            encoding="utf-8",
            env={
                **(os.environ if python == sys.executable else without_keys()),
                "PYTHONUNBUFFERED": "1",
                **(extra_env or {}),
                RUN_PID: str(os.getpid()),
            },
            start_new_session=True,
        )
    reached(f"child:started:{module_and_args[0]}")
    return child


def forked_command(module_and_args: Sequence[str]) -> list[str]:
    """What does `python -m module args…`, by the run's fork server where there is one."""
    start = ["-I", "-S", forked_program.__file__] if forked_program.SERVER in os.environ else ["-m"]
    return [sys.executable, *start, *module_and_args]


def start_program(
    command: Sequence[str], *, log_file: Path, extra_env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start a program that is not ours as a child of the run, in whose group nothing outlives it or the run.

    The child is `guarded`, which watches both.
    """
    return start_child(["prosetting.core.guarded", *command], log_file=log_file, extra_env=extra_env)


def end_children(running: Sequence[subprocess.Popen[str]]) -> None:
    """End several at once: they have their END_GRACE_S together."""
    until = time.monotonic() + END_GRACE_S
    for child in running:
        if child not in _ended and child.poll() is None:
            _signal_group(child.pid, signal.SIGTERM)
    for child in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=max(0.0, until - time.monotonic()))
        kill_child(child)
        end_child(child)


def without_keys() -> dict[str, str]:
    """This process's environment without the keys of endpoints."""
    return {name: value for name, value in os.environ.items() if not name.upper().endswith("API_KEY")}


def end_child(child: subprocess.Popen[str]) -> None:
    """End the child's whole group: SIGTERM, then SIGKILL after END_GRACE_S. Only the first call does anything."""
    if child in _ended:
        return  # its number may be another process's by now
    _ended.add(child)
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    _signal_group(child.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=END_GRACE_S)
    _signal_group(child.pid, signal.SIGKILL)
    child.wait()


def kill_child(child: subprocess.Popen[str]) -> None:
    """Kill the child's whole group and wait for nothing; `end_child` is still to be called."""
    if child not in _ended and child.poll() is None:
        _signal_group(child.pid, signal.SIGKILL)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def run_is_there() -> bool:
    """Whether the run that started this process lives; True where none did."""
    run_pid = int(os.environ.get(RUN_PID, "0"))
    return not run_pid or _alive(run_pid)


def end_with_the_run() -> None:
    """Called first in every child: a thread ends the child's group once the run is gone."""
    run_pid = int(os.environ.get(RUN_PID, "0"))
    if run_pid:
        threading.Thread(target=_watch, args=(run_pid,), daemon=True).start()


def _watch(run_pid: int) -> None:
    while _alive(run_pid):
        time.sleep(WATCH_INTERVAL_S)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Killed, but kept in the process table by a parent that does not look after it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False


def log_tail(log_file: Path, lines: int = 15) -> str:
    """The end of a child's log, for an error message."""
    try:
        with log_file.open("rb") as stream:
            stream.seek(max(0, log_file.stat().st_size - 64_000))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:])
