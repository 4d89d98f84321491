"""Whether the dashboard and the report stay quick on a long run, and what the dashboard costs the run.

A journal of 1,000,000 attempts (25,000 questions × 8, five rounds, all graded). Every page is asked for again and again
over HTTP, the dashboard in a process of its own: also deep pages of the questions, rare filters, and all of it while a
run commits batch by batch. Bar: 200 ms at the 95th percentile of each page.
The report of that journal, in a process of its own. Bars: 20 s and 500 MB.
Then a run's share of the work: batches of attempts and verdicts are sampled (a sleep, as an engine takes its time) and
committed, with and without a dashboard whose overview is open (server-sent events), in turn. Bar: 1.02 times as long.
`--attempts N` tries it smaller. Takes about 1.5 GB of disk.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import psutil
from journal_scale import PER_QUESTION, conclude, draw, grade, play, questions

from prosetting.config import Settings
from prosetting.core.journal import Journal
from prosetting.core.state_manager import StateManager
from prosetting.core.workspace import Workspace
from prosetting.managers.binding import bind
from prosetting.managers.question_files import QuestionFiles
from prosetting.records import Question, QuestionId

ATTEMPTS, ROUNDS = 1_000_000, 5
PAGE_BAR_S, REPORT_BAR_S, REPORT_BAR_MB, COST_BAR = 0.2, 20.0, 500, 1.02
ASKED = 60
BATCH, BATCHES, PAIRS = 64, 40, 25
BATCH_S = 0.05
"""What drawing a batch takes: 1,280 attempts a second, more than a solver of a billion parameters draws."""
WRITE_ROUND = ROUNDS + 1


def fill(folder: Path, attempts: int) -> tuple[Workspace, list[Question]]:
    """A finished run of five rounds; its next round has a pool and is not played yet."""
    settings = Settings(
        solver_model_path="org/model", workspace_dir=folder, total_rounds=ROUNDS + 1, attempts_per_question=PER_QUESTION
    )
    workspace = Workspace.of(settings)
    workspace.create()
    pool = questions(attempts // PER_QUESTION // ROUNDS)
    with Journal(workspace.journal) as journal:
        bind(journal, settings, QuestionFiles(pool, [], {}))
        for round_ in range(1, ROUNDS + 1):
            with journal.transaction():
                play(journal, pool, round_, graded=True)
                conclude(journal, round_, pool)
        StateManager(workspace, journal, ROUNDS + 1).write_state("stopped")
    return workspace, pool


@contextmanager
def dashboard(workspace: Workspace) -> Iterator[tuple[str, psutil.Process]]:
    """Its address and its process."""
    command = [sys.executable, "-m", "prosetting", "dashboard", "--workspace-dir", str(workspace.root), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        found = re.search(r"http://(\S+)/", process.stderr.readline())
        assert found, process.stderr.read()
        yield found[1], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def pages(pool: list[Question]) -> dict[str, list[str]]:
    ids: list[QuestionId] = sorted(question.question_id for question in pool)
    places = [ids[len(ids) * n // ASKED] for n in range(ASKED)]
    return {
        "overview": ["/"],
        "rounds": ["/rounds"],
        "questions": [f"/questions?round={1 + n % ROUNDS}&after={name}" for n, name in enumerate(places)],
        "questions, filtered": [
            f"/questions?round=2&zone=learning&source=failed_replay&after={name}" for name in places
        ],
        "questions, none found": [
            "/questions?round=2&zone=learning&source=enhanced",
            "/questions?round=2&zone=too_hard",
        ],
        "question": [f"/questions/{name}" for name in places],
        "teachers": ["/teachers"],
        "machine": ["/machine"],
        "log": ["/log"],
    }


def seconds_of(address: str, paths: list[str]) -> list[float]:
    """How long each answer takes, new connection and all of the body included."""
    taken = []
    for n in range(ASKED):
        started = time.perf_counter()
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.request("GET", paths[n % len(paths)])
        answer = connection.getresponse()
        answer.read()
        connection.close()
        taken.append(time.perf_counter() - started)
        assert answer.status == 200, (paths[n % len(paths)], answer.status)
    return taken


def p95(seconds: list[float]) -> float:
    return sorted(seconds)[int(0.95 * (len(seconds) - 1))]


def page_times(address: str, pool: list[Question], heading: str) -> dict[str, float]:
    found = {}
    for name, paths in pages(pool).items():
        taken = seconds_of(address, paths)
        found[name] = p95(taken)
        print(f"{heading} {name:<24} median {statistics.median(taken) * 1e3:6.1f} ms, p95 {found[name] * 1e3:6.1f} ms")
    return found


@contextmanager
def writing(journal_path: Path, pool: list[Question]) -> Iterator[None]:
    """A run that draws and grades, until the end of the block."""
    ended = threading.Event()

    def write() -> None:
        with Journal(journal_path) as journal:
            for start in range(0, len(pool), BATCH // PER_QUESTION):
                if ended.wait(BATCH_S):
                    return
                commit(journal, pool[start : start + BATCH // PER_QUESTION])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def commit(journal: Journal, few: list[Question]) -> None:
    drawn = draw(few, WRITE_ROUND)
    journal.add_trajectories("train", drawn)
    journal.add_grades("train", grade(drawn))


def block_s(journal: Journal, pool: list[Question]) -> float:
    """One block of a run: a batch takes its time and is committed, again and again."""
    started = time.perf_counter()
    for start in range(0, len(pool), BATCH // PER_QUESTION):
        time.sleep(BATCH_S)
        commit(journal, pool[start : start + BATCH // PER_QUESTION])
    return time.perf_counter() - started


@contextmanager
def open_page(address: str) -> Iterator[None]:
    """The overview as a browser keeps it open: its stream is read to the end of the block."""
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("GET", "/live/overview")
    stream = connection.getresponse()
    reader = threading.Thread(target=lambda: [None for _ in iter(lambda: stream.read1(65536), b"")], daemon=True)
    reader.start()
    try:
        yield
    finally:
        assert connection.sock is not None
        connection.sock.close()


def cost_of_watching(address: str, process: psutil.Process, workspace: Workspace) -> tuple[list[float], float]:
    """The ratio of a block with an open page over one without, for each pair of neighbours; and what share of one core
    the dashboard takes while a page is open, which no noise of the machine hides."""
    size = BATCHES * BATCH // PER_QUESTION
    pool = questions(2 * PAIRS * size)
    taken: dict[bool, float] = {}
    ratios, open_s, cpu_s = [], 0.0, 0.0
    with Journal(workspace.journal) as journal:
        for n in range(2 * PAIRS):
            watched = n % 4 in (1, 2)  # each first in every other pair
            before = sum(process.cpu_times()[:2])
            with open_page(address) if watched else nullcontext():
                taken[watched] = block_s(journal, pool[n * size : (n + 1) * size])
            if watched:
                open_s, cpu_s = open_s + taken[True], cpu_s + sum(process.cpu_times()[:2]) - before
            if n % 2:
                ratios.append(taken[True] / taken[False])
    return ratios, cpu_s / open_s


def report_cost(workspace: Workspace) -> tuple[float, float]:
    """Seconds and peak memory (MB) of `prosetting report`."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "prosetting", "report", "--workspace-dir", str(workspace.root)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    taken = time.perf_counter() - started
    assert workspace.report.stat().st_mtime > time.time() - taken - 1, "report.html was not written"
    return taken, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--attempts", type=int, default=ATTEMPTS)
    attempts = parser.parse_args().attempts
    with tempfile.TemporaryDirectory() as temporary:
        workspace, pool = fill(Path(temporary) / "run", attempts)
        report_s, report_mb = report_cost(workspace)
        print(f"report: {report_s:.1f} s, {report_mb:.0f} MB at the peak")
        with dashboard(workspace) as (address, process):
            idle = page_times(address, pool, "idle   ")
            with writing(workspace.journal, pool[len(pool) // 2 :]):
                busy = page_times(address, pool, "written")
            ratios, cpu_share = cost_of_watching(address, process, workspace)
    slowest = max([*idle.values(), *busy.values()])
    cost = statistics.median(ratios)
    low, _, high = statistics.quantiles(ratios, n=4)
    print(f"a run that is watched takes {cost:.4f} times as long, half of the pairs {low:.3f} to {high:.3f};")
    print(f"the dashboard takes {cpu_share:.2%} of one core while a page is open")
    print(
        json.dumps(
            {
                "claim": f"with {attempts:,} attempts pages and report are there soon; watching does not slow a run",
                "value": [round(slowest * 1e3), round(report_s, 1), round(report_mb), round(cost, 3)],
                "unit": "ms, p95 of the slowest page; s and MB of the report; time of a watched run over an unwatched",
                "bar": [PAGE_BAR_S * 1e3, REPORT_BAR_S, REPORT_BAR_MB, COST_BAR],
                "holds": slowest <= PAGE_BAR_S
                and report_s <= REPORT_BAR_S
                and report_mb <= REPORT_BAR_MB
                and cost <= COST_BAR,
                "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
                "p95_ms": {name: round(seconds * 1e3, 1) for name, seconds in idle.items()},
                "p95_ms_while_written": {name: round(seconds * 1e3, 1) for name, seconds in busy.items()},
                "watched_over_unwatched": {"median": round(cost, 4), "quartiles": [round(low, 4), round(high, 4)]},
                "cpu_share_of_a_core_while_watched": round(cpu_share, 5),
            }
        )
    )


if __name__ == "__main__":
    main()
