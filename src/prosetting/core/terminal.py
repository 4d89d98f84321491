"""What a person types: one key at a terminal, a line where there is none."""

from __future__ import annotations

import contextlib
import os
import select
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

POLL_S = 0.1


class Typed:
    """Reads answers of one character from a stream: a key at a terminal, the first letter of a line in a pipe.

    Bytes are read from the stream's descriptor, so that a wait can end without them; whoever uses this must not read
    from the stream besides.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._descriptor = _descriptor_of(stream)
        self._stream = stream
        self._buffer = b""
        self.by_key = self._descriptor is not None and os.isatty(self._descriptor)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While an answer is waited for: keys count at once, and those pressed before count for nothing."""
        with contextlib.ExitStack() as stack:
            if self.by_key and self._descriptor is not None and _in_foreground(self._descriptor):
                termios.tcflush(self._descriptor, termios.TCIFLUSH)
                self._buffer = b""
                before = termios.tcgetattr(self._descriptor)
                stack.callback(termios.tcsetattr, self._descriptor, termios.TCSADRAIN, before)
                tty.setcbreak(self._descriptor, termios.TCSADRAIN)
            yield

    def next(self) -> str | None:
        """The next answer, lower case; empty for an empty line; None when there was none for POLL_S.

        Raises EOFError at the end of the input.
        """
        if self._descriptor is None:
            return self._next_line()
        if self.by_key and not _in_foreground(self._descriptor):
            time.sleep(POLL_S)  # reading would stop a process in the background
            return None
        if (found := self._buffered()) is not None:
            return found
        if not select.select([self._descriptor], [], [], POLL_S)[0]:
            return None
        try:
            read = os.read(self._descriptor, 4096)
        except OSError:
            read = b""  # the terminal is gone
        if not read and not self._buffer:
            raise EOFError
        self._buffer += read or b"\n"
        return self._buffered()

    def _buffered(self) -> str | None:
        """What is read already: a key, or a whole line."""
        if self.by_key:
            key, self._buffer = self._buffer[:1], self._buffer[1:]
            if key == b"\x04":
                raise EOFError
            return key.decode(errors="replace").strip().lower() or None
        if b"\n" not in self._buffer:
            return None
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace").strip().lower()[:1]

    def _next_line(self) -> str:
        line = self._stream.readline() if self._stream else ""
        if not line:
            raise EOFError
        return line.strip().lower()[:1]


def _descriptor_of(stream: TextIO | None) -> int | None:
    try:
        return stream.fileno() if stream else None
    except (OSError, ValueError):
        return None


def _in_foreground(terminal: int) -> bool:
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return True
