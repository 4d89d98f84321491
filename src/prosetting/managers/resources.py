"""What a run uses of its machine, sampled while it runs: GPUs, memory, disk.

One JSON line every INTERVAL_S in `logs/resources.jsonl`, some 300 bytes, two to three MB a day. It is no truth of the
run: what cannot be read is left out, and the file may be deleted at any time.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from prosetting.core.nvml import read_gpus
from prosetting.core.workspace import Workspace
from prosetting.errors import GpuError

INTERVAL_S = 10.0
_BLOCK = 64 * 2**10
log = logging.getLogger("prosetting")


@dataclass(frozen=True, slots=True)
class GpuUse:
    """One GPU at one moment, by all programs. `utilisation`: 0 to 1."""

    index: int
    utilisation: float
    memory_used_bytes: int
    memory_total_bytes: int


@dataclass(frozen=True, slots=True)
class ResourceSample:
    """A moment. `run_memory_bytes`: resident memory of the run and all its children."""

    at: float
    run_memory_bytes: int
    free_memory_bytes: int
    free_disk_bytes: int
    gpus: tuple[GpuUse, ...]


LookAtGpus = Callable[[], Sequence[GpuUse]]


def gpus_in_use() -> list[GpuUse]:
    """All GPUs of this machine; none without a driver that answers."""
    try:
        gpus = read_gpus()
    except GpuError:
        return []
    return [GpuUse(gpu.index, (gpu.utilisation or 0) / 100, gpu.used_bytes, gpu.total_bytes) for gpu in gpus]


class ResourceSampler:
    """A thread that samples while a run lives. Used as a context manager."""

    def __init__(
        self, workspace: Workspace, look_at_gpus: LookAtGpus = gpus_in_use, interval_s: float = INTERVAL_S
    ) -> None:
        self._workspace = workspace
        self._look_at_gpus = look_at_gpus
        self._interval_s = interval_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="resources", daemon=True)

    def __enter__(self) -> ResourceSampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                self.sample()
            except Exception as error:  # a process that ended while it was looked at, a full disk: the next one tells
                log.debug("resources: %s", error)
            if self._ended.wait(self._interval_s):
                return

    def sample(self) -> ResourceSample:
        """Look now and append what was seen."""
        found = read_resources(self._workspace.root, self._look_at_gpus)
        with self._workspace.resources.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(found)) + "\n")
        return found


def read_resources(folder: Path, look_at_gpus: LookAtGpus = gpus_in_use) -> ResourceSample:
    """This moment: this process with its children, this machine, and the disk under `folder`."""
    import psutil

    run = psutil.Process(os.getpid())
    memory = 0
    for process in [run, *run.children(recursive=True)]:
        try:
            memory += process.memory_info().rss
        except psutil.Error:
            continue  # it ended just now
    return ResourceSample(
        at=time.time(),
        run_memory_bytes=memory,
        free_memory_bytes=psutil.virtual_memory().available,
        free_disk_bytes=shutil.disk_usage(folder).free,
        gpus=tuple(look_at_gpus()),
    )


def latest_sample(file: Path) -> ResourceSample | None:
    """The last look, None where there was none."""
    for line in _lines_from_the_end(file):
        if found := _sample(line):
            return found
    return None


def samples_since(file: Path, began_at: float) -> list[ResourceSample]:
    """The samples from `began_at` (seconds since the epoch) on, in order; costs what has been written since then."""
    found: list[ResourceSample] = []
    for line in _lines_from_the_end(file):
        sample = _sample(line)
        if sample is None:
            continue
        if sample.at < began_at:
            break
        found.append(sample)
    return found[::-1]


def _sample(line: bytes) -> ResourceSample | None:
    """None for what was cut short by a kill, or is not ours."""
    try:
        row: dict[str, Any] = json.loads(line)
        return ResourceSample(**{**row, "gpus": tuple(GpuUse(**gpu) for gpu in row["gpus"])})
    except (ValueError, TypeError, KeyError):
        return None


def _lines_from_the_end(file: Path) -> Iterator[bytes]:
    try:
        stream = file.open("rb")
    except OSError:
        return
    with stream:
        position, rest = stream.seek(0, os.SEEK_END), b""
        while position:
            begin = max(0, position - _BLOCK)
            stream.seek(begin)
            lines = (stream.read(position - begin) + rest).split(b"\n")
            position, rest = begin, lines[0]
            yield from (line for line in reversed(lines[1:]) if line)
        if rest:
            yield rest
