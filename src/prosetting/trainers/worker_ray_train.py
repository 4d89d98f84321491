"""The child process that has Ray Train run a training: the launcher in the place of `accelerate launch`.

A driver: when it ends, Ray ends the processes that train. Ray restarts them after a loss and waits for nodes for ever;
the deadline is ours.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from prosetting.core import children
from prosetting.core.ray_driver import join
from prosetting.errors import EXIT_FAILED, EXIT_STOPPED
from prosetting.trainers.checkpoints import SEAL
from prosetting.trainers.ray_rank import last_word, train_here

MOST_RESTARTS = 5
"""Of one start of the training; the run's own retries come after that."""
POLL_S = 1.0
JOB_POLL_INTERVAL_S = 0.05


class Training(TorchTrainer):
    """Without Ray Train's detached cleaner of placement groups: the run's end is the job's end, which frees them, and a
    cleaner on a cluster without a dashboard outlives every training that is killed."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()
        return [callback for callback in callbacks if type(callback).__name__ != "PlacementGroupCleanerCallback"]


def training_of(arguments: argparse.Namespace, job: dict[str, Any]) -> Training:
    env = dict(each.split("=", 1) for each in arguments.env)
    return Training(
        train_here,
        train_loop_config=job,
        scaling_config=ScalingConfig(
            num_workers=arguments.processes,
            use_gpu=arguments.gpus > 0,
            resources_per_worker={"CPU": arguments.cpus} | ({"GPU": arguments.gpus} if arguments.gpus else {}),
            placement_strategy="PACK",
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=job["work_dir"],
            failure_config=FailureConfig(max_failures=MOST_RESTARTS),
            worker_runtime_env={"env_vars": env},
        ),
    )


def end_without_processes(job: dict[str, Any], processes: int, node_timeout_s: float) -> None:
    """End this process once no training has been alive for so long."""
    alive, beat, since = Path(job["work_dir"], "alive"), 0.0, time.monotonic()
    while time.monotonic() - since <= node_timeout_s:
        time.sleep(POLL_S)
        now = alive.stat().st_mtime if alive.exists() else 0.0
        if now != beat:
            beat, since = now, time.monotonic()
    what = f"its {processes} processes on Ray could not run for {node_timeout_s:.0f} s (RAY_NODE_TIMEOUT)"
    tell(Path(job["progress_file"]), {"error": f"{what}: the cluster has no room for all of them"})
    os._exit(EXIT_FAILED)


def tell(progress_file: Path, message: dict[str, Any]) -> None:
    with progress_file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(message) + "\n")


def main() -> int:
    children.end_with_the_run()
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", required=True, type=Path)
    parser.add_argument("--address", required=True)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--gpus", type=int, required=True)
    parser.add_argument("--cpus", type=int, required=True)
    parser.add_argument("--node-timeout", type=float, required=True)
    parser.add_argument("--env", action="append", default=[])
    arguments = parser.parse_args()
    # It may be started before its job is known: it takes nothing of the cluster until then.
    while not arguments.job.exists():
        time.sleep(JOB_POLL_INTERVAL_S)
    job = json.loads(arguments.job.read_text(encoding="utf-8"))
    progress_file = Path(job["progress_file"])
    Path(job["work_dir"]).mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # it prints every line of a process twice
    join(arguments.address)
    late = threading.Thread(
        target=end_without_processes, args=(job, arguments.processes, arguments.node_timeout), daemon=True
    )
    late.start()
    try:
        training_of(arguments, job).fit()
    except Exception as error:
        traceback.print_exc()
        if not last_word(progress_file):
            tell(progress_file, {"error": " ".join(f"{type(error).__name__}: {error}".split())[:600]})
    if last_word(progress_file) == "stopped":
        return EXIT_STOPPED
    return 0 if Path(job["save_to"], SEAL).exists() else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
