"""What the tests of this folder share: one uninterrupted toy run a process, and a disk where syncs are cheap."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from prosetting.managers.selfcheck import Baseline, uninterrupted

ROUNDS = 2
JOBS = 4
"""Runs at a time: they wait for their teacher more than for a core."""


@functools.cache
def fast_disk() -> Path:
    """A folder in memory where there is one: kill -9 takes nothing from the page cache, so syncs need not be real."""
    memory = Path("/dev/shm")
    folder = Path(
        tempfile.mkdtemp(prefix="prosetting-faults-", dir=memory if os.access(memory, os.W_OK | os.X_OK) else None)
    )
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def baseline() -> Baseline:
    return uninterrupted(fast_disk(), rounds=ROUNDS)


def new_folder() -> Path:
    return Path(tempfile.mkdtemp(dir=fast_disk()))


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def messages(workspace: Path) -> str:
    """What the sessions of a workspace have said."""
    return workspace.with_name(f"{workspace.name}.log").read_text(encoding="utf-8")
