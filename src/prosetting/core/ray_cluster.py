"""What a run asks of a Ray cluster, checked before anything is spent. Nothing here imports ray: a child looks.

A cluster's nodes are told apart from this machine only by RAY_CLUSTER_ADDRESS: without one, the engines start a
cluster on this machine for as long as they need it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prosetting import __version__
from prosetting.config import Settings
from prosetting.core.children import RUN_PID
from prosetting.core.machine import this_machine
from prosetting.errors import ConfigError

LOOKER = "prosetting.core.worker_ray_look"
ANSWER_WITHIN_S = 5.0
LOOK_WITHIN_S = 90.0


@dataclass(frozen=True, slots=True)
class Share:
    """What one replica or one training process takes of a node."""

    gpus: int
    cpus: int

    def __str__(self) -> str:
        return f"{self.gpus} GPU{'' if self.gpus == 1 else 's'} and {self.cpus} CPU{'' if self.cpus == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a cluster. `version` is its ProSetting's, empty where there is none; `unseen` names the settings whose
    files it does not have."""

    address: str
    gpus: int
    cpus: int
    version: str = __version__
    unseen: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Demand:
    """`count` shares of the cluster, at least one. `what` and `setting` name them in messages."""

    what: str
    setting: str
    count: int | None
    share: Share


def solver_demand(settings: Settings) -> Demand:
    share = Share(settings.ray_solver_gpus, settings.ray_solver_cpus)
    return Demand("Solver replicas", "RAY_SOLVER_REPLICAS", settings.ray_solver_replicas, share)


def trainer_demand(settings: Settings) -> Demand:
    share = Share(settings.ray_trainer_gpus, settings.ray_trainer_cpus)
    return Demand("training processes", "TRL_NUM_PROCESSES", settings.trl_num_processes, share)


def demands_of(settings: Settings) -> list[Demand]:
    """What the settings ask of Ray; nothing where one machine is enough."""
    asked = [solver_demand(settings)] if settings.solver_engine == "ray" and not settings.solver_base_urls else []
    return asked + ([trainer_demand(settings)] if settings.trl_launcher == "ray" else [])


