"""The process of a training as the run sees it: it waits for its job, and ends with it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from prosetting.core import children
from prosetting.trainers.trl_job import write_job

LOOKS_EVERY_S = 0.05


class TrainingChild:
    """A launcher and its worker, started ahead of the job that is written to `job_file` and makes `output_dir`."""

    def __init__(self, process: subprocess.Popen[str], job_file: Path, output_dir: Path) -> None:
        self._process = process
        self._job_file = job_file
        self._output_dir = output_dir

    def will_train(self, job_file: Path, output_dir: Path) -> bool:
        """Whether it lives, and this job is the one that it is for."""
        return self._process.poll() is None and (self._job_file, self._output_dir) == (job_file, output_dir)

    def begin(self, job: dict[str, Any]) -> None:
        write_job(self._job_file, job)

    def status_within(self, timeout_s: float) -> int | None:
        """The exit status of the training, as soon as it has ended; None where it goes on."""
        until = time.monotonic() + timeout_s
        while (status := self._process.poll()) is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(LOOKS_EVERY_S, left))
        return status

    def end(self) -> None:
        children.end_child(self._process)
