"""What a run left behind and cannot end itself any more is ended by the next run of its workspace, and nothing else."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prosetting.core import orphans
from prosetting.core.orphans import end_orphans, mark_of, none_left_behind, pids_of_run

# A run with a child in its own process group, and that one's child in a session of its own, as torchrun's workers are.
RUN = """
import os, subprocess, sys, time
from pathlib import Path
from prosetting.core.children import start_child
from prosetting.core.orphans import none_left_behind
with none_left_behind(Path(sys.argv[1])):
    worker = "import time; print(0, flush=True); time.sleep(600)"
    launcher = (
        "import os, subprocess, sys, time\\n"
        f"worker = subprocess.Popen([sys.executable, '-c', {worker!r}], start_new_session=True, stdout=-1)\\n"
        "worker.stdout.readline()\\n"
        "print(worker.pid, flush=True)\\n"
        "time.sleep(600)\\n"
    )
    child = start_child([launcher], log_file=Path(sys.argv[1], "log"), pipes=True, python_options=("-c",))
    print(child.pid, child.stdout.readline().strip(), flush=True)
    time.sleep(600)
"""
# Starts itself while its run lives, with one word less, until there is none.
NESTED = """
import subprocess, sys
from pathlib import Path
from prosetting.core.orphans import none_left_behind
with none_left_behind(Path(sys.argv[1])):
    if sys.argv[2:]:
        sys.exit(subprocess.run([sys.executable, *sys.argv[:-1]]).returncode)
"""
PATIENCE_S = 30


@pytest.fixture
def started() -> Iterator[list[int]]:
    """Processes that the test started and that must not outlive it, come what may."""
    pids: list[int] = []
    yield pids
    for pid in filter(runs, pids):
        os.kill(pid, signal.SIGKILL)


def runs(pid: int) -> bool:
    """Neither gone nor dead and waiting for someone to take note."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def killed_run(workspace: Path, started: list[int]) -> list[int]:
    """A run that was killed; its child and its child's child, which are stopped and so cannot end themselves."""
    with subprocess.Popen([sys.executable, "-c", RUN, str(workspace)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pids = [int(word) for word in run.stdout.readline().split()]
        started += pids
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        run.kill()
    assert len(pids) == 2
    assert all(map(runs, pids)), "they were to survive their run"
    return pids


def bystander(mark: str | None, started: list[int]) -> subprocess.Popen[str]:
    environ = {name: value for name, value in os.environ.items() if name != orphans.MARK}
    environ |= {orphans.MARK: mark} if mark else {}
    process = subprocess.Popen(
        [sys.executable, "-c", "print(0, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    )
    started.append(process.pid)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_the_next_run_ends_what_hangs_of_a_killed_one_and_says_so(
    tmp_path: Path, started: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    left = killed_run(tmp_path, started)
    with caplog.at_level(logging.WARNING, "prosetting"), none_left_behind(tmp_path):
        assert not any(map(runs, left))
    assert sorted(int(record.args[0]) for record in caplog.records) == sorted(left)  # type: ignore[arg-type,index]
    assert all(": ended" in record.getMessage() for record in caplog.records)


def test_processes_of_other_workspaces_and_of_nobody_are_left_alone(tmp_path: Path, started: list[int]) -> None:
    other, mine = tmp_path / "other", tmp_path / "mine"
    other.mkdir()
    mine.mkdir()
    left = killed_run(other, started)
    unmarked, longer = bystander(None, started), bystander(mark_of(mine) + "1", started)
    with none_left_behind(mine):
        assert all(map(runs, [*left, unmarked.pid, longer.pid]))


def test_a_workspace_of_the_same_path_in_another_container_is_another_one(tmp_path: Path, started: list[int]) -> None:
    workspace = tmp_path / "ws"
    workspace.mkdir()
    left = killed_run(workspace, started)
    workspace.rename(tmp_path / "elsewhere")
    workspace.mkdir()
    with none_left_behind(workspace):
        assert all(map(runs, left))
    with none_left_behind(tmp_path / "elsewhere"):
        assert not any(map(runs, left))


def test_what_this_run_starts_is_marked_only_while_it_lives(tmp_path: Path, started: list[int]) -> None:
    with none_left_behind(tmp_path):
        inside = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started.append(inside.pid)
    outside = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started.append(outside.pid)
    assert end_orphans(mark_of(tmp_path)) == []
    assert inside.wait(PATIENCE_S) == -signal.SIGKILL
    assert outside.poll() is None


def test_a_run_that_a_marked_process_starts_does_not_end_itself_or_its_caller(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(NESTED)
    command = [sys.executable, str(script), str(tmp_path), "outer", "inner"]
    assert subprocess.run(command, timeout=PATIENCE_S, check=False).returncode == 0


def test_what_cannot_be_ended_is_named_and_does_not_hold_the_run_up(
    tmp_path: Path, started: list[int], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = bystander(mark_of(tmp_path), started)
    monkeypatch.setattr(orphans, "PATIENCE_S", 0.2)
    monkeypatch.setattr(signal, "SIGKILL", signal.SIGCONT)  # a process in a driver call does not obey
    with caplog.at_level(logging.WARNING, "prosetting"):
        assert end_orphans(mark_of(tmp_path)) == [process.pid]
    monkeypatch.undo()
    assert f"process {process.pid} behind" in caplog.text
    assert "cannot be ended" in caplog.text


def test_a_process_whose_memory_is_locked_does_not_hold_the_run_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "4711").mkdir()
    os.mkfifo(tmp_path / "4711" / "environ")  # a read of it waits, as the kernel's does then
    monkeypatch.setattr(orphans, "_PROC", tmp_path)
    monkeypatch.setattr(orphans, "_READ_DEADLINE_S", 0.1)
    with caplog.at_level(logging.WARNING, "prosetting"):
        assert end_orphans("1:1") == []
    assert "process 4711 hangs" in caplog.text
    (tmp_path / "4711" / "environ").open("wb").close()  # lets the waiting thread go


def test_without_a_process_table_nothing_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "_PROC", tmp_path / "none")
    with none_left_behind(tmp_path):
        assert os.environ[orphans.MARK] == mark_of(tmp_path)
    assert orphans.MARK not in os.environ


def test_what_a_run_has_started_is_known_by_its_workspace(tmp_path: Path, started: list[int]) -> None:
    (tmp_path / "other").mkdir()
    with subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        started += [int(word) for word in run.stdout.readline().split()]
        assert pids_of_run(tmp_path) == set(started)
        assert pids_of_run(tmp_path / "other") == set()
        run.kill()
