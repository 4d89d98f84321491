"""The parent's side of the symbolic worker: one child, started when first needed, killed when it does not answer."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from typing import Literal, cast

from prosetting.core.crash_points import reached
from prosetting.errors import ConfigError

MAX_EXPRESSION_CHARS = 400
_START_TIMEOUT_S = 120.0
# The worker limits each comparison to 0.8 s of CPU time; this only ends a worker that hangs.
_ANSWER_TIMEOUT_S = 20.0

Relation = Literal["equal", "different", "unsure"]
SymbolicAnswer = Literal[Relation, "limit"]
"""`limit`: the comparison was ended by a limit of time or memory, or its worker was."""


class SymbolicClient:
    """Compares LaTeX expressions in a child process; safe to share between threads and across a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    def relation(self, reference: str, response: str) -> SymbolicAnswer:
        """How two expressions relate by algebra. Raises `ConfigError` when no worker starts."""
        if max(len(reference), len(response)) > MAX_EXPRESSION_CHARS:
            return "unsure"
        if self._owner != os.getpid():  # forked: the pipe belongs to the parent, the lock may be held there
            self._lock, self._process, self._owner = threading.Lock(), None, os.getpid()
        with self._lock:
            process = self._process or self._start()
            request = json.dumps({"reference": reference, "response": response}) + "\n"
            answer = self._exchange(process, request.encode(), _ANSWER_TIMEOUT_S)
        return cast("SymbolicAnswer", answer.get("relation", "limit"))

    def close(self) -> None:
        """End the child; a later comparison starts a new one."""
        if self._owner != os.getpid():
            return
        with self._lock:
            self._stop()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "prosetting.processors.worker_symbolic"]
        reached(f"child:to_start:{command[-1]}")
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)
        if not self._exchange(self._process, b"", _START_TIMEOUT_S).get("ready"):
            raise ConfigError(
                "the symbolic checker of answers does not start; its own message stands above",
                next_step="install the project again (pip install -e .), math-verify belongs to it",
            )
        return self._process

    def _exchange(self, process: subprocess.Popen[bytes], request: bytes, timeout_s: float) -> dict[str, object]:
        """Send one line, read one line; the worker is ended and `{}` returned where that fails."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request)
            process.stdin.flush()
            if select.select([process.stdout], [], [], timeout_s)[0]:
                line = process.stdout.readline()
                if line:
                    return cast("dict[str, object]", json.loads(line))
        except (BrokenPipeError, ValueError):
            pass
        self._stop()
        return {}

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        process.wait()
