"""GPUs as the real nvidia-ml-py reads them from a driver, here one of paper (nvml_library.py)."""

from __future__ import annotations

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
