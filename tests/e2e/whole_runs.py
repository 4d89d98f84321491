"""Whole runs of a small solver through the command line, as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from prosetting.demo.recipe import Recipe

SMALL = Recipe(layers=2, steps=70, batch=32, examples=2_000, seed_questions=12, heldout_questions=12)
OVERRIDES = {
    "TOTAL_ROUNDS": "5",
    "FIRST_TRAINING_ROUND": "5",
    "NEW_QUESTIONS_PER_ROUND": "3",
    "SOLVER_BATCH_SIZE": "24",
    "EVAL_ATTEMPTS": "2",
    "SEED": "5",
}


@dataclass(frozen=True)
class Demo:
    """The inputs of a run, and how to start one."""

    folder: Path

    def command(
        self, workspace: Path, *flags: str, launcher: tuple[str, ...] = ("-m", "prosetting", "run")
    ) -> list[str]:
        settings = [part for key, value in OVERRIDES.items() for part in (f"--{key.lower().replace('_', '-')}", value)]
        env_file = ["--env-file", str(self.folder / ".env"), "--workspace-dir", str(workspace)]
        return [sys.executable, *launcher, *env_file, *settings, *flags]

    def run(self, workspace: Path, *flags: str, **popen) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(workspace, *flags), capture_output=True, text=True, timeout=280, env=clean_env(), **popen
        )


def clean_env() -> dict[str, str]:
    """The environment without settings of whoever runs the tests; one thread, so that runs compare equal."""
    ours = (
        "TEACHER_",
        "SOLVER_",
        "TRL_",
        "AUTO_",
        "WORKSPACE_",
        "TOTAL_",
        "SEED",
        "QUESTIONS_",
        "EMBEDDED_",
        "REWARD_",
    )
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)} | {"OMP_NUM_THREADS": "1"}


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def children_of(workspace: Path) -> list[bytes]:
    """Command lines of live processes of ours that name the workspace."""
    alive = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(workspace).encode() in command and b"prosetting" in command and int(process.name) != os.getpid():
            alive.append(command)
    return alive
