"""A teacher for all that is compared to ask: the embedded one as a server of its own, which can answer late."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

WORKERS = 32
"""Calls in flight."""
LATENCY_S = 0.05


@contextmanager
def served_teacher(latency_s: float = 0.0) -> Iterator[str]:
    """The base URL of an embedded teacher, which answers that late."""
    command = [sys.executable, "-m", "prosetting.teachers.embedded_teacher"]
    if latency_s:
        command += ["--fault", f"hang:{latency_s}@1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield f"http://127.0.0.1:{json.loads(child.stdout.readline())['port']}/v1"
        finally:
            child.terminate()
