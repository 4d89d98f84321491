"""A Ray cluster of simulated nodes on this machine: real raylets, each with a CPU core and a logical GPU of its own.

Ray is told to leave CUDA_VISIBLE_DEVICES alone: it then places by these GPUs, and torch computes on the CPU.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="pip install 'prosetting[ray]'")

STORE_BYTES = 80 * 2**20
# Ray notices a lost node within some seconds instead of half a minute, and gives a slow start its time.
SHORT_WAITS = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
}


@dataclass
class Nodes:
    """The head, which has no core to give and where the run is, and worker nodes."""

    cluster: Any

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, count: int = 1) -> None:
        for _ in range(count):
            self.cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=STORE_BYTES, wait=False)
        self.cluster.wait_for_nodes()

    def remove_one_that_runs(self, name: str) -> None:
        """Kill a node, and all on it, that runs an actor of this class."""
        found = {process.raylet for process in self.actors() if name in process.title}
        node = next(node for node in self.cluster.worker_nodes if raylet_of(node) in found)
        self.cluster.remove_node(node, allow_graceful=False)

    def until_nothing_runs(self, within_s: float = 60.0) -> None:
        deadline = time.monotonic() + within_s
        while left := self.actors():
            assert time.monotonic() < deadline, f"still there: {[(actor.pid, actor.title.strip()) for actor in left]}"
            time.sleep(0.1)

    def actors(self) -> list[Actor]:
        """Processes that do something for a driver, on any node."""
        raylets = {raylet_of(node) for node in self.cluster.list_all_nodes()}
        return [actor for actor in processes() if actor.raylet in raylets and not actor.waits]


@dataclass(frozen=True)
class Actor:
    pid: int
    raylet: int
    title: str

    @property
    def waits(self) -> bool:
        """Ray's own agents, its autoscaling coordinator (one a cluster, detached, of no run and without resources),
        and workers that nobody uses."""
        return any(word in self.title for word in ("Agent", "AutoscalingCoordinator", "IDLE", "Spill", "Restore"))


def raylet_of(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def processes() -> Iterator[Actor]:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if title.startswith("ray::"):
            yield Actor(int(entry.name), parent, title)


def until(holds: Any, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


@contextmanager
def ray_nodes(count: int) -> Iterator[Nodes]:
    from ray.cluster_utils import Cluster

    before = {name: os.environ.get(name) for name in SHORT_WAITS}
    os.environ.update(SHORT_WAITS)
    head = {"num_cpus": 0, "num_gpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    nodes = Nodes(Cluster(initialize_head=True, head_node_args=head))
    try:
        nodes.add(count)
        yield nodes
    finally:
        for node in [*nodes.cluster.worker_nodes, nodes.cluster.head_node]:
            nodes.cluster.remove_node(node, allow_graceful=False)  # gracefully it takes half a minute
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
