"""Dashboards and runs in processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prosetting.core.workspace import Workspace

TOY_SESSION = Path(__file__).resolve().parents[1] / "e2e" / "toy_session.py"


@dataclass(frozen=True)
class Served:
    """A dashboard that listens, in a process of its own."""

    url: str
    token: str


@contextmanager
def serve(workspace: Path, *flags: str) -> Iterator[Served]:
    command = [
        sys.executable,
        "-m",
        "prosetting",
        "dashboard",
        "--workspace-dir",
        str(workspace),
        "--port",
        "0",
        *flags,
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        assert process.stderr is not None
        first, second = process.stderr.readline(), process.stderr.readline()
        url = re.search(r"http://\S+", first)
        assert url, first + process.stderr.read()
        yield Served(url[0], second.rpartition(": ")[2].strip())
    finally:
        process.terminate()
        assert process.wait(15) is not None
        process.stderr.close()


def environment() -> dict[str, str]:
    ours = ("TEACHER_", "SOLVER_", "WORKSPACE_", "QUESTIONS_", "TOTAL_")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)} | {"OMP_NUM_THREADS": "1"}


@contextmanager
def running_toy(folder: Path, rounds: int = 200) -> Iterator[Workspace]:
    """A real run with scripted engines that takes its time, in the background."""
    with (folder / "run.out").open("w") as output:
        command = [sys.executable, str(TOY_SESSION), str(folder), str(rounds), "auto"]
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment())
        try:
            yield Workspace(folder / "run", folder / "run" / "logs")
        finally:
            process.terminate()
            process.wait(30)
