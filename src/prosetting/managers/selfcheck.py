"""The crash certificate: a toy run is killed at every named point, resumed, and compared with one left in peace.

Each run is a process of its own, forked from this one so that nothing needs to be loaded again, and each kill is a
real SIGKILL on the disk that is asked about. What must be equal in the end is `run_content`'s; the teacher's own
count tells what was bought twice. The run's first training is turned down by the round gate, so that the next begins
with the weights before, and its last weights are scored on EVAL_FILES.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa

from prosetting.config import Settings
from prosetting.core import crash_points
from prosetting.core.children import log_tail
from prosetting.errors import ProSettingError
from prosetting.managers.run_content import content_of, differences_in
from prosetting.managers.toy_loop import WORKERS, CollapsingOnce, run_toy, toy_settings, write_toy_inputs

SESSION_DEADLINE_S = 120.0
ANSWERED = "teacher:answered"
GENERATOR_SHARE = 0.5
CHAIN = 6
"""Kills of one run in the quick version."""
_POLL_S = 0.003


@dataclass(frozen=True, slots=True)
class Case:
    """One run in several sessions: `orders` say what befalls each of them before the last, which is left in peace.

    An order is a point to kill it at (`name#n`), a fault (`name#n:ENOSPC`), or a time in seconds to kill it after.
    """

    orders: tuple[str | float, ...]

    @property
    def name(self) -> str:
        return ", then ".join(f"after {order:.3f} s" if isinstance(order, float) else order for order in self.orders)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a case: the points at which it was really killed, and how it differs from the run in peace."""

    case: Case
    killed_at: tuple[str, ...]
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One line of the certificate: `outcome` is survived, not reached, or what was lost."""

    name: str
    outcome: str

    @property
    def survived(self) -> bool:
        return self.outcome == "survived"


@dataclass(frozen=True, slots=True)
class Baseline:
    """The run left in peace: its content, the points in the order it reached them, how long it took."""

    inputs: Path
    rounds: int
    content: Mapping[str, Any]
    points: tuple[str, ...]
    seconds: float


def uninterrupted(folder: Path, *, rounds: int) -> Baseline:
    """Make the toy's inputs in `folder` and run it once. Raises ProSettingError when that does not end well."""
    inputs = folder / "inputs"
    write_toy_inputs(inputs)
    pa.Table.from_pylist([{"loads": "what pyarrow loads on first use, once for all"}])
    workspace = folder / "uninterrupted"
    log = folder / "uninterrupted.points"
    started = time.monotonic()
    status = run_session(inputs, workspace, {crash_points.CRASH_LOG: str(log)}, rounds=rounds)
    seconds = time.monotonic() - started
    if status:
        log_file = folder / "uninterrupted.log"
        raise ProSettingError(
            f"the toy run itself ended with {status}:\n{log_tail(log_file)}", next_step=f"see {log_file}"
        )
    points = tuple(name for name, _ in _reached(log))
    return Baseline(inputs, rounds, content_of(workspace), points, seconds)


def certify(baseline: Baseline, folder: Path, *, quick: bool, seed: int, jobs: int) -> Iterator[Outcome]:
    """The outcome of each point as it comes, `jobs` runs at a time.

    Quick: each point at its first occurrence, several in one run, so that each but the first falls into a resume.
    Full: each at its first, middle and last occurrence, each with a drawn second kill while the run resumes; where that
    occurrence does not come again, at an earlier one.
    """
    alone = []
    if not quick:
        for result in run_cases(baseline, full_cases(baseline, seed), folder / "full", jobs):
            if result.killed_at or result.differences:
                yield _outcome(result, result.case.name)
            else:
                alone.append(_earlier(result.case))
        for result in run_cases(baseline, alone, folder / "earlier", jobs):
            yield _outcome(result, result.case.name)
        return
    for result in run_cases(baseline, chains(baseline, seed), folder / "chains", jobs):
        for order in result.case.orders:
            if result.differences or order not in result.killed_at:
                alone.append(Case((order,)))
            else:
                yield Outcome(str(order), "survived")
    for result in run_cases(baseline, alone, folder / "alone", jobs):
        yield _outcome(result, result.case.name)


def _earlier(case: Case) -> Case:
    """At half of the occurrences: how many commits a run makes depends on when answers come, so the last may not come
    again."""
    name, _, nth = str(case.orders[0]).rpartition("#")
    return Case((f"{name}#{(int(nth) + 1) // 2}", *case.orders[1:]))


def _outcome(result: Result, name: str) -> Outcome:
    if result.differences:
        return Outcome(name, "lost: " + "; ".join(result.differences[:3]))
    return Outcome(name, "survived" if result.killed_at else "not reached")


