"""A training child process apart from what it trains: it waits for its job, ends with its launcher, says its last word.

Run by `accelerate launch`, as `python -m` a worker of one kind of training, which calls `main` with what it does.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
import transformers

from prosetting.core import children
from prosetting.errors import EXIT_FAILED, EXIT_STOPPED
from prosetting.trainers.checkpoints import hold
from prosetting.trainers.worker_dpo_callbacks import StopWish, append_line

JOB_POLL_INTERVAL_S = 0.05
EXIT_OUT_OF_MEMORY = 12
"""ENOMEM."""
ORPHAN_GRACE_S = 60.0
"""How long a worker that was told to stop may save without its launcher; the run ends it before if it likes."""
Train = Callable[[dict[str, Any], StopWish], bool]
"""Trains a job; False when it stopped before its end, as it was asked to."""


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` is a failed allocation: of torch on a GPU or on a CPU, or of Python."""
    words = ("out of memory", "can't allocate memory", "not enough memory", "Cannot allocate memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)


@contextlib.contextmanager
def holding(job: dict[str, Any]) -> Iterator[None]:
    """The first process holds the work folder, so that no later training meets this one in it."""
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    with hold(Path(job["work_dir"])):
        yield


def main(train: Train) -> NoReturn:
    """Exits with EXIT_STOPPED when it was asked to stop, EXIT_OUT_OF_MEMORY or EXIT_FAILED when it failed.

    Launchers turn all of these into 1, so the progress file gets a line of what it was.
    Libraries may do what they do at an exit, but nothing is taken down: now and then a thread of gloo aborts a process
    that has done its work, and a training whose model stands would have failed.
    """
    gc.freeze()  # libraries are no garbage: trl and accelerate look for some at every training
    gc.enable()
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", required=True, type=Path)
    status = wait_and_work(parser.parse_args().job, os.getppid(), train)
    for child in multiprocessing.active_children():
        child.kill()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def wait_and_work(job_file: Path, launcher: int, train: Train) -> int:
    """The exit status. `launcher`: the process that this one ends with, its parent."""
    children.end_with_the_run()
    # It may be started before its job is known: what it needs is loaded by now.
    while not job_file.exists():
        if os.getppid() != launcher:
            return EXIT_STOPPED
        time.sleep(JOB_POLL_INTERVAL_S)
    job = json.loads(job_file.read_text(encoding="utf-8"))
    stop = StopWish(Path(job["stop_file"]))
    threading.Thread(target=end_with_the_launcher, args=(launcher, stop), daemon=True).start()
    return work_on(job, stop, train)


def end_with_the_launcher(launcher: int, stop: StopWish) -> None:
    """Each of several processes has a session of its own, out of reach of a signal to the launcher's group.

    A launcher ends at once by a SIGTERM to it and its worker, which still saves its checkpoint.
    """
    while os.getppid() == launcher:
        time.sleep(children.WATCH_INTERVAL_S)
    if stop.felt():
        time.sleep(ORPHAN_GRACE_S)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def work_on(job: dict[str, Any], stop: StopWish, train: Train) -> int:
    """One training; its exit status."""
    transformers.logging.disable_progress_bar()
    try:
        with holding(job):  # until the last word is written
            return trained_or_why_not(job, stop, train)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def trained_or_why_not(job: dict[str, Any], stop: StopWish, train: Train) -> int:
    progress_file = Path(job["progress_file"])
    try:
        if train(job, stop):
            return 0
    except Exception as error:
        traceback.print_exc()
        message = " ".join(f"{type(error).__name__}: {error}".split())[:600]
        append_line(progress_file, {"error": message, "out_of_memory": out_of_memory(error)})
        return EXIT_OUT_OF_MEMORY if out_of_memory(error) else EXIT_FAILED
    append_line(progress_file, {"stopped": True})
    return EXIT_STOPPED
