"""What hangs of a killed run, its training processes for one, is ended by the next run, which goes on from there."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from whole_runs import clean_env

from prosetting.core.orphans import MARK, mark_of

PROCESSES = 2
PATIENCE_S = 200


def of_the_run(workspace: Path) -> dict[int, str]:
    """The commands of the live processes that a run of the workspace started."""
    mark, found = f"{MARK}={mark_of(workspace)}".encode(), {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def trainers_among(processes: dict[int, str]) -> list[int]:
    return [pid for pid, command in processes.items() if "prosetting.trainers.worker_dpo --job" in command]


@pytest.mark.slow
def test_the_next_run_ends_what_hangs_of_a_killed_one_and_goes_on(demo, tmp_path):
    workspace = tmp_path / "run"
    flags = ("--total-rounds", "1", "--first-training-round", "1", "--trl-num-processes", str(PROCESSES))
    with subprocess.Popen(demo.command(workspace, *flags), env=clean_env(), stderr=subprocess.DEVNULL) as run:
        until = time.monotonic() + PATIENCE_S
        while not workspace.exists() or len(trainers_among(of_the_run(workspace))) < PROCESSES + 1:  # and the launcher
            assert run.poll() is None
            assert time.monotonic() < until, "it never came to train"
            time.sleep(0.05)
        for pid in of_the_run(workspace):
            os.kill(pid, signal.SIGSTOP)
        run.kill()
    try:
        hanging = trainers_among(of_the_run(workspace))
        assert len(hanging) == PROCESSES + 1, "they were to survive their run"
        done = demo.run(workspace, *flags)
        assert done.returncode == 0, done.stderr[-3000:]
        assert all(f"left process {pid} behind" in done.stderr for pid in hanging)
        assert of_the_run(workspace) == {}
    finally:
        for pid in of_the_run(workspace):
            os.kill(pid, signal.SIGKILL)
