"""Sealed folders: what is taken for whole, what goes to quarantine, and in which order checkpoints are looked at."""

from __future__ import annotations

import fcntl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prosetting.config import Settings
from prosetting.errors import DataError, TrainingError
from prosetting.trainers.base import TrainingJob
from prosetting.trainers.checkpoints import (
    LOCK,
    SEAL,
    checkpoints,
    drop_older,
    hold,
    newest_checkpoint,
    open_sealed,
    quarantine,
    seal,
    sealed_or_quarantined,
)
from prosetting.trainers.trl_job import Step, run_of


def a_folder(path: Path, *, run: str = "run", sealed: bool = True, **facts: Any) -> Path:
    (path / "inner").mkdir(parents=True)
    (path / "weights").write_bytes(b"1234")
    (path / "inner" / "state").write_bytes(b"5678")
    if sealed:
        seal(path, run, facts)
    return path


def test_a_sealed_folder_opens_with_the_facts_of_its_seal(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "model", step=7)
    assert open_sealed(folder, "run").facts == {"step": 7}


def break_weights(folder: Path) -> None:
    (folder / "weights").write_bytes(b"1235")


def lose_a_file(folder: Path) -> None:
    (folder / "inner" / "state").unlink()


def add_a_file(folder: Path) -> None:
    (folder / "inner" / "more").touch()


def lose_the_seal(folder: Path) -> None:
    (folder / SEAL).unlink()


def tear_the_seal(folder: Path) -> None:
    (folder / SEAL).write_bytes((folder / SEAL).read_bytes()[:-20])


def empty_the_seal(folder: Path) -> None:
    (folder / SEAL).write_text('{"schema_version": 1}')


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (break_weights, "weights is damaged"),
        (lose_a_file, "inner/state is missing"),
        (add_a_file, "inner/more is not in its seal"),
        (lose_the_seal, "complete.json cannot be read"),
        (tear_the_seal, "complete.json cannot be read"),
        (empty_the_seal, "is no seal"),
    ],
)
def test_a_folder_that_is_not_as_it_was_sealed_is_refused_with_what_is_wrong(
    tmp_path: Path, harm: Any, words: str
) -> None:
    folder = a_folder(tmp_path / "model")
    harm(folder)
    with pytest.raises(DataError, match=words):
        open_sealed(folder, "run")


def test_a_folder_of_another_training_goes_to_quarantine_untouched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = a_folder(tmp_path / "model", run="other")
    assert sealed_or_quarantined(folder, "run", tmp_path / "quarantine") is None
    assert open_sealed(tmp_path / "quarantine" / "model-1", "other")
    assert not folder.exists()
    assert "made by another training" in caplog.text
    assert str(tmp_path / "quarantine" / "model-1") in caplog.text


def test_quarantine_keeps_all_that_bear_one_name(tmp_path: Path) -> None:
    for _ in range(2):
        quarantine(a_folder(tmp_path / "model"), tmp_path / "quarantine", "why")
    assert {path.name for path in (tmp_path / "quarantine").iterdir()} == {"model-1", "model-2"}


def test_the_newest_whole_checkpoint_is_taken_and_newer_half_ones_go_to_quarantine(tmp_path: Path) -> None:
    a_folder(tmp_path / "work" / "checkpoint-9", step=9)
    a_folder(tmp_path / "work" / "checkpoint-10", step=10)
    a_folder(tmp_path / "work" / "checkpoint-11", sealed=False)
    found = newest_checkpoint(tmp_path / "work", "run", tmp_path / "quarantine")
    assert found is not None
    assert found.facts["step"] == 10
    assert [path.name for path in (tmp_path / "quarantine").iterdir()] == ["checkpoint-11-1"]


def test_older_checkpoints_are_dropped_by_step_not_by_name(tmp_path: Path) -> None:
    for step in (8, 9, 10):
        a_folder(tmp_path / f"checkpoint-{step}")
    drop_older(tmp_path, 2)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-10", "checkpoint-9"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_work_folder_that_another_training_holds_is_refused(tmp_path: Path) -> None:
    with (tmp_path / LOCK).open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(TrainingError, match="another training"), hold(tmp_path, wait_s=0):
            pass
    with hold(tmp_path, wait_s=0):
        pass


@pytest.mark.parametrize(
    ("size", "update", "smaller"), [(8, 16, 4), (4, 16, 2), (2, 16, 1), (1, 16, None), (6, 18, 3), (5, 5, 1)]
)
def test_a_smaller_step_still_makes_up_the_update(size: int, update: int, smaller: int | None) -> None:
    assert Step(size, 512).smaller("stock", update) == (smaller and Step(smaller, 512))


def test_a_step_of_one_question_is_computed_in_smaller_parts_down_to_a_least() -> None:
    step, sizes = Step(2, 1024), []
    while step := step.smaller("grouped", 2):  # type: ignore[assignment]
        sizes.append((step.size, step.most_tokens))
    assert sizes == [(1, 1024), (1, 256), (1, 64)]


def a_job(folder: Path) -> tuple[Settings, TrainingJob]:
    (folder / "base").mkdir(parents=True)
    (folder / "base" / "model.safetensors").write_bytes(b"weights")
    for name in ("train", "validation"):
        pq.write_table(pa.table({"prompt": ["a"]}), folder / f"{name}_by_question.parquet")
        pq.write_table(pa.table({"prompt": ["a"]}), folder / f"{name}.parquet")
    job = TrainingJob(
        round=3,
        model_path=str(folder / "base"),
        dataset_dirs=[folder],
        output_dir=folder / "model",
        log_file=folder / "log",
        seed=5,
    )
    return Settings(solver_model_path="unused", dpo_batch_questions=4, trl_gradient_accumulation=4), job


def test_a_run_keeps_its_name_in_a_moved_workspace_and_with_smaller_steps(tmp_path: Path) -> None:
    settings, job = a_job(tmp_path / "here")
    moved_settings, moved_job = a_job(tmp_path / "there")
    smaller = moved_settings.model_copy(update={"dpo_batch_questions": 2, "trl_gradient_accumulation": 8})
    assert run_of(settings, job) == run_of(smaller, moved_job)


def test_other_weights_pairs_seeds_or_settings_are_another_run(tmp_path: Path) -> None:
    settings, job = a_job(tmp_path)
    names = [run_of(settings, job), run_of(settings, replace(job, seed=6))]
    names += [
        run_of(settings.model_copy(update=change), job)
        for change in (
            {"trl_beta": 0.2},
            {"dpo_batch_questions": 8},
            {"trl_num_processes": 1},
            {"dpo_engine": "stock"},
        )
    ]
    pq.write_table(pa.table({"prompt": ["b"]}), tmp_path / "train_by_question.parquet")
    names.append(run_of(settings, job))
    (tmp_path / "base" / "model.safetensors").write_bytes(b"others")
    names.append(run_of(settings, job))
    assert len(set(names)) == len(names)
