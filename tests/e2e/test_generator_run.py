"""A whole run with a Generator: real trl, transformers, teacher. Killed in its turn, it ends as if it had not been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from whole_runs import OVERRIDES, SMALL, clean_env, read

from prosetting.core.journal import Journal
from prosetting.demo.prepare import prepare
from prosetting.demo.recipe import GeneratorRecipe
from prosetting.managers.run_content import content_of, differences_in

pytestmark = pytest.mark.slow
GENERATOR = GeneratorRecipe(layers=2, steps=150, batch=32, examples=3_000)
FLAGS = ("--total-rounds", "3", "--first-training-round", "3", "--new-questions-per-round", "8")


@pytest.fixture(scope="module")
def env_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    recipes = {"recipe": SMALL, "generator_recipe": GENERATOR}
    return prepare(folder, 5, workspace=folder / "unused", generator=True, say=lambda text: None, **recipes)


def command(env_file: Path, workspace: Path) -> list[str]:
    given = [part for key, value in OVERRIDES.items() for part in (f"--{key.lower().replace('_', '-')}", value)]
    words = [sys.executable, "-m", "prosetting", "run", "--env-file", str(env_file), "--workspace-dir", str(workspace)]
    return [*words, *given, *FLAGS]


@pytest.fixture(scope="module")
def finished(env_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("finished") / "run"
    done = subprocess.run(command(env_file, workspace), capture_output=True, text=True, env=clean_env(), check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return workspace


def test_it_learns_in_each_round_and_both_sources_are_told(finished: Path) -> None:
    rounds = read(finished / "auto_training_summary.json")["rounds"]
    assert [r["generator"]["trained"] for r in rounds] == [False, True, True]
    assert all(r["sources"]["generator"]["asked"] > 0 for r in rounds)
    for r in (2, 3):
        assert (finished / "checkpoints" / f"generator_r{r}" / "model.safetensors").exists()


@pytest.mark.parametrize("when", ["generator_training", "generator_drafts", "generator_trials"])
def test_killed_in_its_turn_it_goes_on_to_the_same_end(
    env_file: Path, finished: Path, tmp_path: Path, when: str
) -> None:
    workspace = tmp_path / "run"
    run = subprocess.Popen(command(env_file, workspace), stderr=subprocess.DEVNULL, env=clean_env())
    until = time.monotonic() + 250
    while time.monotonic() < until and not _stands_at(workspace, 2, when):
        time.sleep(0.05)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    again = subprocess.run(command(env_file, workspace), capture_output=True, text=True, env=clean_env(), check=False)
    assert again.returncode == 0, again.stderr[-4000:]
    with Journal(workspace / "prosetting.db", read_only=True) as journal:
        assert any(span.outcome == "killed" and span.name == when for span in journal.spans(2))
    assert list(differences_in(content_of(finished), content_of(workspace))) == []


def _stands_at(workspace: Path, round_: int, stage: str) -> bool:
    if not (workspace / "prosetting.db").exists():
        return False
    try:
        with Journal(workspace / "prosetting.db", read_only=True) as journal:
            return any(span.name == stage and span.outcome == "running" for span in journal.spans(round_))
    except Exception:
        return False  # it is being made
