"""Of many starts on one workspace one runs; the others leave at once and name it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from toy_runs import ROUNDS, baseline, messages, new_folder

from prosetting.core.crash_points import CRASH_AT
from prosetting.errors import EXIT_DONE, EXIT_WORKSPACE_IN_USE
from prosetting.managers import toy_loop
from prosetting.managers.run_content import content_of, differences_in
from prosetting.managers.selfcheck import run_session

STARTS = 20


def session(workspace: Path, environ: dict[str, str], **more) -> int:
    return run_session(baseline().inputs, workspace, environ, rounds=ROUNDS, **more)


def start(workspace: Path, go_on: Path) -> int:
    """A start in a process of its own; the one that runs waits in its first batch for `go_on`."""

    def hold() -> None:
        sample = toy_loop.ScriptedSolver.sample

        def held(*arguments):
            while not go_on.exists():
                time.sleep(0.01)
            return sample(*arguments)

        toy_loop.ScriptedSolver.sample = held

    pid = os.fork()
    if pid == 0:
        os._exit(session(workspace, {}, before=hold))
    return pid


def test_of_many_simultaneous_starts_exactly_one_runs():
    folder = new_folder()
    workspace, go_on = folder / "run", folder / "go_on"
    # A run was killed here: its name in the lock file must not be taken for the holder's.
    session(workspace, {CRASH_AT: "lock:written#1"})
    running = {start(workspace, go_on) for _ in range(STARTS)}
    codes = []
    while len(codes) < STARTS:
        if len(codes) == STARTS - 1:
            go_on.touch()
        pid, status = os.wait()
        if pid in running:
            codes.append(os.waitstatus_to_exitcode(status))
    assert sorted(codes) == [EXIT_DONE] + [EXIT_WORKSPACE_IN_USE] * (STARTS - 1), messages(workspace)
    refusals = [line for line in messages(workspace).splitlines() if "another run holds" in line]
    assert len(set(refusals)) == 1
    assert len(refusals) == STARTS - 1
    assert all(f'"{name}": ' in refusals[0] for name in ("pid", "host", "since"))
    assert list(differences_in(baseline().content, content_of(workspace))) == []


def test_the_lock_of_a_killed_run_is_taken_over():
    workspace = new_folder() / "run"
    assert session(workspace, {CRASH_AT: "stage:begun:data_grading#1"}) < 0
    assert session(workspace, {}) == EXIT_DONE, messages(workspace)
