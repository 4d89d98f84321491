"""How another program asks a live run to pause, go on or stop: `prosetting ctl` and the dashboard.

Two small files in WORKSPACE/control, each written whole by one side only. Who asks writes `wish.json`, the run writes
what it does in `state.json` with the wish that it has seen. Both name the run (pid, host, time of start) as its lock
does, so what a dead run left says nothing to the next one. The run looks every POLL_S whether the wish's file has
changed: a file works under nohup, over a shared disk and in any container, and costs four calls of `stat` a second.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any

from prosetting.core import pausing, stopping
from prosetting.core.artifacts import read_json, write_json
from prosetting.core.workspace import Workspace, holder_of
from prosetting.errors import DataError, ProSettingError, WorkspaceError

POLL_S = 0.25
ANSWER_WITHIN_S = 15.0
QUIET_POLLS = 2
"""Polls in a row without anything in flight before a run calls itself paused: a commit follows the work it is of."""
_asking = threading.Lock()
log = logging.getLogger("prosetting")


class Wish(StrEnum):
    """What a run can be asked for."""

    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"


class RunState(StrEnum):
    """What a live run does. `waiting`: a person is asked (semi-automatic mode); `none`: there is no live run."""

    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    WAITING = "waiting"
    STOPPING = "stopping"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class ControlStatus:
    """A run as others see it: its state, who holds the workspace (pid, host, since), and what a person is asked."""

    state: RunState
    holder: dict[str, Any] | None
    question: str = ""


# For who asks


def control_status(workspace: Workspace) -> ControlStatus:
    """What the live run of a workspace does, as it said last."""
    holder = holder_of(workspace)
    if holder is None:
        return ControlStatus(RunState.NONE, None)
    said = _read(workspace.control_state)
    if said.get("holder") != holder:
        return ControlStatus(RunState.RUNNING, holder)
    return ControlStatus(RunState(said["state"]), holder, said["question"])


def ask_run(workspace: Workspace, wish: Wish, *, deadline_s: float = ANSWER_WITHIN_S) -> ControlStatus:
    """Ask the live run for something and wait until it has heard it; not until it is done: see `wait_for`.

    Raises WorkspaceError when no run lives here, ProSettingError when it does not answer in time.
    """
    holder = holder_of(workspace)
    if holder is None:
        raise WorkspaceError(
            f"no run is live in {workspace.root}", next_step="start it, or go on with it: prosetting run"
        )
    number = uuid.uuid4().hex
    with _asking:  # threads of one program write by way of one temporary file
        write_json(workspace.control_wish, {"wish": wish.value, "number": number, "holder": holder})
    until = time.monotonic() + deadline_s
    while not _has_heard(workspace, number):
        if holder_of(workspace) != holder:
            return ControlStatus(RunState.NONE, None)
        if time.monotonic() > until:
            raise ProSettingError(
                f"process {holder['pid']} on {holder['host']} has not answered within {deadline_s:.0f} s",
                next_step=f"see whether it is stopped or hangs; to end it: kill {holder['pid']}",
            )
        time.sleep(POLL_S / 4)
    return control_status(workspace)


def _has_heard(workspace: Workspace, number: str) -> bool:
    """Whether the run has seen this wish, or another that has come after it."""
    asked = _read(workspace.control_wish).get("number")
    return _read(workspace.control_state).get("wish") in ({number, asked} if asked else {number})


def wait_for(workspace: Workspace, wish: Wish, deadline_s: float) -> ControlStatus:
    """Wait until what was asked for is done: paused, going on, ended. The state at the end, also when time is up."""
    until = time.monotonic() + deadline_s
    while not is_done(wish, (status := control_status(workspace)).state) and time.monotonic() < until:
        time.sleep(POLL_S)
    return status


def is_done(wish: Wish, state: RunState) -> bool:
    """Whether a run in this state does what was asked for, or will not do it any more: it is to end."""
    ends = {RunState.STOPPING, RunState.NONE}
    return (
        state
        in {
            Wish.PAUSE: {RunState.PAUSED, RunState.WAITING} | ends,
            Wish.RESUME: {RunState.RUNNING, RunState.WAITING} | ends,
            Wish.STOP: {RunState.NONE},
        }[wish]
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_json(file) if file.exists() else {}
    except (DataError, RecursionError):
        return {}  # of another version, or no file of ours


# For the run


class Control:
    """A thread of the run that hears wishes and says what the run does. Used as a context manager, under the lock."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._holder = holder_of(workspace)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="control", daemon=True)
        self._heard: tuple[int, int] | None = None
        self._number = ""
        self._said: tuple[str, str, str] | None = None
        self._quiet_polls = 0
        self._question = ""
        self._answer: Wish | None = None

    def __enter__(self) -> Control:
        self._remove_files()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._remove_files()

    def _remove_files(self) -> None:
        for file in (self._workspace.control_wish, self._workspace.control_state):
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)

    @contextmanager
    def asking(self, question: str) -> Iterator[None]:
        """While a person is asked, `answer` gives what others wish instead."""
        self._question, self._answer = question, None
        try:
            yield
        finally:
            self._question = ""

    def answer(self) -> Wish | None:
        """The wish that came while a person is asked: resume is to go on, stop to quit."""
        found, self._answer = self._answer, None
        return found

    def _watch(self) -> None:
        while not self._ended.wait(POLL_S):
            try:
                self._hear()
                self._say()
            except OSError as error:  # a disk that is full now: the run itself tells it
                log.debug("control: %s", error)

    def _hear(self) -> None:
        try:
            found = self._workspace.control_wish.stat()
        except FileNotFoundError:
            return
        if (found.st_ino, found.st_mtime_ns) == self._heard:
            return
        self._heard = (found.st_ino, found.st_mtime_ns)
        asked = _read(self._workspace.control_wish)
        wish = asked.get("wish")
        if asked.get("holder") == self._holder and isinstance(wish, str) and wish in set(Wish):
            self._number = str(asked.get("number"))
            self._obey(Wish(wish))

    def _obey(self, wish: Wish) -> None:
        log.info("asked by another program to %s", wish.value)
        if wish is Wish.RESUME:
            pausing.go_on()
        if self._question:
            self._answer = wish
        elif wish is Wish.PAUSE:
            pausing.wish()
        elif wish is Wish.STOP and not stopping.requested():
            # As the first Ctrl+C: its handler runs in the main thread.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def _state(self) -> RunState:
        if stopping.requested():
            return RunState.STOPPING
        if self._question:
            return RunState.WAITING
        if not pausing.requested():
            return RunState.RUNNING
        self._quiet_polls = self._quiet_polls + 1 if pausing.quiet() else 0
        return RunState.PAUSED if self._quiet_polls >= QUIET_POLLS else RunState.PAUSING

    def _say(self) -> None:
        """Write what the run does, when that has changed."""
        state = self._state()
        saying = (state.value, self._number, self._question)
        if saying == self._said or (self._said is None and saying == (RunState.RUNNING, "", "")):
            return
        if state is RunState.PAUSED and self._said and self._said[0] != state:
            log.info("paused: nothing is in flight. To go on: prosetting ctl resume")
        content = {"state": state.value, "wish": self._number, "holder": self._holder, "question": self._question}
        write_json(self._workspace.control_state, content)
        self._said = saying
