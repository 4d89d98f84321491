"""The reward of an attempt in verl's training: the run's own verdict on it, asked for over HTTP.

verl loads this file into its reward workers, in its own environment: standard library only. The run serves verdicts
on loopback (`processors/reward_server.py`) and says where in the environment.

An attempt without a verdict gets the pass rate of its question, the reward that moves nothing on average, and never
0: unknown is not wrong. A request that fails ends the run. Raising is not enough for that: verl 0.9.1 takes an
exception here for one lost attempt and trains on with the others. So the failure is also written to a file that the
run watches.
"""

from __future__ import annotations

import asyncio
import functools
import http.client
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

PORT, TOKEN, FAILURE_FILE = "PROSETTING_REWARD_PORT", "PROSETTING_REWARD_TOKEN", "PROSETTING_REWARD_FAILURE_FILE"
CONNECTIONS = 32
"""Requests in flight of one worker. The calls in flight at a teacher are limited where they are made, in the run."""
RUN_HANGS_S = 3600.0
"""Every call of a teacher has its deadline in the run, and a run that dies resets its connections at once."""
REWARDS = {"correct": 1.0, "incorrect": 0.0}

_local = threading.local()


async def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **ignored: Any
) -> dict[str, float]:
    """`score` 0 … 1, and `unknown` 1.0 where it stands in for a verdict. As verl's reward managers call it.

    `extra_info` holds `question_id` and `pass_rate` of the training file, and `cut_off` of the reward manager.
    """
    info = extra_info or {}
    body = {"question_id": info["question_id"], "response": solution_str, "cut_off": bool(info.get("cut_off", False))}
    try:
        verdict = await asyncio.get_running_loop().run_in_executor(_threads(), _verdict, json.dumps(body).encode())
    except Exception as error:
        _tell_the_run(f"{type(error).__name__}: {error}")
        raise
    return {"score": REWARDS.get(verdict, float(info["pass_rate"])), "unknown": float(verdict not in REWARDS)}


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="reward")


def _verdict(body: bytes) -> str:
    """Ask over the thread's own connection; once more over a new one where that was closed in between."""
    kept: http.client.HTTPConnection | None = getattr(_local, "connection", None)
    if kept is not None:
        try:
            return _ask(kept, body)
        except (ConnectionError, http.client.RemoteDisconnected):
            kept.close()
    _local.connection = http.client.HTTPConnection("127.0.0.1", int(os.environ[PORT]), timeout=RUN_HANGS_S)
    return _ask(_local.connection, body)


def _ask(connection: http.client.HTTPConnection, body: bytes) -> str:
    headers = {"Authorization": f"Bearer {os.environ[TOKEN]}", "Content-Type": "application/json"}
    connection.request("POST", "/verdict", body, headers)
    response = connection.getresponse()
    text = response.read()
    if response.status != 200:
        raise RuntimeError(f"the run answered {response.status}: {text[:500].decode(errors='replace')}")
    return str(json.loads(text)["verdict"])


def _tell_the_run(what: str) -> None:
    with open(os.environ[FAILURE_FILE], "a", encoding="utf-8") as stream:
        stream.write(what + "\n")
