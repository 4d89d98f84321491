"""Workers that are forks of a process with their libraries loaded are, from outside, what `python -m` starts."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import parent_of, runs, until
from tiny_model import build_tiny_model
from training_jobs import a_job, settings, sums, write_dataset

from prosetting.collectors.local_solver import WORKER, LocalSolver
from prosetting.collectors.solver import Sample, SampleRequest, SamplingParams
from prosetting.core import children
from prosetting.core.fork_server import fork_server
from prosetting.core.forked import SERVER
from prosetting.errors import TrainingError
from prosetting.managers.forks import fork_server_of, modules_of
from prosetting.records import QuestionId
from prosetting.trainers.launch import DPO_WORKER, LAUNCHER, QUIET_ENV
from prosetting.trainers.trl_trainer import TrlTrainer

# What it is asked to do, it says first that it can; `loaded` is what the server has imported before.
PROBE = """
import os, signal, subprocess, sys, time
if __name__ == "__main__":
    kind, *words = sys.argv[1:]
    if kind == "save":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    print(os.getpid(), os.getppid(), "loaded" in sys.modules, flush=True)
    if kind == "tell":
        print(words, os.environ.get("PROBE"), os.getcwd(), input(), flush=True)
        sys.exit(int(words[0]))
    if kind == "fail":
        raise ValueError("no good")
    if kind == "family":
        print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
    time.sleep(600)
