"""Joining a Ray cluster as a driver. For child processes only: importing this imports ray.

A driver is a Ray job: when its process ends, however it ends, Ray ends the actors that it made and frees their
placement groups. None is detached, so none outlives a run that was killed.
"""

from __future__ import annotations

import logging
import os
import sys
import threading

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from prosetting.core.ray_cluster import Node

JOIN_WITHIN_S = 60.0
OBJECT_STORE_BYTES = 200 * 2**20
"""Of a cluster that is started here: only requests and attempts go through it."""


def join(address: str) -> None:
    """Join the cluster at `address`, or start one on this machine if it is empty. Ends the process when that takes
    longer than JOIN_WITHIN_S: Ray would wait for ever."""
    late = threading.Timer(JOIN_WITHIN_S, _give_up, [address])
    late.daemon = True
    late.start()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address:
        ray.init(address=address, logging_level=logging.WARNING)
    else:
        ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            logging_level=logging.WARNING,
        )
    late.cancel()


def _give_up(address: str) -> None:
    print(
        f"the Ray cluster at {address or 'this machine'} did not answer within {JOIN_WITHIN_S:.0f} s", file=sys.stderr
    )
    sys.stderr.flush()
    os._exit(1)


def live_nodes() -> dict[str, Node]:
    """The cluster's live nodes by their Ray id."""
    return {
        node["NodeID"]: Node(
            address=node["NodeManagerAddress"],
            gpus=int(node["Resources"].get("GPU", 0)),
            cpus=int(node["Resources"].get("CPU", 0)),
        )
        for node in ray.nodes()
        if node["Alive"]
    }


def on_node(node_id: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id, soft=False)
