"""A run in a terminal of its own, with a person's keys."""

from __future__ import annotations

import fcntl
import os
import pty
import subprocess
import termios
import time
from contextlib import suppress

from whole_runs import clean_env


class Terminal:
    """A run in a terminal of its own. `text` is what it has shown."""

    def __init__(self, command: list[str]) -> None:
        self.descriptor, slave = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=clean_env() | {"TERM": "xterm-256color"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        os.set_blocking(self.descriptor, False)
        self.text = ""

    def wait_for(self, said: str, deadline_s: float = 120.0) -> None:
        until = time.monotonic() + deadline_s
        while said not in self.read():
            assert time.monotonic() < until, self.text[-2000:]
            assert self.process.poll() is None, self.text[-2000:]
            time.sleep(0.05)

    def press(self, keys: bytes) -> None:
        os.write(self.descriptor, keys)

    def end(self, deadline_s: float = 60.0) -> int:
        until = time.monotonic() + deadline_s
        while self.process.poll() is None:
            self.read()
            assert time.monotonic() < until, self.text[-2000:]
            time.sleep(0.05)
        self.read()
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.descriptor)

    def read(self) -> str:
        with suppress(BlockingIOError, OSError):
            while chunk := os.read(self.descriptor, 65536):
                self.text += chunk.decode(errors="replace")
        return self.text
