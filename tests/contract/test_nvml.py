"""GPUs as the real nvidia-ml-py reads them from a driver, here one of paper (nvml_library.py)."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from nvml_library import PaperDriver, card, holder

READ = """
import dataclasses, json
from prosetting.core.machine import this_machine
machine = this_machine()
print(json.dumps([machine.gpu_ids, machine.gpu_problem, [dataclasses.asdict(gpu) for gpu in machine.gpus]]))
"""


# A toy run whose solver holds 30 GiB of GPU 0 while it is open, and so much once it is closed as the last word says.
TURNS = """
import os, sys
from pathlib import Path
from prosetting.core import gpu_manager
from prosetting.managers import toy_loop
from prosetting.managers.run import start_run
state, folder, left_gib = Path(os.environ["NVML_STATE"]), Path(sys.argv[1]), float(sys.argv[2])
gpu_manager.PATIENCE_S = 0.3
def holds(gib):
    new = state.with_suffix(".new")
    new.write_text(f"gpu {80 * 2**30} {int(gib * 2**30)} 0\\n")
    new.replace(state)
    events.append(gib)
class Solver(toy_loop.ScriptedSolver):
    def __init__(self, model): super().__init__(model); holds(30)
    def close(self): holds(left_gib)
class Trainer(toy_loop.ScriptedTrainer):
    def train(self, job): events.append("trains"); return super().train(job)
events = []
toy_loop.write_toy_inputs(folder)
settings = toy_loop.toy_settings(folder, folder / "run", rounds=2)
settings = settings.model_copy(update={"physical_solver_gpu": (0,), "physical_grpo_gpu": (0,), "trl_num_processes": 1})
try:
    start_run(settings, (), "auto", open_solver=lambda s, w, model: Solver(model), open_trainer=lambda s: Trainer())
finally:
    print(events)
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> PaperDriver:
    return PaperDriver(tmp_path_factory.mktemp("driver"))


def read(driver: PaperDriver, **environ: str) -> list:
    command = [sys.executable, "-c", READ]
    env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"} | driver.env | environ
    return json.loads(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)


def run(driver: PaperDriver, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    (folder / "empty.env").touch()
    (folder / "model").mkdir(exist_ok=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / "model" / name).write_text("{}")
    (folder / "questions.json").write_text(json.dumps([{"question": "What is 1+1?", "answer": "2"}]))
    command = [sys.executable, "-m", "prosetting", "run", "--env-file", "empty.env", "--workspace-dir", "run"]
    command += ["--questions-file", "questions.json", "--solver-model-path", "model", *flags]
    env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"} | driver.env
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)


def test_memory_use_and_processes_are_read(driver: PaperDriver) -> None:
    driver.says(card(80, 3, 55), card(40), holder(0, 4242, 2.5), holder(0, 4243, 0.25))
    ids, problem, gpus = read(driver)
    assert (ids, problem) == ([0, 1], "")
    assert [(gpu["total_bytes"] >> 30, gpu["used_bytes"] >> 30, gpu["utilisation"]) for gpu in gpus] == [
        (80, 3, 55),
        (40, 0, 0),
    ]
    assert gpus[0]["name"] == "Paper GPU"
    assert gpus[0]["processes"] == [
        {"pid": 4242, "memory_bytes": 5 * 2**29},
        {"pid": 4243, "memory_bytes": 2**28},
    ]
    assert gpus[1]["processes"] == []


def test_gpus_that_a_cluster_withholds_are_not_there(driver: PaperDriver) -> None:
    driver.says(card(), card(), card())
    assert read(driver, CUDA_VISIBLE_DEVICES="GPU-0000-2,1")[0] == [1, 2]
    driver.says(card(), card(), card(), "hidden 1")
    assert read(driver)[0] == [0, 2]


def test_without_a_loaded_driver_there_is_no_gpu(driver: PaperDriver) -> None:
    assert read(driver, NVML_STATE="/nowhere") == [[], "", []]


def test_a_driver_that_does_not_answer_is_told_as_such(driver: PaperDriver) -> None:
    driver.says("broken 18")
    assert read(driver)[1].startswith("the NVIDIA driver does not answer: ")


def test_a_run_on_a_gpu_that_another_process_holds_stops_before_it_begins(driver: PaperDriver, tmp_path: Path) -> None:
    driver.says(card(80, 0), card(80, 61), holder(1, os.getpid(), 60.5))
    done = run(driver, tmp_path, "--physical-solver-gpu", "1", "--physical-grpo-gpu", "0")
    assert done.returncode == 1
    assert f"GPU 1 of PHYSICAL_SOLVER_GPU is taken: 61.0 of 80.0 GiB are held by process {os.getpid()} (" in done.stderr
    assert "or set PHYSICAL_SOLVER_GPU to free GPUs (0)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "prosetting.db").exists()


def test_a_run_on_a_gpu_that_is_not_there_stops_before_it_begins(driver: PaperDriver, tmp_path: Path) -> None:
    driver.says(card(), card())
    done = run(driver, tmp_path, "--physical-solver-gpu", "4")
    assert done.returncode == 2
    assert "PHYSICAL_SOLVER_GPU=4 but this machine has GPUs 0,1" in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_doctor_shows_each_gpu_and_warns_of_one_in_use(driver: PaperDriver, tmp_path: Path) -> None:
    driver.says(card(80, 1, 3), card(80, 50, 99), holder(1, 4242, 49))
    command = [sys.executable, "-m", "prosetting", "doctor", "--quick"]
    env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"} | driver.env
    told = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60).stdout
    assert "GPU 0: Paper GPU, 1.0 of 80.0 GiB in use, computing 3 % of the time" in told
    assert "GPU 1: Paper GPU, 50.0 of 80.0 GiB in use, computing 99 % of the time" in told
    assert "processes on it: 4242" in told


def took_turns(driver: PaperDriver, folder: Path, left_gib: float) -> subprocess.CompletedProcess[str]:
    driver.says(card(80, 0))
    command = [sys.executable, "-c", TURNS, str(folder), str(left_gib)]
    env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"} | driver.env
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def test_sampling_and_training_take_turns_on_a_gpu_that_they_share(driver: PaperDriver, tmp_path: Path) -> None:
    done = took_turns(driver, tmp_path, 0.5)
    assert done.returncode == 0, done.stderr
    events = ast.literal_eval(done.stdout.splitlines()[-1])
    assert events[events.index("trains") - 1] == 0.5, "the solver was closed right before"
    assert 30 in events[: events.index("trains")]


def test_no_training_starts_while_sampling_still_holds_the_gpu(driver: PaperDriver, tmp_path: Path) -> None:
    done = took_turns(driver, tmp_path, 12)
    assert done.returncode != 0
    assert "sampling has ended and 12.0 of 80.0 GiB of GPU 0 are still held" in done.stderr
    assert "trains" not in done.stdout
