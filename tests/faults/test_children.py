"""Children of a run end with it, also when it was killed and nobody has taken note of that."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

PARENT = """
import sys, time
from pathlib import Path
from prosetting.core.children import start_child
child = start_child(["prosetting.teachers.embedded_teacher"], log_file=Path(sys.argv[1]), pipes=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""
PATIENCE_S = 30


def test_a_child_ends_once_its_run_was_killed(tmp_path: Path) -> None:
    run = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    child = int(run.stdout.readline())
    try:
        run.kill()  # and not waited for: it stays in the process table
        until = time.monotonic() + PATIENCE_S
        while _runs(child):
            assert time.monotonic() < until, "the child outlives its run"
            time.sleep(0.05)
    finally:
        run.wait()


def _runs(pid: int) -> bool:
    """Neither gone nor dead and waiting for someone to take note."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False
