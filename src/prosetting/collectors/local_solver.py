"""The Solver on this machine: transformers in a child process, so that its memory is free when it ends.

Parent and child speak JSON lines: the child's first line says what it loaded, then one request line a batch
in and one reply line out. A reply with `error` is the child's last word.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from prosetting.collectors.solver import Sample, SampleRequest, SamplingParams
from prosetting.core import children
from prosetting.core.model_folder import is_hub_name, missing_parts
from prosetting.errors import ConfigError, SolverError

WORKER = "prosetting.collectors.worker_sampler"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the child loaded. `max_positions` is the model's longest sequence in tokens, 0 if it names none."""

    model_type: str
    parameters: int
    device: str
    dtype: str
    max_positions: int
    chat_template: bool


class LocalSolver:
    """A checkpoint held in a child process. Starting waits until the model is loaded.

    `gpu_ids` are physical ids that only the child sees; none means the CPU. Raises SolverError when the
    checkpoint cannot be loaded. May be used as a context manager.
    """

    def __init__(self, model_path: str, *, gpu_ids: tuple[int, ...], log_file: Path, batch_size: int = 64) -> None:
        self._batch_size = batch_size
        folder = Path(model_path).expanduser()
        self.model_path = str(folder) if folder.is_dir() else model_path
        self._log_file = log_file
        env = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpu_ids))}
        if folder.is_dir():
            env["HF_HUB_OFFLINE"] = "1"
        self._child = children.start_child(
            [WORKER, "--model", self.model_path], log_file=log_file, extra_env=env, pipes=True
        )
        try:
            self.facts = ModelFacts(**self._receive())
        except BaseException:
            self.close()
            raise

    def sample(self, requests: Iterable[SampleRequest], params: SamplingParams) -> Iterator[Sample]:
        """Draw attempts, each yielded as it is finished. Raises SolverError when the child is lost."""
        stream = iter(requests)
        while batch := list(itertools.islice(stream, self._batch_size)):
            yield from self._draw(batch, params)

    def _draw(self, batch: Sequence[SampleRequest], params: SamplingParams) -> list[Sample]:
        rows = [{"prompt": request.prompt, "seed": request.seed} for request in batch]
        self._send({"params": asdict(params), "rows": rows})
        drawn = self._receive()["rows"]
        return [
            Sample(question_id=request.question_id, attempt=request.attempt, **row)
            for request, row in zip(batch, drawn, strict=True)
        ]

    def close(self) -> None:
        """End the child and give its memory back. Safe to call twice, and from another thread."""
        if self._child.returncode is not None:
            return
        # A thread that waits for a reply holds the pipe's lock until the child is gone.
        self._child.terminate()
        children.end_child(self._child)

    def __enter__(self) -> LocalSolver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(message) + "\n")
            self._child.stdin.flush()
        except (OSError, ValueError):
            raise self._lost() from None

    def _receive(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        try:
            reply = json.loads(self._child.stdout.readline())
        except (OSError, ValueError):
            raise self._lost() from None
        if "error" in reply:
            raise SolverError(
                f"the Solver {self.model_path} failed: {reply['error']}",
                next_step=_advice(reply["error"], self._log_file),
            )
        return dict(reply)

    def _lost(self) -> SolverError:
        children.end_child(self._child)
        tail = children.log_tail(self._log_file)
        return SolverError(
            f"the sampling process ended (exit status {self._child.returncode}). Its last messages:\n{tail}",
            next_step=_advice(tail, self._log_file),
        )


def _advice(message: str, log_file: Path) -> str:
    if "out of memory" in message.lower():
        return "free the GPU or choose another (PHYSICAL_SOLVER_GPU), or lower SOLVER_MAX_NEW_TOKENS"
    if "No module named" in message:
        return "pip install 'prosetting[train]'"
    if "cannot be loaded" in message:
        return "set SOLVER_MODEL_PATH to a Hugging Face model folder, or to a hub name such as Qwen/Qwen3-8B"
    return f"see {log_file}, then start the run again: it goes on where it stopped"


def check_model_folder(path: str) -> None:
    """Refuse what cannot be a model before anything is spent; a hub name passes. Raises ConfigError.

    A path is anything that exists, or that does not read as `organisation/name`.
    """
    if is_hub_name(path):
        return
    folder = Path(path).expanduser()
    next_step = "set SOLVER_MODEL_PATH to a Hugging Face model folder, or to a hub name such as Qwen/Qwen3-8B"
    if not folder.exists():
        raise ConfigError(f"there is no model at {path}", next_step=next_step)
    if not folder.is_dir():
        raise ConfigError(f"{path} is a file, not a model folder", next_step=next_step)
    if missing := missing_parts(folder):
        if any(".bin weights" in part for part in missing):
            next_step = "convert it: load it with transformers and save_pretrained() it, which writes safetensors"
        raise ConfigError(f"{path} is not a model folder: it lacks {', '.join(missing)}", next_step=next_step)
