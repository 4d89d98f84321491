"""The Solver on this machine: transformers in a child process, so that its memory is free when it ends. On the CPU the
process stays from round to round: loading its libraries takes longer than the weights of a small model.

Parent and child speak JSON lines, which sampler_protocol.py describes.
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from prosetting.collectors.solver import Sample, SampleRequest, SamplingParams
from prosetting.core import children
from prosetting.core.gpu_manager import gpu_env
from prosetting.core.machine import usable_cores
from prosetting.core.model_folder import is_hub_name, missing_parts
from prosetting.errors import ConfigError, SolverError

log = logging.getLogger("prosetting")

WORKER = "prosetting.collectors.worker_sampler"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the child loaded. `max_positions` is the model's longest sequence in tokens, 0 if it names none;
    `replicas`: how many copies of it draw attempts."""

    model_type: str
    parameters: int
    device: str
    dtype: str
    max_positions: int
    chat_template: bool
    replicas: int = 1


class LocalSolver:
    """A checkpoint held in a child process, which loads it while the caller goes on; who samples waits for it.

    `batch_size` attempts are drawn at once. `gpu_ids` are physical ids that only the child sees; none means the CPU.
    `trust_remote_code` runs Python code that the checkpoint brings. `worker` is the child's module with what else it
    is told. May be used as a context manager.
    """

    def __init__(
        self,
        model_path: str,
        *,
        gpu_ids: tuple[int, ...],
        log_file: Path,
        batch_size: int = 64,
        trust_remote_code: bool = False,
        worker: Sequence[str] = (WORKER,),
    ) -> None:
        folder = _folder(model_path)
        self.model_path = folder or model_path
        self._log_file = log_file
        env = gpu_env(gpu_ids)
        if folder:
            env["HF_HUB_OFFLINE"] = "1"
        if not gpu_ids and "OMP_NUM_THREADS" not in os.environ:
            # A core is the run's, which grades meanwhile: where all compute, each waits for the one that is put off.
            env["OMP_NUM_THREADS"] = str(max(1, usable_cores() - 1))
        command = [*worker, "--model", self.model_path, "--slots", str(batch_size)]
        if trust_remote_code:
            command.append("--trust-remote-code")
        self._batch_size = batch_size
        # On a GPU what the process itself holds is free only when it ends.
        self._takes_others = not gpu_ids and tuple(worker) == (WORKER,) and folder is not None
        self._keys = itertools.count()
        self._child = children.start_child(
            command, log_file=log_file, extra_env=env, pipes=True, forked=self._takes_others
        )

    @functools.cached_property
    def facts(self) -> ModelFacts:
        """What was loaded, once it is. Raises SolverError when the checkpoint cannot be loaded."""
        while "model_type" not in (reply := self._receive()):
            pass  # notes, and rows of a call that was left early
        return ModelFacts(**reply)

    def load(self, model: str | None) -> bool:
        """Only a folder, on the CPU, in a process that lives and began with a folder (it asks no hub)."""
        if not self._takes_others or self._child.poll() is not None:
            return False
        folder = None if model is None else _folder(model)
        if model is not None and folder is None:
            return False
        self.model_path = folder or ""
        self.__dict__.pop("facts", None)
        try:
            self._send([{"model": folder}])
        except SolverError:
            return False
        return True

    def sample(self, requests: Iterable[SampleRequest], params: SamplingParams) -> Iterator[Sample]:
        """Draw attempts, each yielded as it is finished. Raises SolverError when the checkpoint cannot be loaded or the
        child is lost."""
        ahead = 2 * self._batch_size * self.facts.replicas  # nothing is asked for before it is loaded
        stream = iter(requests)
        open_: dict[int, SampleRequest] = {}
        self._send([{"params": asdict(params)}])
        while True:
            new = dict(zip(self._keys, itertools.islice(stream, ahead - len(open_)), strict=False))
            self._send([{"key": key, "prompt": each.prompt, "seed": each.seed} for key, each in new.items()])
            open_ |= new
            if not open_:
                return
            for row in self._receive().get("rows", ()):
                # A row of an earlier call that was left early is nobody's.
                if request := open_.pop(row.pop("key"), None):
                    yield Sample(request.question_id, request.attempt, **row)

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

    def _send(self, messages: Sequence[dict[str, Any]]) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.writelines(f"{json.dumps(message)}\n" for message in messages)
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
        if "note" in reply:
            log.warning("%s", reply["note"])
        return dict(reply)

    def _lost(self) -> SolverError:
        children.end_child(self._child)
        tail = children.log_tail(self._log_file)
        return SolverError(
            f"the sampling process ended (exit status {self._child.returncode}). Its last messages:\n{tail}",
            next_step=_advice(tail, self._log_file),
        )


def _folder(model: str) -> str | None:
    """The absolute path of a folder; None for what is none, such as a hub name."""
    folder = Path(model).expanduser().absolute()
    return str(folder) if folder.is_dir() else None


def _advice(message: str, log_file: Path) -> str:
    if "RAY_NODE_TIMEOUT" in message:
        return "see `ray status`; add nodes, or raise RAY_NODE_TIMEOUT, then start the run again: it goes on from there"
    if "out of memory" in message.lower():
        return (
            "free the GPU or choose another (PHYSICAL_SOLVER_GPU), or lower SOLVER_BATCH_SIZE or SOLVER_MAX_NEW_TOKENS"
        )
    if "No module named" in message:
        return "pip install 'prosetting[train]'"
    if "trust_remote_code" in message:
        return "it brings Python code of its own: set TRUST_REMOTE_CODE=true if you trust that code"
    if "cannot be loaded" in message:
        return "set SOLVER_MODEL_PATH to a Hugging Face model folder, or to a hub name such as Qwen/Qwen3-8B"
    return f"see {log_file}, then start the run again: it goes on where it stopped"


def check_model_folder(path: str, setting: str = "SOLVER_MODEL_PATH") -> None:
    """Refuse what cannot be a model before anything is spent; a hub name passes. Raises ConfigError.

    A path is anything that exists, or that does not read as `organisation/name`.
    """
    if is_hub_name(path):
        return
    folder = Path(path).expanduser()
    next_step = f"set {setting} to a Hugging Face model folder, or to a hub name such as Qwen/Qwen3-8B"
    if not folder.exists():
        raise ConfigError(f"there is no model at {path}", next_step=next_step)
    if not folder.is_dir():
        raise ConfigError(f"{path} is a file, not a model folder", next_step=next_step)
    if missing := missing_parts(folder):
        if any(".bin weights" in part for part in missing):
            next_step = "convert it: load it with transformers and save_pretrained() it, which writes safetensors"
        raise ConfigError(f"{path} is not a model folder: it lacks {', '.join(missing)}", next_step=next_step)
