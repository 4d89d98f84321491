"""verl's environment missing, of another version or without a GPU: one clear error each, before anything is spent."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_model import build_tiny_model

from prosetting.config import Settings
from prosetting.errors import ConfigError
from prosetting.trainers.verl_environment import NEEDED, check_packages, check_verl, packages

GOOD = dict.fromkeys(NEEDED, "1.0") | {
    "verl": "0.9.1",
    "trl": None,
    "transformers": "5.10.4",
    "vllm": "0.24.0",
    "flash-attn": "2.8.3",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("verl") / "solver")


@pytest.fixture
def settings(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    monkeypatch.delenv("VERL_PLATFORM", raising=False)

    def make(**changes: Any) -> Settings:
        values = {
            "solver_model_path": str(model),
            "workspace_dir": tmp_path / "workspace",
            "training_framework": "VERL_PPO",
            "verl_python": sys.executable,
            "physical_grpo_gpu": (0, 1),
        }
        return Settings(**values | changes)

    return make


def an_interpreter(folder: Path, **versions: str) -> Path:
    """A Python in whose environment these packages are installed, as far as their metadata tell."""
    for name, version in versions.items():
        info = folder / "site" / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{folder / "site"}" exec "{sys.executable}" "$@"\n')
    program.chmod(0o755)
    return program


def test_no_interpreter_is_named(settings: Callable[..., Settings]) -> None:
    with pytest.raises(ConfigError, match="VERL_PYTHON is not set") as refused:
        check_verl(settings(verl_python=None))
    assert "make verl-env" in refused.value.next_step


def test_there_is_no_such_program(settings: Callable[..., Settings], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such program"):
        check_verl(settings(verl_python=tmp_path / "bin" / "python"))


@pytest.mark.parametrize("program", ["/bin/true", "/bin/cat", "/bin/ls"])
def test_the_program_is_no_python(settings: Callable[..., Settings], program: str) -> None:
    with pytest.raises(ConfigError, match=f"VERL_PYTHON={program} does not run as a Python interpreter"):
        check_verl(settings(verl_python=program))


def test_verl_is_not_installed_there(settings: Callable[..., Settings]) -> None:
    with pytest.raises(ConfigError, match="verl is not installed there") as refused:
        check_verl(settings())
    assert "make verl-env" in refused.value.next_step


def test_another_version_of_verl_is_installed_there(settings: Callable[..., Settings], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"verl 0\.8\.0 is installed there, and 0\.9\.1"):
        check_verl(settings(verl_python=an_interpreter(tmp_path, verl="0.8.0")))


@pytest.mark.parametrize(
    ("versions", "what", "next_step"),
    [
        ({"cachetools": None, "ray": None}, "lacks ray, cachetools", "make verl-env"),
        ({"flash-attn": None}, "flash-attn is not installed there", "VERL_GRPO, which has no critic"),
        ({"vllm": None}, "VERL_ROLLOUT_ENGINE=vllm is not installed", r"pip install 'verl\[vllm\]==0.9.1'"),
        ({"transformers": "5.23.0"}, "transformers 5.23.0", "make verl-env"),
        ({"trl": "1.16.0"}, "trl 1.16.0 is installed there, with which verl cannot", "pip uninstall trl"),
    ],
)
def test_packages_that_do_not_go_with_verl(
    settings: Callable[..., Settings], versions: dict[str, str | None], what: str, next_step: str
) -> None:
    check_packages(settings(), Path("python"), GOOD)
    with pytest.raises(ConfigError, match=what) as refused:
        check_packages(settings(), Path("python"), GOOD | versions)
    assert re.search(next_step, refused.value.next_step)


def test_an_engine_of_a_plug_in_is_no_package_to_look_for(settings: Callable[..., Settings]) -> None:
    plugged_in = settings(training_framework="VERL_GRPO", verl_rollout_engine="of_a_plug_in")
    assert packages(plugged_in) == ("verl", "trl", *NEEDED)


def test_no_gpu_to_train_on(settings: Callable[..., Settings]) -> None:
    with pytest.raises(ConfigError, match="VERL_PPO trains on GPUs, and there is none") as refused:
        check_verl(settings(physical_grpo_gpu=()))
    assert "TRL_DPO" in refused.value.next_step


def test_a_tensor_parallel_size_that_does_not_divide_the_gpus(settings: Callable[..., Settings]) -> None:
    with pytest.raises(ConfigError, match="VERL_TENSOR_PARALLEL=3 does not divide the 2 GPUs"):
        check_verl(settings(verl_tensor_parallel=3))


def test_batches_that_the_gpus_cannot_share(settings: Callable[..., Settings]) -> None:
    with pytest.raises(ConfigError, match="VERL_BATCH_QUESTIONS=1"):
        check_verl(settings(verl_batch_questions=1, physical_grpo_gpu=(0, 1)))


def test_a_model_without_a_chat_template(settings: Callable[..., Settings], tmp_path: Path) -> None:
    plain = build_tiny_model(tmp_path / "plain", chat=False)
    with pytest.raises(ConfigError, match="has no chat template"):
        check_verl(settings(solver_model_path=str(plain)))


def test_the_command_line_says_it_and_writes_nothing(model: Path, tmp_path: Path) -> None:
    questions = tmp_path / "questions.json"
    questions.write_text('[{"question": "What is 2 + 3?", "answer": "5"}]')
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("VERL_", "TRAINING_"))}
    flags = [
        "--solver-model-path",
        str(model),
        "--questions-file",
        str(questions),
        "--workspace-dir",
        str(tmp_path / "w"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "prosetting", "run", *flags, "--training-framework", "VERL_GRPO"],
        capture_output=True,
        text=True,
        check=False,
        env=clean,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stderr.count("VERL_PYTHON is not set") == 1
    assert "make verl-env" in done.stderr
    assert not (tmp_path / "w").exists()


def test_doctor_says_it_too(model: Path, tmp_path: Path) -> None:
    flags = ["--solver-model-path", str(model), "--training-framework", "VERL_PPO", "--verl-python", sys.executable]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("VERL_", "TRAINING_"))}
    done = subprocess.run(
        [sys.executable, "-m", "prosetting", "doctor", "--quick", "--json", *flags],
        capture_output=True,
        text=True,
        check=False,
        env=clean,
        cwd=tmp_path,
    )
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["Training settings"]["found"].startswith("PPO by verl, 1 process, 1 attempt a question")
    assert "(not asked)" in checks["Training settings"]["found"]
