"""The run's side of the fork server: workers that begin with their libraries loaded (worker_fork_server.py)."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prosetting.core import children
from prosetting.core.forked import SERVER

LONGEST_SOCKET_PATH = 100  # bytes; the kernel takes 107


@contextlib.contextmanager
def fork_server(modules: Sequence[str], extra_env: Mapping[str, str]) -> Iterator[None]:
    """Inside, `children.start_child(…, forked=True)` forks a process that has imported `modules`, in this order.

    `extra_env` is what libraries read when they are imported. No server where there are no modules, or on a system
    other than Linux; then, and where it is lost, children are started as they are without one.
    """
    if not modules or sys.platform != "linux":
        yield
        return
    with tempfile.TemporaryDirectory(prefix="prosetting-", ignore_cleanup_errors=True) as folder:
        socket = Path(folder, "forks")
        if len(os.fsencode(socket)) > LONGEST_SOCKET_PATH:
            yield
            return
        command = ["prosetting.core.worker_fork_server", str(socket), *modules]
        server = children.start_child(command, log_file=Path(folder, "log"), extra_env=extra_env)
        os.environ[SERVER] = str(socket)
        try:
            yield
        finally:
            del os.environ[SERVER]
            children.kill_child(server)  # nothing is asked of it any more, and it may be in the middle of an import
            children.end_child(server)
