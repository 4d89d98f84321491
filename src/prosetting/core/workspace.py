"""Every path of a run, and the lock that gives a workspace to one run at a time."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from prosetting.config import Settings
from prosetting.core.artifacts import make_folder, remove_temporaries
from prosetting.core.crash_points import reached
from prosetting.errors import WorkspaceError, WorkspaceInUse

log = logging.getLogger("prosetting")


NAMELESS_FOR_S = 3.0


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
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def resources(self) -> Path:
        return self.logs / "resources.jsonl"

    @property
    def control_wish(self) -> Path:
        return self.root / "control" / "wish.json"

    @property
    def control_state(self) -> Path:
        return self.root / "control" / "state.json"

    def progress(self, round_: int) -> Path:
        return self.root / f"round_{round_:02d}_progress.json"

    def checkpoint_record(self, round_: int) -> Path:
        return self.root / f"checkpoint_round_{round_}.json"

    def round_data(self, round_: int, what: str) -> Path:
        """`what`: questions, trajectories, rewards, enhanced_questions, solver_training, …"""
        return self.root / "data" / f"round_{round_:02d}_{what}.json"

    def dataset_dir(self, round_: int) -> Path:
        return self.root / "datasets" / f"round_{round_:02d}"

    def training_data(self, name: str) -> Path:
        """A training file of the verl flow, `solver_rN_YYYYMMDD_HHMMSS.json` or `.parquet`."""
        return self.root / "training_data" / name

    def training_result(self, round_: int) -> Path:
        return self.root / "training_results" / f"trl_r{round_}_result.json"

    def generator_result(self, round_: int) -> Path:
        return self.root / "training_results" / f"generator_r{round_}_result.json"

    def model_dir(self, round_: int) -> Path:
        return self.root / "checkpoints" / f"merged_solver_r{round_}"

    def generator_dir(self, round_: int) -> Path:
        return self.root / "checkpoints" / f"generator_r{round_}"

    def create(self) -> None:
        """Make the folders. Raises WorkspaceError where that is not allowed."""
        try:
            make_folder(self.root)
            make_folder(self.logs)
            probe = self.root / ".write_probe"
            probe.write_text("")
            probe.unlink(missing_ok=True)
            for name in ("data", "datasets", "training_data", "training_results", "checkpoints", "results"):
                make_folder(self.root / name)
            reached("workspace:made")
        except OSError as error:
            raise WorkspaceError(
                f"the workspace {self.root} cannot be written: {error.strerror or error}",
                next_step="set WORKSPACE_DIR to a folder that you may write, or mend its permissions",
            ) from error

    def quarantine(self, path: Path, why: str) -> Path:
        """Move what is damaged out of the way, into `quarantine/`, and say so; where it went."""
        stem = "__".join(path.relative_to(self.root).parts)
        make_folder(self.root / "quarantine")
        kept = next(free for n in range(1, 10_000) if not (free := self.root / "quarantine" / f"{stem}.{n}").exists())
        shutil.move(path, kept)
        log.warning("%s is damaged (%s): kept as %s", path, why, kept)
        return kept


class WorkspaceLock:
    """Held while a run lives; the kernel lets go of it when the process dies, however it dies."""

    def __init__(self, workspace: Workspace) -> None:
        self._path = workspace.lock_file
        self._stream: IO[str] | None = None

    def __enter__(self) -> WorkspaceLock:
        stream = self._path.open("a+")
        if holder := _take(stream):
            stream.close()
            raise WorkspaceInUse(
                f"another run holds {self._path.parent}: {holder}",
                next_step="wait for it, stop it, or set another WORKSPACE_DIR",
            )
        reached("lock:taken")
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        stream.truncate(0)
        stream.write(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}))
        stream.flush()
        self._stream = stream
        reached("lock:written")
        remove_temporaries(self._path.parent)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._stream is not None:
            self._stream.truncate(0)
            self._stream.close()
            self._stream = None


def holder_of(workspace: Workspace) -> dict[str, Any] | None:
    """The live run (pid, host, since) that holds the workspace, or None.

    Asks the kernel only where the lock file names a holder: asking takes the lock for a moment.
    """
    try:
        with workspace.lock_file.open() as stream:
            text = stream.read()
            if not text:
                return None
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return dict(json.loads(text))
    except (OSError, ValueError):
        return None
    return None


def _take(stream: IO[str]) -> str:
    """Lock the file: empty when that was done, else who holds it.

    For a moment the holder may not have written its name yet, or a killed one's child that was just being started
    holds on in its place: neither lasts.
    """
    deadline = time.monotonic() + NAMELESS_FOR_S
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return ""
        except BlockingIOError:
            stream.seek(0)
            text = stream.read()
        if _names_a_live_process(text) or time.monotonic() > deadline:
            return text or "an unknown process"
        time.sleep(0.01)


def _names_a_live_process(text: str) -> bool:
    try:
        holder = json.loads(text)
        if holder["host"] == platform.node():
            os.kill(holder["pid"], 0)
    except (ValueError, KeyError, TypeError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True
