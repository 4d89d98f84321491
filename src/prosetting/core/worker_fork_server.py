"""The fork server: a process that has libraries loaded and becomes, by fork, whatever worker is asked for.

    python -m prosetting.core.worker_fork_server SOCKET MODULE …

torch, transformers and trl take ten times as long to import as a small model to load, and a round needs them in
several processes. Modules are imported in their order, and who asks is served in between. A fork runs a module as
`python -m` would, with the environment, folder and streams of who asked (forked.py), in a group of its own. This
process starts no thread and computes nothing, since a fork of one that did may hang; GPUs are not for it.

A fork is killed when who asked for it is gone, or this process, which ends with the run.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # libraries are no garbage, and to look for some is a quarter of their loading

import contextlib
import ctypes
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import sys
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from prosetting.core import children
from prosetting.core.forked import LENGTH, STATUS, TERMINATE

ORDER_WITHIN_S = 10.0
FAMILY_GRACE_S = 10.0
"""What a fork has started may go on so long after its end: a worker whose launcher has ended saves its checkpoint."""
PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


@dataclass(slots=True)
class Fork:
    """One that lives, or, with `kill_at` (monotonic), whose family is left."""

    client: socket.socket
    kill_at: float | None = None


class ForkServer:
    """Serves the socket at `path`."""

    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        self._forks: dict[int, Fork] = {}
        self._ending = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        # A child's end, or SIGTERM, wakes the selector.
        self._woken, self._wakes = socket.socketpair()
        for end in (self._woken, self._wakes, self._listener):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakes.fileno())
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGTERM, self._end)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def serve(self, *, wait: bool) -> None:
        """Until the end of the run, or of this process was asked for and no fork lives; without `wait`, once."""
        while children.run_is_there() and not (self._ending and not self._forks):
            for key, _ in self._selector.select(self._patience_s() if wait else 0):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._woken:
                    with contextlib.suppress(BlockingIOError):
                        self._woken.recv(4096)
                else:
                    self._hear(key.data)
            self._reap()
            if not wait:
                return
        self._close()

    def _end(self, *_: object) -> None:
        self._ending = True
        if not self._forks:  # perhaps in the middle of an import
            self._close()
            os._exit(0)

    def _patience_s(self) -> float:
        deadlines = [fork.kill_at - time.monotonic() for fork in self._forks.values() if fork.kill_at is not None]
        return max(0.0, min([children.WATCH_INTERVAL_S, *deadlines]))

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        client.settimeout(ORDER_WITHIN_S)
        streams: list[int] = []
        try:
            length, streams, _, _ = socket.recv_fds(client, LENGTH.size, 3)
            order = json.loads(client.recv(LENGTH.unpack(length)[0], socket.MSG_WAITALL))
        except (OSError, ValueError, ctypes.ArgumentError):
            client.close()
        else:
            pid = os.fork()
            if not pid:
                self._leave()
                become(order, streams)
            _lead_a_group(pid)
            self._forks[pid] = Fork(client)
            self._selector.register(client, selectors.EVENT_READ, pid)
        finally:
            for stream in streams:
                os.close(stream)

    def _hear(self, pid: int) -> None:
        """What a client says: that its fork is to end, or by closing, that nobody waits for it."""
        fork = self._forks[pid]
        try:
            said = fork.client.recv(1)
        except OSError:
            said = b""
        if said == TERMINATE:
            _signal_group(pid, signal.SIGTERM)
            return
        _signal_group(pid, signal.SIGKILL)
        self._selector.unregister(fork.client)
        fork.client.close()

    def _reap(self) -> None:
        for pid, fork in list(self._forks.items()):
            if fork.kill_at is None:
                ended, how = os.waitpid(pid, os.WNOHANG)
                if ended:
                    self._tell(fork, os.waitstatus_to_exitcode(how))
                    fork.kill_at = time.monotonic() + FAMILY_GRACE_S
            if fork.kill_at is not None and (fork.kill_at <= time.monotonic() or not _signal_group(pid, 0)):
                _signal_group(pid, signal.SIGKILL)
                del self._forks[pid]

    def _tell(self, fork: Fork, status: int) -> None:
        if fork.client.fileno() < 0:
            return
        with contextlib.suppress(OSError):
            fork.client.sendall(STATUS.pack(status))
        self._selector.unregister(fork.client)
        fork.client.close()

    def _leave(self) -> None:
        """In a fork: nothing of the server stays."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        self._selector.close()
        clients = [fork.client for fork in self._forks.values()]
        for end in (self._listener, self._woken, self._wakes, *clients):
            end.close()

    def _close(self) -> None:
        for pid in self._forks:
            _signal_group(pid, signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)


def become(order: dict[str, Any], streams: list[int]) -> NoReturn:
    """In a fork: run the module that is asked for, and end."""
    status = 1
    try:
        _lead_a_group(0)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.environ.clear()
        os.environ.update(order["environment"])
        os.chdir(order["folder"])
        _take_threads()
        sys.argv = order["module"]
        gc.enable()
        with warnings.catch_warnings():
            # The module is loaded already, which is the point.
            warnings.filterwarnings("ignore", message=".*found in sys.modules", category=RuntimeWarning)
            runpy.run_module(order["module"][0], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as leaving:
        status = _status_of(leaving)
    except BaseException:
        traceback.print_exc()
    finally:
        for text in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                text.flush()
        os._exit(status)


def _take_threads() -> None:
    """OpenMP has read its number of threads when it was loaded."""
    torch, threads = sys.modules.get("torch"), os.environ.get("OMP_NUM_THREADS", "")
    if torch is not None and threads.isdigit():
        torch.set_num_threads(int(threads))


def _status_of(leaving: SystemExit) -> int:
    if leaving.code is None or isinstance(leaving.code, int):
        return leaving.code or 0
    print(leaving.code, file=sys.stderr)
    return 1


def _lead_a_group(pid: int) -> None:
    """Done on both sides of a fork, whichever comes first: nobody signals a group that is not there yet."""
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(pid, pid)


def _signal_group(group: int, number: int) -> bool:
    """False when nobody of it is left."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def main() -> int:
    server = ForkServer(Path(sys.argv[1]))
    for module in sys.argv[2:]:
        try:
            importlib.import_module(module)
        except Exception:
            traceback.print_exc()  # a fork that needs it says so to who asked
        gc.freeze()
        server.serve(wait=False)
    server.serve(wait=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
