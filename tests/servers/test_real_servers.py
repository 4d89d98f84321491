"""Two replicas each of vLLM's CPU build and of `transformers serve` as Solver servers; nothing of ours in their place.

One is killed in mid-round, one ended under load; the same model gives the same pass rate as in our own process. With
-s the figures are printed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from solver_fleets import (
    FLEETS,
    START_TIMEOUT_S,
    VLLM_ARGS,
    VLLM_PYTHON,
    Fleet,
    Solved,
    make_solver,
    members,
    needs_vllm,
)

from prosetting.collectors.local_solver import LocalSolver
from prosetting.collectors.solver import Sample, SampleRequest, SamplingParams, Solver
from prosetting.core.orphans import pids_of_run
from prosetting.evaluation.scores import bootstrap_ci
from prosetting.records import QuestionId

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PARAMS = SamplingParams(max_new_tokens=48, temperature=1.0, top_p=1.0)
QUESTIONS, ATTEMPTS = 128, 8
PATIENCE_S = 120
FLAGS = {
    "solver-engine": "vllm",
    "solver-replicas": "2",
    "solver-server-python": str(VLLM_PYTHON),
    "solver-server-args": VLLM_ARGS,
    "solver-start-timeout": str(START_TIMEOUT_S),
    "physical-solver-gpu": "",
    "physical-grpo-gpu": "",
    "total-rounds": "1",
    "first-training-round": "1",
    "new-questions-per-round": "4",
    "eval-attempts": "2",
    "auto-retry-enabled": "false",
}


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> Solved:
    return make_solver(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module", params=FLEETS)
def fleet(request: pytest.FixtureRequest, solved: Solved, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Its tests follow one another: a server that one of them ended is replaced for the next."""
    made = FLEETS[request.param](solved, tmp_path_factory.mktemp(request.param))
    yield made
    made.close()


def requests_of(solved: Solved, questions: int, attempts: int) -> list[SampleRequest]:
    return [
        SampleRequest(QuestionId(question), attempt, question, 1000 * place + attempt)
        for place, question in enumerate(list(solved.answers)[:questions])
        for attempt in range(attempts)
    ]


def keys(items: Iterable[Sample | SampleRequest]) -> Counter[tuple[str, int]]:
    return Counter((item.question_id, item.attempt) for item in items)


def rates_Q(solver: Solver, solved: Solved) -> list[float]:
    """The share of right attempts of each question: what is in the last box. (transformers serve repeats the prompt of
    this chat template and shows its end token.)"""
    right = defaultdict(list)
    for sample in solver.sample(requests_of(solved, QUESTIONS, ATTEMPTS), PARAMS):
        boxes = re.findall(r"\\boxed\{([^}]*)\}", sample.response)
        right[sample.question_id].append(float(boxes[-1:] == [solved.answers[sample.question_id]]))
    assert sorted(map(len, right.values())) == [ATTEMPTS] * QUESTIONS
    return [sum(right[question]) / ATTEMPTS for question in list(solved.answers)[:QUESTIONS]]


