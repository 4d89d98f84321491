"""A disk that refuses a write: a clean pause that says where and what to do, and afterwards nothing is lost."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toy_runs import JOBS, ROUNDS, baseline, messages, new_folder, read

from prosetting.core.crash_points import FAIL_AT
from prosetting.errors import EXIT_DONE, EXIT_PAUSED
from prosetting.managers.run_content import content_of, differences_in
from prosetting.managers.selfcheck import Case, run_cases, run_session

WRITES = ("artifact:", "folder:", "journal:before_commit:")
ORDERS = [
    "artifact:written:round_N_rewards.json#1:ENOSPC",
    "artifact:begun:train.parquet#1+:EACCES",
    "artifact:renamed:training_state.json#3:EIO",
    "artifact:synced:round_N_progress.json#2+:EIO",
    "folder:made:merged_solver_rN#1:ENOSPC",
    "journal:before_commit:grades#2:ENOSPC",
    "journal:before_commit:teacher_calls#1+:EIO",
    "journal:before_commit:stages#3+:EACCES",
    "journal:before_commit:schema#1:ENOSPC",
    "artifact:written:training_config.json#1:ENOSPC",
]
FULL_DISK = """
import os, subprocess, sys
from pathlib import Path
from prosetting.managers.run_content import content_of, differences_in
from prosetting.managers.selfcheck import run_session, uninterrupted
folder, disk = Path(sys.argv[1]), Path(sys.argv[1], "disk")
disk.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=" + sys.argv[2], "none", disk], check=True)
expected = uninterrupted(folder, rounds=2)
print(run_session(expected.inputs, disk / "run", {}, rounds=2))
print((disk / "run.log").read_text()[-4000:])
subprocess.run(["mount", "-o", "remount,size=64m", "none", disk], check=True)
status = run_session(expected.inputs, disk / "run", {}, rounds=2)
print(status, list(differences_in(expected.content, content_of(disk / "run"))))
"""


def session(workspace: Path, environ: dict[str, str], **more) -> int:
    return run_session(baseline().inputs, workspace, environ, rounds=ROUNDS, **more)


def differences(workspace: Path) -> list[str]:
    return list(differences_in(baseline().content, content_of(workspace)))


@pytest.mark.parametrize("order", ORDERS)
def test_a_write_that_fails_pauses_the_run_and_nothing_is_lost(order):
    workspace = new_folder() / "run"
    assert session(workspace, {FAIL_AT: order}) == EXIT_PAUSED, messages(workspace)
    said = messages(workspace)
    assert "Traceback" not in said
    assert "the run cannot use its files" in said
    assert "free there" in said
    assert "the same command goes on from here" in said
    state = workspace / "training_state.json"
    if state.exists() and "+" not in order:
        assert read(state)["status"] == "paused"
    assert session(workspace, {}) == EXIT_DONE, messages(workspace)
    assert differences(workspace) == []


@pytest.mark.slow
def test_a_write_that_fails_anywhere_loses_nothing():
    writes = [name for name in dict.fromkeys(baseline().points) if name.startswith(WRITES)]
    kinds = [(how, code) for how in ("#1", "#1+", "#2") for code in ("ENOSPC", "EIO", "EACCES")]
    cases = [Case((f"{name}{how}:{code}",)) for name in writes for how, code in kinds]
    results = run_cases(baseline(), cases, new_folder(), JOBS)
    assert [result for result in results if result.differences] == []


def test_files_that_may_grow_no_more_pause_the_run():
    """A real refusal by the operating system, of SQLite's writes too."""
    workspace = new_folder() / "run"

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000))

    assert session(workspace, {}, before=limit_files) == EXIT_PAUSED, messages(workspace)
    assert session(workspace, {}) == EXIT_DONE, messages(workspace)
    assert differences(workspace) == []


@pytest.mark.parametrize("size", ["64k", "200k"])
def test_a_disk_that_is_really_full_pauses_the_run(size):
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-Urm", "true"], check=False).returncode:
        pytest.skip("this machine lets nobody mount a small file system")
    command = ["unshare", "-Urm", sys.executable, "-c", FULL_DISK, str(new_folder()), size]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == str(EXIT_PAUSED), done.stdout
    assert "Traceback" not in done.stdout
    # Seen ahead of the stage, or when the write failed.
    told = ("MiB free", "No space left on device", "database or disk is full")
    assert any(words in done.stdout for words in told), done.stdout
    assert "/disk" in done.stdout
    assert lines[-1] == "0 []", done.stdout