def room_for(share: Share, nodes: Sequence[Node]) -> int:
    """How many shares fit on the nodes, whatever else runs there; none is split between two."""
    return sum(
        min(node.cpus // share.cpus, node.gpus // share.gpus if share.gpus else node.cpus // share.cpus)
        for node in nodes
    )


def check_cluster(settings: Settings, demand: Demand) -> None:
    """Raises ConfigError where Ray is missing, the cluster does not answer, a node is not fit, or `demand` does not
    fit."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            f"{demand.what} on Ray are asked for, but Ray is not installed", next_step="pip install 'prosetting[ray]'"
        )
    address = settings.ray_cluster_address
    if not address:
        machine = this_machine()
        check_room([Node("this machine", len(machine.gpu_ids), machine.cpu_count)], demand, settings)
        return
    check_answers(address)
    nodes = _look(address, tuple(_shared_by_all(settings).items()))
    check_nodes(nodes)
    check_room(nodes, demand, settings)


def check_answers(address: str) -> None:
    """Ray itself would try for many minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise ConfigError(
            f"RAY_CLUSTER_ADDRESS={address} is not of the form host:port",
            next_step="set it to what `ray start --head` printed, such as 10.0.0.1:6379 (not the ray:// address)",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"no Ray cluster answers at RAY_CLUSTER_ADDRESS={address} ({error})",
            next_step=f"start it (ray start --head --port={port}), or mend the address. Empty: one on this machine",
        ) from None


def check_nodes(nodes: Sequence[Node]) -> None:
    """Every node must run this ProSetting and see the shared files. Raises ConfigError for the first that does not."""
    for node in nodes:
        if node.version != __version__:
            found = f"ProSetting {node.version}" if node.version else "no ProSetting"
            raise ConfigError(
                f"the Ray node {node.address} has {found}, this machine has {__version__}",
                next_step="install the same on every node: pip install 'prosetting[train,ray]'",
            )
        if node.unseen:
            raise ConfigError(
                f"the Ray node {node.address} does not see the files of {' and '.join(node.unseen)}",
                next_step="set them to folders that all nodes share under one path, such as an NFS mount",
            )


def check_room(nodes: Sequence[Node], demand: Demand, settings: Settings) -> None:
    """Raises ConfigError where the nodes have less than `demand`, unless they come on demand."""
    wanted, room = demand.count or 1, room_for(demand.share, nodes)
    if wanted <= room or settings.ray_autoscaling:
        return
    gpus, cpus = sum(node.gpus for node in nodes), sum(node.cpus for node in nodes)
    gpu_setting = "RAY_TRAINER_GPUS" if demand.setting.startswith("TRL") else "RAY_SOLVER_GPUS"
    choices = [f"set {demand.setting}={room}"] if room else []
    choices += [f"set {gpu_setting}=0 for the CPU"] if demand.share.gpus and not gpus else []
    choices += ["add nodes", "set RAY_AUTOSCALING=true if the cluster starts nodes on demand"]
    raise ConfigError(
        f"{wanted} {demand.what} of {demand.share} each are asked for, but the Ray cluster"
        f" ({len(nodes)} nodes, {gpus} GPUs, {cpus} CPUs) has room for {room}",
        next_step=", or ".join(choices),
    )


def _shared_by_all(settings: Settings) -> dict[str, Path]:
    """The folders that every node must have under the same path, by their settings."""
    folders = {"WORKSPACE_DIR": settings.workspace_dir, "LOG_DIR": settings.log_dir}
    model = Path(settings.solver_model_path).expanduser()
    if model.is_dir():
        folders["SOLVER_MODEL_PATH"] = model
    return {name: folder.expanduser().absolute() for name, folder in folders.items() if folder}


@functools.cache
def _look(address: str, shared: tuple[tuple[str, Path], ...]) -> tuple[Node, ...]:
    """The cluster's nodes, by a child that joins it. Whether each sees a folder is told by a file in it: of a model its
    own, elsewhere one that is made there, or above where nothing stands yet."""
    with contextlib.ExitStack() as stack:
        files = {
            name: str(folder / "config.json") if name == "SOLVER_MODEL_PATH" else _probe(stack, folder)
            for name, folder in shared
        }
        command = [sys.executable, "-m", LOOKER, address, json.dumps(files)]
        env = {**os.environ, RUN_PID: str(os.getpid())}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LOOK_WITHIN_S, env=env)
        except subprocess.TimeoutExpired:
            raise _not_usable(address, f"nothing came of it within {LOOK_WITHIN_S:.0f} s") from None
    if done.returncode != 0:
        raise _not_usable(address, (done.stderr.strip().splitlines() or ["it ended without a word"])[-1])
    return tuple(Node(**node) for node in json.loads(done.stdout.splitlines()[-1]))


def _probe(stack: contextlib.ExitStack, folder: Path) -> str:
    """A file in `folder`, or in the nearest one above that is there, for as long as `stack` is open."""
    there = next(each for each in (folder, *folder.parents) if each.is_dir())
    try:
        return stack.enter_context(tempfile.NamedTemporaryFile(prefix=".prosetting-probe-", dir=there)).name
    except OSError as error:
        raise ConfigError(
            f"{there} cannot be written: {error.strerror}", next_step="set WORKSPACE_DIR to a folder that you may write"
        ) from None


def _not_usable(address: str, why: str) -> ConfigError:
    return ConfigError(
        f"the Ray cluster at RAY_CLUSTER_ADDRESS={address} cannot be joined from this machine: {why}",
        next_step=f"make this machine a node of it: ray start --address={address}; and see that `ray status` is well",
    )