def chains(baseline: Baseline, seed: int) -> list[Case]:
    """Every point once, dealt by the seed into runs of about CHAIN kills each, in the order in which they come."""
    points = [f"{name}#1" for name in dict.fromkeys(baseline.points)]
    count = -(-len(points) // CHAIN)
    hands = [sorted(random.Random(seed).sample(range(len(points)), len(points))[n::count]) for n in range(count)]
    return [Case(tuple(points[index] for index in hand)) for hand in hands]


def full_cases(baseline: Baseline, seed: int) -> list[Case]:
    """Each point at its first, middle and last occurrence, each with a second, drawn kill while it resumes."""
    rng = random.Random(seed)
    names = sorted(set(baseline.points))
    return [
        Case((f"{name}#{nth}", f"{rng.choice(names)}#1"))
        for name, count in Counter(baseline.points).items()
        for nth in sorted({1, (count + 1) // 2, count})
    ]


def timed_cases(baseline: Baseline, count: int, seed: int) -> list[Case]:
    """Kills at any time of a run, the second one while it resumes."""
    rng = random.Random(seed)
    return [Case((rng.uniform(0, baseline.seconds), rng.uniform(0, baseline.seconds))) for _ in range(count)]


def run_cases(baseline: Baseline, cases: Sequence[Case], folder: Path, jobs: int) -> Iterator[Result]:
    """The results as they come. What a case that survived has left is removed."""
    # Ctrl+C reaches the workers too, and ends them on the spot.
    pool = ProcessPoolExecutor(
        jobs, mp_context=get_context("fork"), initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_DFL)
    )
    try:
        numbered = enumerate(cases)
        futures = [pool.submit(run_case, baseline, case, folder / f"case-{number:04d}") for number, case in numbered]
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def run_case(baseline: Baseline, case: Case, folder: Path) -> Result:
    """Run with each order in turn, then in peace, and compare."""
    workspace, log = folder / "run", folder / "points"
    folder.mkdir(parents=True)
    for order in case.orders:
        environ, kill_after_s = _environ_of(order)
        environ |= {crash_points.CRASH_LOG: str(log)}
        run_session(baseline.inputs, workspace, environ, rounds=baseline.rounds, kill_after_s=kill_after_s)
    status = run_session(baseline.inputs, workspace, {crash_points.CRASH_LOG: str(log)}, rounds=baseline.rounds)
    if status:
        differences = [f"it ended with {status} when resumed, see {workspace}.log"]
    else:
        differences = list(differences_in(baseline.content, content_of(workspace)))
        differences += _bought_twice(log, len(case.orders))
    killed_at = [detail for name, detail in _reached(log) if name == crash_points.KILLED]
    if not differences:
        shutil.rmtree(folder)
    return Result(case, tuple(killed_at), tuple(differences))


def _environ_of(order: str | float) -> tuple[dict[str, str], float | None]:
    if isinstance(order, float):
        return {}, order
    fault = order.rpartition(":")[2].isupper() and "#" in order
    return {crash_points.FAIL_AT if fault else crash_points.CRASH_AT: order}, None


def run_session(
    inputs: Path,
    workspace: Path,
    environ: Mapping[str, str],
    *,
    rounds: int,
    kill_after_s: float | None = None,
    before: Callable[[], None] | None = None,
) -> int:
    """One process's share of a toy run; its exit code, negative for the signal that ended it.

    Its messages go to `WORKSPACE.log`. `before` is called in it first.
    """
    pid = os.fork()
    if pid == 0:
        _be_the_run(_settings(inputs, workspace, rounds), environ, before)
    return _wait(pid, kill_after_s)


def _settings(inputs: Path, workspace: Path, rounds: int) -> Settings:
    """Two trainings: the first is rolled back (`CollapsingOnce`), the second stays."""
    plain = toy_settings(inputs, workspace, rounds=rounds, generator_share=GENERATOR_SHARE)
    changes = {"first_training_round": rounds - 1, "round_gate": "rollback"}
    return plain.model_copy(update=changes | {"eval_files": (str(inputs / "reported.json"),)})


def _be_the_run(settings: Settings, environ: Mapping[str, str], before: Callable[[], None] | None) -> NoReturn:
    code, workspace = 1, settings.workspace_dir
    try:
        log = os.open(workspace.with_name(f"{workspace.name}.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        for stream in (1, 2):
            os.dup2(log, stream)
        sys.stdout, sys.stderr = (open(stream, "w", closefd=False) for stream in (1, 2))  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update(environ)
        crash_points.arm()
        if before is not None:
            before()
        code = run_toy(settings, lambda given: CollapsingOnce(given.first_training_round))
    except ProSettingError as error:
        code = error.exit_code
        print(f"error: {error}", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(pid: int, kill_after_s: float | None) -> int:
    deadline = time.monotonic() + (SESSION_DEADLINE_S if kill_after_s is None else kill_after_s)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(_POLL_S)


def _bought_twice(log: Path, sessions: int) -> list[str]:
    """Each session that was killed may buy its calls in flight again, and nothing else."""
    answers = Counter(detail for name, detail in _reached(log) if name == ANSWERED)
    again = sum(count - 1 for count in answers.values())
    too_often = [request for request, count in answers.items() if count > 1 + sessions]
    if again > WORKERS * sessions or too_often:
        return [f"the teacher answered {again} requests again, at most {WORKERS * sessions} were in flight"]
    return []


def _reached(log: Path) -> list[tuple[str, str]]:
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [(name, detail) for name, _, detail in (line.partition("\t") for line in lines)]