@pytest.fixture(scope="module")
def local_rates_Q(solved: Solved, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    log_file = tmp_path_factory.mktemp("local") / "sampler.log"
    with LocalSolver(str(solved.model), gpu_ids=(), log_file=log_file, batch_size=256) as solver:
        return rates_Q(solver, solved)


def wait_for(what: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


def server_in(group: int) -> int:
    """The process that listens: the first in the group beside its guard."""
    return min(pid for pid in members(group) if pid != group)


def test_the_same_model_has_the_same_pass_rate_through_servers_as_in_our_process(
    solved: Solved, fleet: Fleet, local_rates_Q: list[float]
) -> None:
    served_Q = rates_Q(fleet.solver, solved)
    differences_Q = [served - local for served, local in zip(served_Q, local_rates_Q, strict=True)]
    low, high = bootstrap_ci(differences_Q, seed=1)
    local, served = (sum(rates) / QUESTIONS for rates in (local_rates_Q, served_Q))
    loads = list(fleet.solver.loads.values())
    print(f"\npass@1 local {local:.3f} served {served:.3f}, difference [{low:+.3f}, {high:+.3f}], loads {loads}")
    assert 0.05 < local < 0.95
    # Of equal models one in twenty leaves the 95 % interval, one in a thousand this one.
    assert abs(statistics.fmean(differences_Q)) <= 3.3 * statistics.stdev(differences_Q) / QUESTIONS**0.5


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_a_server_that_is_killed_or_ended_under_load_loses_and_doubles_no_attempt(
    solved: Solved, fleet: Fleet, number: signal.Signals
) -> None:
    list(fleet.solver.sample(requests_of(solved, 2, 1), PARAMS))  # all have started
    wait_for(lambda: fleet.living == 2)
    batch = requests_of(solved, 96, 3)
    before, group = fleet.solver.loads, fleet.groups()[0]
    samples = []
    for sample in fleet.solver.sample(batch, PARAMS):
        samples.append(sample)
        if len(samples) == len(batch) // 3:
            loads = [count - before[url] for url, count in fleet.solver.loads.items()]
            os.kill(server_in(group), number)
            struck = time.monotonic()
    seconds = time.monotonic() - struck
    print(f"\nloads when struck {loads}; {seconds:.1f} s from then to the last attempt; then {fleet.solver.loads}")
    assert keys(samples) == keys(batch)
    assert max(loads) <= 1.1 * sum(loads) / len(loads)
    wait_for(lambda: not members(group))
    fleet.replace_what_died()
    wait_for(lambda: fleet.living == 2)


def test_nothing_is_left_over(fleet: Fleet) -> None:
    groups = fleet.groups()
    assert len(groups) == 2
    assert all(map(members, groups))
    fleet.close()
    wait_for(lambda: not any(map(members, groups)))


# whole rounds, as a user runs them


def command(solved: Solved, workspace: Path) -> list[str]:
    flags = [part for name, value in FLAGS.items() for part in (f"--{name}", value)]
    start = [sys.executable, "-m", "prosetting", "run", "--env-file", str(solved.folder / ".env")]
    return [*start, "--workspace-dir", str(workspace), *flags]


def environment() -> dict[str, str]:
    return os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}


def models_started(workspace: Path, number: int) -> list[str]:
    """The models that a server was started on, one after the other, as it tells in its log."""
    log = (workspace / "logs" / f"vllm_server_{number}.log").read_text(errors="replace")
    return [line.split("'model': '")[1].split("'")[0] for line in log.splitlines() if "non-default args" in line]


def test_new_weights_get_new_servers_and_nothing_is_left_over(solved: Solved, tmp_path: Path) -> None:
    needs_vllm()
    workspace = tmp_path / "run"
    done = subprocess.run(command(solved, workspace), capture_output=True, text=True, timeout=800, env=environment())
    assert done.returncode == 0, done.stderr[-4000:]
    assert pids_of_run(workspace) == set()
    result = json.loads((workspace / "training_results" / "trl_r1_result.json").read_text())
    assert result["trained"]
    for number in range(2):
        assert models_started(workspace, number) == [str(solved.model), result["checkpoint"]]
    (summary,) = json.loads((workspace / "auto_training_summary.json").read_text())["rounds"]
    print("\n", summary["heldout"])
    assert summary["heldout"]["samples"] == 128 * 2


def test_servers_of_a_run_that_was_killed_end_with_it(solved: Solved, tmp_path: Path) -> None:
    needs_vllm()
    workspace = tmp_path / "run"
    with subprocess.Popen(command(solved, workspace), stderr=subprocess.PIPE, text=True, env=environment()) as run:
        assert run.stderr is not None
        said = []
        for line in run.stderr:
            said.append(line)
            if "sampling (" in line:
                break
        else:
            pytest.fail(f"the run never sampled: {said}")
        assert len(pids_of_run(workspace)) >= 6, f"two guards, two servers, two engines; {said}"
        run.kill()
    wait_for(lambda: not pids_of_run(workspace))
