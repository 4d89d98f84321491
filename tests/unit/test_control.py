"""What stands in the control files: only a wish for this very run is heard, whoever wrote the file."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from prosetting.core import pausing
from prosetting.core.artifacts import write_json
from prosetting.core.control import Control, RunState, Wish, ask_run, control_status, is_done, wait_for
from prosetting.core.workspace import Workspace, WorkspaceLock, holder_of
from prosetting.errors import WorkspaceError


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = Workspace(tmp_path, tmp_path / "logs")
    found.create()
    return found


def until(holds: Any) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_wish_is_heard_and_what_the_run_does_is_told(workspace: Workspace) -> None:
    with pausing.pausable(), WorkspaceLock(workspace), Control(workspace):
        assert control_status(workspace).state is RunState.RUNNING
        with pausing.in_flight():
            assert ask_run(workspace, Wish.PAUSE).state is RunState.PAUSING
            assert pausing.requested()
        assert wait_for(workspace, Wish.PAUSE, 10).state is RunState.PAUSED
        assert ask_run(workspace, Wish.RESUME).state is RunState.RUNNING
        assert not pausing.requested()
    assert control_status(workspace).state is RunState.NONE
    assert not workspace.control_state.exists()


@pytest.mark.parametrize(
    "content",
    [
        {"wish": "pause", "number": "1", "holder": {"pid": 1, "host": "h", "since": "then"}},
        {"wish": ["pause"], "number": "1"},
        {"wish": "shutdown"},
        {"number": 3},
    ],
)
def test_a_wish_for_another_run_or_of_no_sense_is_not_heard(workspace: Workspace, content: dict[str, Any]) -> None:
    with pausing.pausable(), WorkspaceLock(workspace), Control(workspace):
        holder = holder_of(workspace)
        write_json(workspace.control_wish, {"holder": holder, **content})
        time.sleep(0.6)
        assert not pausing.requested()
        workspace.control_wish.write_text("[" * 100_000)
        time.sleep(0.6)
        assert ask_run(workspace, Wish.PAUSE).state in (RunState.PAUSING, RunState.PAUSED), "it still listens"


def test_a_wish_that_was_left_before_the_run_began_is_not_heard(workspace: Workspace) -> None:
    with pausing.pausable(), WorkspaceLock(workspace):
        write_json(workspace.control_wish, {"wish": "pause", "number": "1", "holder": holder_of(workspace)})
        with Control(workspace):
            time.sleep(0.6)
            assert not pausing.requested()


def test_without_a_live_run_there_is_nobody_to_ask(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="no run is live"):
        ask_run(workspace, Wish.PAUSE)
    assert not workspace.control_wish.exists()


def test_a_question_to_a_person_takes_wishes_as_answers(workspace: Workspace) -> None:
    with pausing.pausable(), WorkspaceLock(workspace), Control(workspace) as control:
        with control.asking("before round 3"):
            until(lambda: control_status(workspace).question == "before round 3")
            assert ask_run(workspace, Wish.STOP).state is RunState.WAITING
            assert control.answer() is Wish.STOP
            assert control.answer() is None
        until(lambda: control_status(workspace).state is RunState.RUNNING)


def test_many_ask_at_once_and_each_is_heard_or_overwritten(workspace: Workspace) -> None:
    with pausing.pausable(), WorkspaceLock(workspace), Control(workspace):
        asking = [threading.Thread(target=ask_run, args=(workspace, Wish.PAUSE)) for _ in range(8)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        assert json.loads(workspace.control_wish.read_text())["wish"] == "pause"
        assert ask_run(workspace, Wish.PAUSE).state in (RunState.PAUSING, RunState.PAUSED)
    assert os.listdir(workspace.root / "control") == []


def test_what_ends_satisfies_any_wish() -> None:
    assert all(is_done(wish, RunState.NONE) for wish in Wish)
    assert not is_done(Wish.STOP, RunState.STOPPING)
