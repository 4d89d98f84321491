"""Progress and notices of a command, on stderr, so that stdout stays for its result."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def log_to_stderr() -> Iterator[logging.Logger]:
    """The program's log lines go to stderr while the command runs."""
    log = logging.getLogger("prosetting")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield log
    finally:
        log.removeHandler(handler)
