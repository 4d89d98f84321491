"""One training process on Ray: the DPO worker inside the process group that Ray Train made.

When a process or a node is lost Ray starts all of them anew, and each goes on from the newest sealed checkpoint. An
error that may be the loss of another process is left to Ray; any other is the training's own: its last word, after
which no start does anything.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prosetting.trainers.trl_job import Places
from prosetting.trainers.trl_trainer import read_news, start_from

BEAT_S = 1.0
OF_A_LOST_PEER = (RuntimeError, ConnectionError, TimeoutError)


def train_here(job: dict[str, Any]) -> None:
    """Called by Ray Train in each process, at every start."""
    # Torch and trl are this process's alone; the driver knows this function too.
    from prosetting.trainers.worker_dpo import train
    from prosetting.trainers.worker_dpo_callbacks import StopWish, append_line
    from prosetting.trainers.worker_process import holding

    with beating(Path(job["work_dir"])), holding(job):
        ended, resume_from = where_it_stands(job)
        if ended:
            return
        try:
            finished = train(job | {"resume_from": resume_from}, StopWish(Path(job["stop_file"])))
        except Exception as error:
            if word := own_error(error):
                append_line(Path(job["progress_file"]), word)
            raise
        if not finished and first_process():
            append_line(Path(job["progress_file"]), {"stopped": True})


def where_it_stands(job: dict[str, Any]) -> tuple[bool, str | None]:
    """As the first process finds it: whether the training had its last word, and the checkpoint to go on from. What a
    lost process left half made is put out of the way."""
    import torch.distributed

    found: list[Any] = [False, None]
    if first_process():
        places = Places(*(Path(job[name]) for name in ("work_dir", "data_dir", "save_to", "quarantine_dir")))
        found[0] = bool(last_word(Path(job["progress_file"])))
        sealed = None if found[0] else start_from(places, job["run"])
        found[1] = str(sealed.folder) if sealed else None
    if torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(found, src=0)
    return found[0], found[1]


def first_process() -> bool:
    return os.environ["RANK"] == "0"


def last_word(progress_file: Path) -> str:
    """What ended the training for good, if something did: `error` or `stopped`."""
    lines = next(read_news(progress_file))
    return next((word for line in lines for word in ("error", "stopped") if word in line), "")


def own_error(error: Exception) -> dict[str, Any] | None:
    """The last word that the error is, unless it may be another process's loss."""
    from prosetting.trainers.worker_process import out_of_memory

    if isinstance(error, OF_A_LOST_PEER) and not out_of_memory(error):
        return None
    message = " ".join(f"{type(error).__name__}: {error}".split())[:600]
    return {"error": message, "out_of_memory": out_of_memory(error)}


@contextmanager
def beating(work_dir: Path) -> Iterator[None]:
    """While inside, the first process touches a file that the driver watches."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_S):
            (work_dir / "alive").touch()

    if first_process():
        threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
