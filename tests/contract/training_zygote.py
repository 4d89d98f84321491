"""Trains real jobs in forks of one process that has trl imported already, and kills them at chosen points.

A start of the worker costs seconds of imports; a fork costs none, so many kills fit into a test. A point is the n-th
write, rename or removal below the job's work folder, or the n-th whose path matches: found by Python's audit events.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KILLED = -signal.SIGKILL
WRITING = os.O_WRONLY | os.O_RDWR


@dataclass
class Zygote:
    process: subprocess.Popen[str]

    def train(
        self, job: dict[str, Any], *, kill_at: int = 0, matching: str = "", action: str = "kill", memory_mb: int = 0
    ) -> int:
        """The exit status of a fork that works on `job`; `kill_at` counts from 1, 0 is never.

        `action` "stop" sends SIGTERM instead. The points that were passed are in `job["points_file"]`.
        With `memory_mb` it may allocate so much and no more.
        """
        request = {"job": job, "kill_at": kill_at, "matching": matching, "action": action, "memory_mb": memory_mb}
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@contextlib.contextmanager
def zygote() -> Iterator[Zygote]:
    process = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "TQDM_DISABLE": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        },
    )
    try:
        yield Zygote(process)
    finally:
        process.kill()
        process.wait()


def _watch_points(request: dict[str, Any]) -> None:
    root, points_file = request["job"]["work_dir"], request["job"]["points_file"]
    descriptor = os.open(points_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    number = signal.SIGKILL if request["action"] == "kill" else signal.SIGTERM
    passed = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal passed
        if event == "open":
            if not isinstance(args[2], int) or not args[2] & WRITING:
                return
        elif event not in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            return
        path = os.fsdecode(args[0]) if isinstance(args[0], str | bytes | os.PathLike) else ""
        if not (path.startswith(root) or path == request["job"]["progress_file"]):
            return
        point = f"{event} {path}"
        if not re.search(request["matching"], point):
            return
        passed += 1
        os.write(descriptor, f"{point}\n".encode())
        if passed == request["kill_at"]:
            os.kill(os.getpid(), number)

    sys.addaudithook(hook)


def _allocated() -> int:
    """What RLIMIT_DATA counts, in bytes."""
    return int(re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]


def _serve() -> None:
    from prosetting.trainers import worker_dpo, worker_dpo_callbacks, worker_process

    for line in sys.stdin:
        request = json.loads(line)
        if child := os.fork():
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            continue
        log = os.open(request["job"]["progress_file"] + ".log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        worker_dpo_callbacks.SAVING_SHARE = 1e9  # whatever saving costs here, steps alone decide
        worker_dpo_callbacks.PROGRESS_INTERVAL_S = 0.0
        stop = worker_dpo_callbacks.StopWish(Path(request["job"]["stop_file"]))
        _watch_points(request)
        if request["memory_mb"]:
            limit = _allocated() + request["memory_mb"] * 2**20
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        status = 1
        try:
            status = worker_process.work_on(request["job"], stop, worker_dpo.train)
        finally:
            os._exit(status)


if __name__ == "__main__":
    _serve()
