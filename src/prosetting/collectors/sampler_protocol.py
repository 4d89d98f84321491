"""The sampling child's side of its protocol with the run: JSON lines. No torch needed.

In: `{"params": …}` begins a call and breaks off the one before it, then one line a request; `{"model": …}` loads
another checkpoint, or with null none. Out: what was loaded, each time, then `{"rows": […]}` whenever attempts have
ended, or `{"note": …}` for the user. A line with `error` is the last word.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TextIO

PIPE_BYTES = 2**20
"""Room for what is said, so that a reader who is busy for a moment does not hold up the drawing (64 KiB by default)."""


class Requests:
    """What comes in, in its order; given by another thread."""

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    @classmethod
    def of(cls, stream: TextIO) -> Requests:
        """Read from a stream by a thread, so that neither side ever waits for a full pipe of the other."""
        requests = cls()

        def read() -> None:
            for line in stream:
                requests.put(json.loads(line))
            requests.close()

        threading.Thread(target=read, daemon=True).start()
        return requests

    def put(self, message: dict[str, Any]) -> None:
        self._messages.put(message)

    def close(self) -> None:
        """Nothing more will come."""
        self._messages.put(None)

    def here(self, *, wait: bool) -> Iterator[dict[str, Any]]:
        """What has come; with `wait` at least one, unless nothing more can. Raises EOFError then."""
        while True:
            try:
                message = self._messages.get(block=wait)
            except queue.Empty:
                return
            if message is None:
                raise EOFError
            yield message
            wait = False


def keep_stdout_for_protocol() -> Callable[[dict[str, Any]], None]:
    """Says a message on the real stdout; whatever a library prints goes to the log instead."""
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):  # no pipe, or more than this user may have
            fcntl.fcntl(protocol, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def say(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=protocol, flush=True)

    return say


def in_a_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]
