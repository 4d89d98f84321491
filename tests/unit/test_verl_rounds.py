"""Rounds in the verl flow, with a scripted Solver and Trainer: what stage 3 writes, what is trained on, and what is
left of it after a fork or a lost file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from prosetting.config import Settings
from prosetting.core.journal import Journal
from prosetting.core.workspace import Workspace
from prosetting.datasets.data_saver import VERL_SCHEMA
from prosetting.managers.fork import fork_workspace
from prosetting.managers.run import start_run
from prosetting.managers.toy_loop import ScriptedSolver, ScriptedTrainer, toy_settings, write_toy_inputs
from prosetting.settings_sources import LoadedSettings
from prosetting.trainers.base import TrainingJob, TrainingResult

ROUNDS = 3


class ScriptedVerl(ScriptedTrainer):
    """Notes what it is given, and trains as the scripted trainer does."""

    jobs: list[TrainingJob]

    def __init__(self, jobs: list[TrainingJob]) -> None:
        self.jobs = jobs

    def train(self, job: TrainingJob) -> TrainingResult:
        self.jobs.append(job)
        assert all(file.is_file() for file in job.training_files)
        return super().train(job)


def run(settings: Settings) -> list[TrainingJob]:
    """The jobs of a run that is done afterwards."""
    jobs: list[TrainingJob] = []
    status = start_run(
        settings,
        (),
        "auto",
        open_solver=lambda settings, workspace, model: ScriptedSolver(model),
        open_trainer=lambda settings: ScriptedVerl(jobs),
    )
    assert status == 0
    return jobs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "inputs"
    write_toy_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def finished(inputs: Path) -> tuple[Workspace, Settings, list[TrainingJob]]:
    settings = verl(inputs, inputs.parent / "run")
    jobs = run(settings)
    return Workspace.of(settings), settings, jobs


def verl(inputs: Path, root: Path, **changes: Any) -> Settings:
    settings = toy_settings(inputs, root, rounds=ROUNDS)
    return settings.model_copy(update={"training_framework": "VERL_GRPO", "all_correct_questions": "nothing"} | changes)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_stage_3_writes_questions_for_verl_instead_of_pairs(finished: tuple[Workspace, Settings, Any]) -> None:
    workspace, settings, _ = finished
    for round_ in range(1, ROUNDS + 1):
        (file,) = (workspace.root / "training_data").glob(f"solver_r{round_}_*.parquet")
        assert file.stem.count("_") == 3  # solver_rN_YYYYMMDD_HHMMSS
        rows = pq.read_table(file).to_pylist()
        assert pq.read_schema(file) == VERL_SCHEMA
        assert rows == read(file.with_suffix(".json"))
        pool = {row["question_id"]: row for row in read(workspace.round_data(round_, "questions"))["rows"]}
        assert {row["extra_info"]["question_id"] for row in rows} <= pool.keys()
        for row in rows:
            question = pool[row["extra_info"]["question_id"]]
            assert row["prompt"] == [{"role": "user", "content": question["text"]}]
            assert row["reward_model"]["ground_truth"] == (question["reference"] or "")
        assert not workspace.dataset_dir(round_).exists()
        assert read(workspace.root / f"round_0{round_}_progress.json")["stages"]["dpo_conversion"] == {
            "pairs": 0,
            "train": len(rows),
            "validation": 0,
            "questions": len(rows),
            "training_data": file.stem,
        }
    assert settings.trains_with_verl


def test_a_round_is_trained_on_the_files_that_were_not_yet(finished: tuple[Workspace, Settings, Any]) -> None:
    workspace, _, jobs = finished
    assert [[file.name.split("_")[1] for file in job.training_files] for job in jobs] == [["r1", "r2"], ["r3"]]
    assert {job.log_file.name for job in jobs} == {"verl_trainer.log"}
    assert all(not job.dataset_dirs for job in jobs)
    assert jobs[1].model_path == str(workspace.model_dir(2))
    rows = sum(pq.read_metadata(file).num_rows for file in jobs[0].training_files)
    assert read(workspace.training_result(2))["reason"] == f"trained on {rows} questions of rounds 1, 2"
    assert read(workspace.training_result(1))["reason"] == "gathering data: training starts in round 2"


def test_files_that_are_lost_or_damaged_are_written_again_under_their_names(inputs: Path, tmp_path: Path) -> None:
    settings = verl(inputs, tmp_path / "run")
    run(settings.model_copy(update={"total_rounds": 1}))
    (file,) = (tmp_path / "run" / "training_data").glob("solver_r1_*.parquet")
    before = {path: path.read_bytes() for path in (file, file.with_suffix(".json"))}
    file.write_bytes(b"no parquet")
    file.with_suffix(".json").unlink()
    run(settings.model_copy(update={"total_rounds": 2}))
    assert {path: path.read_bytes() for path in before} == before
    assert len(list((tmp_path / "run" / "training_data").glob("solver_r1_*"))) == 2


def test_a_fork_has_the_files_of_its_rounds(finished: tuple[Workspace, Settings, Any], tmp_path: Path) -> None:
    workspace, settings, _ = finished
    fork(workspace, tmp_path / "fork", 2)
    kept = {file.name for file in (tmp_path / "fork" / "training_data").iterdir()}
    assert kept == {file.name for file in (workspace.root / "training_data").iterdir() if "_r3_" not in file.name}
    jobs = run(settings.model_copy(update={"workspace_dir": tmp_path / "fork"}))
    assert [[file.parent.parent for file in job.training_files] for job in jobs] == [[tmp_path / "fork"]]


def test_a_fork_may_go_on_with_verl_and_leaves_the_pairs_of_before_aside(inputs: Path, tmp_path: Path) -> None:
    trl = toy_settings(inputs, tmp_path / "trl", rounds=1)
    run(trl)
    fork(Workspace.of(trl), tmp_path / "fork", 1, training_framework="VERL_PPO", all_correct_questions="nothing")
    (job,) = run(verl(inputs, tmp_path / "fork", training_framework="VERL_PPO", total_rounds=2))
    assert [file.name.split("_")[1] for file in job.training_files] == ["r2"]


def fork(workspace: Workspace, target: Path, round_: int, **changed: Any) -> None:
    with Journal(workspace.journal, read_only=True) as journal:
        fork_workspace(
            workspace,
            journal,
            target,
            round_=round_,
            loaded=LoadedSettings(Settings.model_validate({"total_rounds": ROUNDS, **changed}), frozenset(changed)),
            total_rounds=ROUNDS,
            say=lambda text: None,
        )
