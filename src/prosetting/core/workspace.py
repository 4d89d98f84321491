"""Every path of a run, and the lock that gives a workspace to one run at a time."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from prosetting.config import Settings
from prosetting.errors import WorkspaceError, WorkspaceInUse


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folder that a run keeps everything in, laid out as `docs/files.md` describes."""

    root: Path
    logs: Path

    @classmethod
    def of(cls, settings: Settings) -> Workspace:
        root = settings.workspace_dir.expanduser().absolute()
        return cls(root, (settings.log_dir or root / "logs").expanduser().absolute())

    @property
    def journal(self) -> Path:
        return self.root / "prosetting.db"

    @property
    def lock_file(self) -> Path:
        return self.root / "prosetting.lock"

    @property
    def state(self) -> Path:
        return self.root / "training_state.json"

    @property
    def config(self) -> Path:
        return self.root / "training_config.json"

    @property
    def summary(self) -> Path:
        return self.root / "auto_training_summary.json"

    @property
    def results(self) -> Path:
        return self.root / "results"

    def progress(self, round_: int) -> Path:
        return self.root / f"round_{round_:02d}_progress.json"

    def checkpoint_record(self, round_: int) -> Path:
        return self.root / f"checkpoint_round_{round_}.json"

    def round_data(self, round_: int, what: str) -> Path:
        """`what`: questions, trajectories, rewards, enhanced_questions, solver_training, …"""
        return self.root / "data" / f"round_{round_:02d}_{what}.json"

    def dataset_dir(self, round_: int) -> Path:
        return self.root / "datasets" / f"round_{round_:02d}"

    def training_result(self, round_: int) -> Path:
        return self.root / "training_results" / f"trl_r{round_}_result.json"

    def model_dir(self, round_: int) -> Path:
        return self.root / "checkpoints" / f"merged_solver_r{round_}"

    def create(self) -> None:
        """Make the folders. Raises WorkspaceError where that is not allowed."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.logs.mkdir(parents=True, exist_ok=True)
            probe = self.root / ".write_probe"
            probe.write_text("")
            probe.unlink()
            for name in ("data", "datasets", "training_data", "training_results", "checkpoints", "results"):
                (self.root / name).mkdir(exist_ok=True)
        except OSError as error:
            raise WorkspaceError(
                f"the workspace {self.root} cannot be written: {error.strerror or error}",
                next_step="set WORKSPACE_DIR to a folder that you may write, or mend its permissions",
            ) from error


class WorkspaceLock:
    """Held while a run lives; the kernel lets go of it when the process dies, however it dies."""

    def __init__(self, workspace: Workspace) -> None:
        self._path = workspace.lock_file
        self._stream: IO[str] | None = None

    def __enter__(self) -> WorkspaceLock:
        stream = self._path.open("a+")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read() or "an unknown process"
            stream.close()
            raise WorkspaceInUse(
                f"another run holds {self._path.parent}: {holder}",
                next_step="wait for it, stop it, or set another WORKSPACE_DIR",
            ) from None
        stream.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        stream.write(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}))
        stream.flush()
        self._stream = stream
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._stream is not None:
            self._stream.truncate(0)
            self._stream.close()
            self._stream = None
