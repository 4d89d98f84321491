"""Teacher1 grading over HTTP with the journal on disk, as a share of what the server's latency allows.

    ideal throughput = calls in flight / latency

Bars: 0.90 at 32 in flight and 100 ms, 0.60 at 1,000 in flight and 2 s. Each reply is checked to be the one to its
own request, and the journal to hold a row for each call. For comparison, in turns on the same requests: the plain
openai client, without a journal. The server (loopback_teacher.py) is a process of its own; its CPU time is told.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from prosetting.core.concurrency import for_each
from prosetting.core.group_commit import GroupCommit
from prosetting.core.journal import Journal
from prosetting.records import Question, QuestionId, Verdict
from prosetting.teachers.call_ledger import JournalLedger
from prosetting.teachers.endpoint import Endpoint
from prosetting.teachers.http_teacher import HttpTeacher
from prosetting.teachers.prompts import grade_prompt

REPEATS = 3
SERVER = Path(__file__).with_name("loopback_teacher.py")
QUESTION = Question(
    QuestionId("clips"),
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?",
    reference="72",
)
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    """`calls` requests, at most `in_flight` at a time, each answered after `latency_s`."""

    name: str
    in_flight: int
    latency_s: float
    calls: int
    bar: float

    @property
    def ideal_s(self) -> float:
        return self.calls / self.in_flight * self.latency_s


@dataclass(frozen=True, slots=True)
class Run:
    """`share` of the ideal throughput; CPU milliseconds a call."""

    share: float
    client_cpu_ms: float
    server_cpu_ms: float
    wall_s: float


LOADS = (
    Load("32 in flight, 100 ms", 32, 0.1, 2_400, 0.90),
    Load("1,000 in flight, 2 s", 1_000, 2.0, 4_000, 0.60),
)
Client = Callable[[str, Load], Coroutine[None, None, float]]


def attempt(call: int) -> str:
    """What is graded: the text of a usual attempt, different for every call."""
    return f"In May Natalia sold 48 / 2 = 24 clips. Altogether she sold 48 + 24 = 72 clips. Attempt {call}. " * 4


async def prosetting_client(base_url: str, load: Load) -> float:
    """Wall seconds of all calls through HttpTeacher, each durable in a journal on disk."""
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.db") as journal:
        teacher = HttpTeacher(
            Endpoint(base_url, "sk-loopback-benchmark", "judge"),
            concurrent_workers=load.in_flight,
            timeout_s=TIMEOUT_S,
            max_retries=3,
            retry_delay_s=1.0,
            ledger=JournalLedger(GroupCommit(journal)),
        )

        async def grade(call: int) -> None:
            reply = await teacher.grade(QUESTION, attempt(call))
            assert reply.final_answer == attempt(call)
            assert reply.verdict is Verdict.CORRECT

        started = time.perf_counter()
        await for_each(range(load.calls), grade, limit=load.in_flight)
        seconds = time.perf_counter() - started
        await teacher.close()
        totals = journal.teacher_totals()
        assert (totals.calls, totals.attempts, totals.failed) == (load.calls, load.calls, 0)
    return seconds


async def plain_client(base_url: str, load: Load) -> float:
    """Wall seconds of the same requests through one AsyncOpenAI as it comes, with no journal."""
    client = AsyncOpenAI(base_url=base_url, api_key="sk-loopback-benchmark", timeout=TIMEOUT_S)

    async def grade(call: int) -> None:
        prompt = grade_prompt(QUESTION, attempt(call))
        messages: list[ChatCompletionMessageParam] = [
            {"role": "system", "content": prompt.system},
            {"role": "user", "content": prompt.user},
        ]
        done = await client.chat.completions.create(model="judge", messages=messages, temperature=0.0)
        assert json.loads(done.choices[0].message.content or "")["final_answer"] == attempt(call)

    started = time.perf_counter()
    await for_each(range(load.calls), grade, limit=load.in_flight)
    seconds = time.perf_counter() - started
    await client.close()
    return seconds


@asynccontextmanager
async def server(latency_s: float, cpu_s: list[float]) -> AsyncIterator[str]:
    """The base URL of a new server; what CPU time it used is appended to `cpu_s` at its end."""
    command = [sys.executable, str(SERVER), str(latency_s)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        yield f"http://127.0.0.1:{json.loads(child.stdout.readline())['port']}/v1"
    finally:
        out, _ = child.communicate("")
        cpu_s.append(json.loads(out)["cpu_s"])


async def measure(client: Client, load: Load) -> Run:
    server_cpu_s: list[float] = []
    async with server(load.latency_s, server_cpu_s) as base_url:
        before = cpu_seconds()
        wall_s = await client(base_url, load)
        used_s = cpu_seconds() - before
    per_call = 1e3 / load.calls
    return Run(load.ideal_s / wall_s, used_s * per_call, server_cpu_s[0] * per_call, wall_s)


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def show(load: Load, name: str, runs: list[Run]) -> float:
    """Print a row of the table; the median share of the ideal."""
    shares = [run.share for run in runs]
    share = statistics.median(shares)
    client_ms = statistics.median(run.client_cpu_ms for run in runs)
    server_ms = statistics.median(run.server_cpu_ms for run in runs)
    server_share = statistics.median(run.server_cpu_ms * load.calls / 1e3 / run.wall_s for run in runs)
    print(
        f"{load.name:<22}{name:<26}{share:6.3f} [{min(shares):.3f}, {max(shares):.3f}]"
        f"{client_ms:13.2f} ms{server_ms:13.2f} ms{server_share:14.0%}"
    )
    return share


def main() -> None:
    clients: dict[str, Client] = {"ProSetting, journal on": prosetting_client, "openai alone": plain_client}
    print(f"{'':<48}{'share of ideal':<22}{'client CPU/call':>15}{'server CPU/call':>17}{'of a core':>12}")
    shares: dict[str, float] = {}
    holds = True
    for load in LOADS:
        runs: dict[str, list[Run]] = {name: [] for name in clients}
        for _ in range(REPEATS):
            for name, client in clients.items():
                runs[name].append(asyncio.run(measure(client, load)))
        medians = [show(load, name, runs[name]) for name in clients]
        shares[load.name] = round(medians[0], 3)
        holds = holds and medians[0] >= load.bar
    result = {
        "claim": "teacher calls run near the server's own speed, each committed to the journal",
        "value": shares,
        "unit": "share of the ideal throughput, median",
        "bar": {load.name: load.bar for load in LOADS},
        "holds": holds,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
