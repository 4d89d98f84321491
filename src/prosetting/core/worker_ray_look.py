"""The child process that looks at a Ray cluster: its nodes as one JSON line on stdout.

Each node is asked which ProSetting it has and which of some files it sees.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import ray

from prosetting.core import children
from prosetting.core.ray_driver import join, live_nodes, on_node

ASK_WITHIN_S = 60.0


def _tell(files: dict[str, str]) -> tuple[str, list[str]]:
    """Sent by value, so that a node without ProSetting can answer too."""
    try:
        version = importlib.import_module("prosetting").__version__
    except ImportError:
        version = ""
    return version, [name for name, file in files.items() if not Path(file).exists()]


def main() -> int:
    children.end_with_the_run()
    address, files = sys.argv[1], json.loads(sys.argv[2])
    join(address)
    nodes = live_nodes()
    ask = ray.remote(num_cpus=0, max_retries=0)(_tell)
    asked = {node_id: ask.options(scheduling_strategy=on_node(node_id)).remote(files) for node_id in nodes}
    told = dict(zip(asked, ray.get(list(asked.values()), timeout=ASK_WITHIN_S), strict=True))
    found = [replace(node, version=told[node_id][0], unseen=told[node_id][1]) for node_id, node in nodes.items()]
    print(json.dumps([asdict(node) for node in found]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
