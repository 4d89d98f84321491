"""The parent's side of a user's reward function: one child that runs it, killed when it does not answer.

`REWARD_FUNCTION=path/to/file.py:function` or `package.module:function` (docs/reward_function.md). The function may
hang, crash or eat memory over a hostile response: that attempt is `unknown`, and the next one gets a new child.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prosetting.core.children import RUN_PID, end_child, without_keys
from prosetting.core.crash_points import reached
from prosetting.core.text import printable
from prosetting.errors import ConfigError
from prosetting.processors.worker_reward import CPU_LIMIT_S, MEMORY_LIMIT_BYTES, OUT_OF_MEMORY
from prosetting.records import Verdict

CALL_DEADLINE_S = 10.0
_START_TIMEOUT_S = 120.0
_MAX_ANSWER_BYTES = 1 << 20

log = logging.getLogger("prosetting")


@dataclass(frozen=True, slots=True)
class RewardVerdict:
    """What the function says of one attempt. `unknown` hands over to the rules, unless the call `failed`: then
    there is no verdict of the function, `detail` says why, and the attempt stays `unknown` to be tried again."""

    verdict: Verdict
    detail: str
    failed: bool


class _WorkerEnded(Exception):
    """There is no answer, and why."""


class RewardFunction:
    """A user's verifier in a process of its own; one instance may serve many threads.

    Close it, or use it in a `with` statement. What the function prints goes to `log_file`, else to stderr.
    """

    def __init__(self, spec: str, log_file: Path | None = None) -> None:
        """Raises ConfigError for a spec that names no file and no module; the function is loaded when first needed."""
        self._spec = absolute_spec(spec)
        self._log_file = log_file
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._channel: socket.socket | None = None
        self._warned = False

    def judge(self, question: str, reference: str | None, response: str) -> RewardVerdict:
        """The function's verdict. Raises ConfigError when the function cannot be loaded at all."""
        request = json.dumps({"question": question, "response": response, "reference": reference}).encode() + b"\n"
        with self._lock:
            if self._child is None or self._child.poll() is not None:
                self._start()
            try:
                answer = self._exchange(request, CALL_DEADLINE_S)
                found = RewardVerdict(Verdict(answer["verdict"]), str(answer["detail"]), bool(answer["failed"]))
            except _WorkerEnded as ended:
                found = RewardVerdict(Verdict.UNKNOWN, f"the function {ended}", failed=True)
        if found.failed and not self._warned:
            self._warned = True
            log.warning(
                "REWARD_FUNCTION gave no verdict on an attempt, which stays unknown: %s", printable(found.detail)
            )
        return found

    def load(self) -> Path:
        """Load the function now and give its source file. Raises ConfigError when that fails."""
        with self._lock:
            return self._start()

    def close(self) -> None:
        """End the child; a later call starts a new one."""
        with self._lock:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> Path:
        self._stop()
        self._channel, stdin = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.enter_context(stdin)
            log_fd = 2
            if self._log_file is not None:
                self._log_file.parent.mkdir(parents=True, exist_ok=True)
                log_fd = stack.enter_context(self._log_file.open("ab")).fileno()
            reached("child:to_start:prosetting.processors.worker_reward")
            self._child = subprocess.Popen(
                [sys.executable, "-m", "prosetting.processors.worker_reward", self._spec],
                stdin=stdin.fileno(),
                stdout=log_fd,
                stderr=log_fd,
                text=True,
                env=_environment(),
                start_new_session=True,
            )
        try:
            first = self._exchange(b"", _START_TIMEOUT_S)
        except _WorkerEnded as ended:
            raise _refusal(self._spec, f"its import {ended}") from None
        if "source" not in first:
            self._stop()
            raise _refusal(self._spec, str(first["error"]))
        return Path(first["source"])

    def _exchange(self, request: bytes, timeout_s: float) -> dict[str, Any]:
        """Send one line, read one line. Where that fails the child is ended and _WorkerEnded raised."""
        assert self._channel is not None
        deadline = time.monotonic() + timeout_s
        answer = b""
        try:
            self._channel.settimeout(timeout_s)
            self._channel.sendall(request)
            while not answer.endswith(b"\n"):
                self._channel.settimeout(max(deadline - time.monotonic(), 1e-3))
                piece = self._channel.recv(1 << 16)
                if not piece or len(answer) > _MAX_ANSWER_BYTES:
                    raise ConnectionError
                answer += piece
            return dict(json.loads(answer))
        except TimeoutError:
            reason = f"took longer than {timeout_s:g} s"
        except (ConnectionError, ValueError):
            reason = self._reason_of_end()
        except BaseException:  # left in the middle, such as by Ctrl+C: the answer must not meet the next request
            self._stop()
            raise
        self._stop()
        raise _WorkerEnded(reason)

    def _reason_of_end(self) -> str:
        assert self._child is not None
        try:
            status = self._child.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "broke the connection of its process"
        if status == OUT_OF_MEMORY:
            return f"used more than {MEMORY_LIMIT_BYTES >> 30} GiB of memory"
        if status == -signal.SIGPROF:
            return f"used more than {CPU_LIMIT_S:g} s of CPU time"
        return f"ended its process ({signal.Signals(-status).name if status < 0 else f'exit status {status}'})"

    def _stop(self) -> None:
        child, self._child = self._child, None
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
        if child is not None:
            end_child(child)


def check_reward_function(spec: str) -> None:
    """Load the function once, in a child. Raises ConfigError, with the reason, where that fails."""
    with RewardFunction(spec) as function:
        function.load()


def fingerprint(spec: str) -> str:
    """The function's identity: a hash of its name and of its source file's content. Raises ConfigError."""
    target, _, name = absolute_spec(spec).rpartition(":")
    if not target.endswith(".py"):  # only the child may import it
        with RewardFunction(spec) as function:
            target = str(function.load())
    return hashlib.sha256(name.encode() + b"\0" + Path(target).read_bytes()).hexdigest()[:32]


def absolute_spec(spec: str) -> str:
    """`spec` with the path of its file made absolute. Raises ConfigError where it names no file and no module."""
    target, colon, name = spec.rpartition(":")
    if not (colon and target and name.isidentifier()):
        raise _refusal(spec, "it is not of the form path/to/file.py:function or package.module:function")
    if target.endswith(".py"):
        path = Path(target).expanduser().absolute()
        if not path.is_file():
            raise _refusal(spec, f"there is no file {path}")
        return f"{path}:{name}"
    if not all(part.isidentifier() for part in target.split(".")):
        raise _refusal(spec, f"{target!r} is neither the path of a .py file nor the name of a module")
    return spec


def _refusal(spec: str, why: str) -> ConfigError:
    return ConfigError(
        f"REWARD_FUNCTION={spec}: {why}",
        next_step="set REWARD_FUNCTION=path/to/file.py:function, its first line such as"
        " def function(question, response, reference): (docs/reward_function.md), or leave it empty",
    )


def _environment() -> dict[str, str]:
    """The run's environment without keys of endpoints: the function reads hostile text."""
    return {**without_keys(), "PYTHONUNBUFFERED": "1", RUN_PID: str(os.getpid())}
