"""The process of a training as the run sees it: it waits for its job, and ends with it or stays for the next one."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from prosetting.core import children
from prosetting.core.artifacts import replace_atomically
from prosetting.trainers.trl_job import write_job

STAYS = "--stays"
"""Told to a worker that forks for each job that comes."""
LOOKS_EVERY_S = 0.05


def ended_file_of(job_file: Path) -> Path:
    """Where a worker that stays says how its job ended, as an exit status."""
    return job_file.with_suffix(".ended")


def tell_end(job_file: Path, status: int) -> None:
    with replace_atomically(ended_file_of(job_file)) as temporary:
        temporary.write_text(str(status), encoding="utf-8")


class TrainingChild:
    """A launcher and its worker, started ahead of the job that is written to `job_file`.

    `waits_for` is the model folder that it is started for; None for one that stays, which trains whatever comes.
    """

    def __init__(self, process: subprocess.Popen[str], job_file: Path, waits_for: Path | None) -> None:
        self._process = process
        self._job_file = job_file
        self._waits_for = waits_for

    def will_train(self, job_file: Path, output_dir: Path) -> bool:
        """Whether it lives, and this job is one that it is for."""
        waits = self._process.poll() is None and self._job_file == job_file
        return waits and self._waits_for in (None, output_dir)

    def begin(self, job: dict[str, Any]) -> None:
        # In this order: a worker that stays takes a job that no end is told of.
        self._job_file.unlink(missing_ok=True)
        ended_file_of(self._job_file).unlink(missing_ok=True)
        write_job(self._job_file, job)

    def status_within(self, timeout_s: float) -> int | None:
        """The exit status of the training, as soon as it has ended; None where it goes on."""
        until = time.monotonic() + timeout_s
        while (status := self._status()) is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(LOOKS_EVERY_S, left))
        return status

    def _status(self) -> int | None:
        if (status := self._process.poll()) is not None:
            return status
        ended = ended_file_of(self._job_file)
        return int(ended.read_text(encoding="utf-8")) if self._waits_for is None and ended.exists() else None

    def end(self, *, stays: bool) -> None:
        """End its processes; with `stays`, one that stays goes on waiting."""
        if not (stays and self._waits_for is None and self._process.poll() is None):
            children.end_child(self._process)
