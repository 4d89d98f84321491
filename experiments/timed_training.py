"""A training in a process of its own, watched from outside: which weights it has made after how much time.

Time is CPU seconds of the process and all its children, and wall seconds. A training is anything that puts one folder
of weights after another into one place, each by a rename.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

LOOKS_EVERY_S = 0.25
STOPS_WITHIN_S = 30.0
WEIGHTS = re.compile(r"(?:merged_solver_r|step_)(\d+)")


@dataclass(frozen=True, slots=True)
class Weights:
    """A folder of weights, and the seconds from the training's start until it was there. `number`: round or step."""

    folder: Path
    number: int
    cpu_s: float
    wall_s: float

    def seconds(self, measure: str) -> float:
        return self.cpu_s if measure == "cpu" else self.wall_s


Enough = Callable[[Sequence[Weights], float, float], bool]
"""Whether to stop, from the weights so far, CPU seconds and wall seconds."""


def watch(
    command: Sequence[str], environment: Mapping[str, str], made_in: Path, log_file: Path, enough: Enough
) -> list[Weights]:
    """Run `command` until it ends or is enough. Raises SystemExit with the end of its log where it fails."""
    made: dict[str, Weights] = {}
    started = time.monotonic()
    with log_file.open("w") as log:
        child = subprocess.Popen(command, env=dict(environment), stdout=log, stderr=subprocess.STDOUT, cwd=made_in)
        root = psutil.Process(child.pid)
        cpu_s = 0.0
        try:
            while child.poll() is None:
                cpu_s, wall_s = max(cpu_s, cpu_of_tree(root)), time.monotonic() - started
                for folder in sorted((made_in / "checkpoints").glob("*")):
                    if folder.name not in made and (named := WEIGHTS.fullmatch(folder.name)):
                        made[folder.name] = Weights(folder, int(named[1]), cpu_s, wall_s)
                if enough(list(made.values()), cpu_s, wall_s):
                    break
                time.sleep(LOOKS_EVERY_S)
        finally:
            ended_by_itself = child.poll() is not None
            _end(root)
            child.wait()
    if ended_by_itself and child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}:\n{log_file.read_text()[-4000:]}")
    return sorted(made.values(), key=lambda weights: weights.number)


def cpu_of_tree(root: psutil.Process) -> float:
    """CPU seconds of a process, its children, theirs, and all of these that have ended and were waited for."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])
    return total


def _end(root: psutil.Process) -> None:
    """Ask, and end what is left."""
    with suppress(psutil.NoSuchProcess):
        tree = [root, *root.children(recursive=True)]
        root.terminate()
        psutil.wait_procs([root], timeout=STOPS_WITHIN_S)
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(tree, timeout=STOPS_WITHIN_S)


def environment(threads: int | None = None) -> dict[str, str]:
    """So many threads a process, each program's own choice for None; and no network."""
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return inherited | ({"OMP_NUM_THREADS": str(threads)} if threads else {}) | {"HF_HUB_OFFLINE": "1"}
