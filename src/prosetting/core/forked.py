"""`python forked.py MODULE ARG…` is `python -m MODULE ARG…` as a fork of the run's fork server (worker_fork_server.py).

This process stands for the fork: a SIGTERM goes on to it, its end is the other's, by the same signal or with the same
exit status. Without a server, or when it cannot be reached, it becomes `python -m MODULE ARG…` itself.
Standard library alone, and little of it: this is started with `-I -S` in some hundredths of a second.
"""

import json
import os
import signal
import socket
import struct
import sys
import time

SERVER = "PROSETTING_FORK_SERVER"
"""In the environment: the path of the server's socket."""
REACHED_WITHIN_S = 10.0
"""A server that has just been started has no socket yet."""
LENGTH, STATUS = struct.Struct("!I"), struct.Struct("!i")
TERMINATE = b"T"


def connected() -> socket.socket | None:
    path = os.environ.get(SERVER)
    until = time.monotonic() + REACHED_WITHIN_S
    while path:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(path)
            return connection
        except FileNotFoundError:
            connection.close()
            if time.monotonic() > until:
                break
            time.sleep(0.01)
        except OSError:
            connection.close()
            break
    return None


def main() -> int:
    server = connected()
    if server is None:
        os.execv(sys.executable, [sys.executable, "-m", *sys.argv[1:]])
    order = json.dumps({"module": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd()}).encode()
    socket.send_fds(server, [LENGTH.pack(len(order))], [0, 1, 2])
    server.sendall(order)
    signal.signal(signal.SIGTERM, lambda number, frame: server.sendall(TERMINATE))
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):  # the fork's alone now, so that their other ends see when it has closed them
        os.dup2(nothing, stream)
    told = server.recv(STATUS.size, socket.MSG_WAITALL)
    if len(told) < STATUS.size:
        print("the fork server is gone", file=sys.stderr)
        return 1
    status: int = STATUS.unpack(told)[0]
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main())