"""
PATIENCE_S = 60.0


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    (tmp_path / "loaded.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))


@pytest.fixture
def server(probe: None) -> Iterator[None]:
    with fork_server(["loaded"], {}):
        yield


def started(tmp_path: Path, *words: str, **env: str) -> tuple[subprocess.Popen[str], int, bool]:
    """The child, the process that does its work, and whether that found what the server has loaded."""
    child = children.start_child(["probe", *words], log_file=tmp_path / "log", extra_env=env, pipes=True, forked=True)
    assert child.stdout is not None
    pid, _, loaded = child.stdout.readline().split()
    return child, int(pid), loaded == "True"


def test_a_fork_has_the_words_environment_folder_and_streams_of_who_asked(
    server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    child, pid, loaded = started(tmp_path, "tell", "3", "a b", PROBE="here")
    assert loaded
    assert pid != child.pid
    out, _ = child.communicate("said")
    assert out == f"['3', 'a b'] here {tmp_path / 'elsewhere'} said\n"
    assert child.returncode == 3


def test_a_fork_that_fails_says_why_in_its_own_log(server: None, tmp_path: Path) -> None:
    child, _, _ = started(tmp_path, "fail")
    assert child.wait(PATIENCE_S) == 1
    assert "ValueError: no good" in (tmp_path / "log").read_text()


def test_a_module_that_is_not_there_fails_as_without_a_server(probe: None, tmp_path: Path) -> None:
    with fork_server(["not_there", "loaded"], {}):
        missing = children.start_child(["not_there"], log_file=tmp_path / "log", forked=True)
        assert missing.wait(PATIENCE_S) == 1
        assert "No module named" in (tmp_path / "log").read_text()
        child, _, loaded = started(tmp_path, "tell", "0")
        assert loaded
        children.end_child(child)


def test_a_fork_that_is_told_to_end_may_end_in_its_own_way(server: None, tmp_path: Path) -> None:
    child, pid, _ = started(tmp_path, "save")
    child.terminate()
    assert child.wait(PATIENCE_S) == 7
    assert not runs(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_a_fork_that_dies_by_a_signal_is_told_of_as_such(server: None, tmp_path: Path, number: signal.Signals) -> None:
    child, pid, _ = started(tmp_path, "wait")
    os.kill(pid, number)
    assert child.wait(PATIENCE_S) == -number


def test_a_fork_whose_asker_is_killed_is_gone_with_all_that_it_started(server: None, tmp_path: Path) -> None:
    child, pid, _ = started(tmp_path, "family")
    assert child.stdout is not None
    family = int(child.stdout.readline())
    child.kill()
    until(lambda: not runs(pid) and not runs(family))
    child.wait()


def test_ending_a_child_ends_its_fork(server: None, tmp_path: Path) -> None:
    child, pid, _ = started(tmp_path, "wait")
    children.end_child(child)
    assert child.returncode == -signal.SIGTERM
    assert not runs(pid)


def test_when_the_server_is_lost_its_forks_are_too_and_the_next_child_starts_without(
    server: None, tmp_path: Path
) -> None:
    child, pid, _ = started(tmp_path, "wait")
    os.kill(parent_of(pid), signal.SIGKILL)
    until(lambda: not runs(pid))
    assert child.wait(PATIENCE_S) == 1
    assert "the fork server is gone" in (tmp_path / "log").read_text()
    plain, pid, loaded = started(tmp_path, "wait")
    assert not loaded
    assert pid == plain.pid  # it has become what was asked for
    children.end_child(plain)


def test_a_killed_run_leaves_neither_server_nor_fork_nor_folder(probe: None, tmp_path: Path) -> None:
    program = (
        "import os, sys, time; from pathlib import Path; from prosetting.core import children;"
        "from prosetting.core.fork_server import fork_server\n"
        "with fork_server(['loaded'], {}):\n"
        "    child = children.start_child(['probe', 'wait'], log_file=Path(sys.argv[1]), pipes=True, forked=True)\n"
        f"    print(*child.stdout.readline().split()[:2], os.environ[{SERVER!r}], flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "log")], stdout=-1, text=True) as run:
        assert run.stdout is not None
        fork, server, socket = run.stdout.readline().split()
        assert runs(int(fork))
        run.kill()
        until(lambda: not runs(int(fork)) and not runs(int(server)) and not Path(socket).parent.exists())


def test_without_modules_there_is_no_server(tmp_path: Path) -> None:
    with fork_server([], {}):
        assert SERVER not in os.environ


def drawn(solver: LocalSolver) -> list[Sample]:
    requests = [SampleRequest(QuestionId(f"q{n}"), 0, f"What is {n} + 1?", seed=n) for n in range(5)]
    with solver:
        found = list(solver.sample(requests, SamplingParams(max_new_tokens=8, temperature=1.0, top_p=1.0)))
    return sorted(found, key=lambda sample: sample.question_id)


def weights(job_folder: Path, model: Path, trainer: TrlTrainer) -> str:
    job_folder.mkdir()
    data = write_dataset(job_folder / "round_3", sums(range(40)), sums(range(40, 43)))
    result = trainer.train(a_job(job_folder, model, dataset_dirs=[data]))
    return hashlib.sha256((result.model_dir / "model.safetensors").read_bytes()).hexdigest()


def test_forked_workers_draw_the_same_attempts_and_train_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    model = build_tiny_model(tmp_path)

    def made(name: str) -> tuple[list[Sample], list[str]]:
        solver = LocalSolver(str(model), gpu_ids=(), log_file=tmp_path / f"{name}.log")
        trainer = TrlTrainer(settings())
        return drawn(solver), [weights(tmp_path / f"{name}{n}", model, trainer) for n in (1, 2)]

    attempts, (trained, _) = made("plain")
    with fork_server([WORKER, LAUNCHER, DPO_WORKER], QUIET_ENV):
        assert made("forked") == (attempts, [trained, trained])
    assert (tmp_path / "forked.log").read_text() == (tmp_path / "plain.log").read_text()


def forks_of(server: int) -> list[int]:
    """In the order in which they were started."""
    children_file = Path(f"/proc/{server}/task/{server}/children")
    return sorted(int(pid) for pid in children_file.read_text().split() if runs(int(pid)))


def test_a_forked_training_that_is_killed_leaves_nothing_behind_and_the_same_job_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    model = build_tiny_model(tmp_path)
    data = write_dataset(tmp_path / "round_3", sums(range(200)), sums(range(200, 203)))
    job = a_job(tmp_path, model, dataset_dirs=[data])
    many_steps = settings(dpo_batch_questions=1, trl_gradient_accumulation=1)
    lost: list[int] = []

    def lose_it(step: int, total: int, loss: float | None) -> None:
        if not lost:
            _, worker = forks_of(server)
            lost.append(worker)
            os.kill(worker, signal.SIGKILL)

    with fork_server([LAUNCHER, DPO_WORKER], QUIET_ENV):
        (server,) = [
            int(entry.name)
            for entry in Path("/proc").glob("[0-9]*")
            if parent_of(int(entry.name)) == os.getpid() and b"worker_fork_server" in (entry / "cmdline").read_bytes()
        ]
        with pytest.raises(TrainingError, match="failed") as failed:
            TrlTrainer(many_steps, on_progress=lose_it, stop_grace_s=1).train(job)
        assert "killed" in (failed.value.next_step or "")
        until(lambda: not forks_of(server))
        assert TrlTrainer(many_steps).train(job).steps == 200
        until(lambda: not forks_of(server))


def test_a_forked_training_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = write_dataset(tmp_path / "round_3", sums(range(40)), sums(range(40, 43)))
    job = a_job(tmp_path, build_tiny_model(tmp_path), dataset_dirs=[data])
    with fork_server([LAUNCHER, DPO_WORKER], QUIET_ENV), pytest.raises(TrainingError, match="TRL_MAX_LENGTH"):
        TrlTrainer(settings(trl_max_length=8)).train(job)


def test_a_run_loads_ahead_what_it_samples_and_trains_with_here_on_the_cpu(tmp_path: Path) -> None:
    def modules(**changes: Any) -> list[str]:
        here = {"solver_model_path": str(tmp_path), "physical_solver_gpu": (), "physical_grpo_gpu": ()}
        return modules_of(settings(**here | changes))

    assert modules() == [WORKER, LAUNCHER, DPO_WORKER]
    assert modules(first_training_round=9, total_rounds=5) == [WORKER]
    assert modules(solver_base_urls=("http://localhost:8000/v1",)) == [LAUNCHER, DPO_WORKER]
    assert modules(physical_solver_gpu=(0,), physical_grpo_gpu=(0,)) == []
    assert modules(solver_model_path="org/model") == []


def test_a_workspace_in_which_nothing_was_written_is_not_made(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "one"
    with fork_server_of(settings(workspace_dir=folder, physical_solver_gpu=(0,), physical_grpo_gpu=(0,))):
        pass
    assert not folder.parent.exists()
