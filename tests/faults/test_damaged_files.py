"""Damaged files are set aside and written again from the journal; a damaged journal is refused and left as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from toy_runs import ROUNDS, baseline, messages, new_folder

from prosetting.errors import EXIT_DONE, EXIT_USAGE
from prosetting.managers.run_content import content_of, differences_in
from prosetting.managers.selfcheck import run_session

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
REBUILT = [
    "training_state.json",
    "training_config.json",
    "auto_training_summary.json",
    "round_00_progress.json",
    "round_02_progress.json",
    "checkpoint_round_1.json",
    "data/round_01_questions.json",
    "data/round_01_trajectories.json",
    "data/round_02_rewards.json",
    "data/round_01_solver_training.json",
    "data/round_01_enhanced_questions.json",
    "data/round_01_generator_training.json",
    "data/round_02_generator_training.json",
    "data/round_02_results.json",
    "datasets/round_01/train.parquet",
    "datasets/round_01/train_by_question.parquet",
    "datasets/round_02/validation.parquet",
    "datasets/round_02/validation_by_question.parquet",
    "datasets/round_02/dataset_info.json",
    "training_results/trl_r2_result.json",
]


def session(workspace: Path) -> int:
    return run_session(baseline().inputs, workspace, {}, rounds=ROUNDS)


@pytest.fixture
def finished() -> Path:
    """A copy of the finished run, at a place of its own."""
    folder = new_folder()
    workspace = folder / "run"
    assert session(workspace) == EXIT_DONE
    return workspace


def test_every_file_comes_back_whole_and_the_damaged_ones_are_kept(finished):
    for name in REBUILT:
        path = finished / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert session(finished) == EXIT_DONE, messages(finished)
    assert list(differences_in(baseline().content, content_of(finished))) == []
    kept = {path.name.rpartition(".")[0] for path in (finished / "quarantine").iterdir()}
    assert kept == {name.replace("/", "__") for name in REBUILT}
    for name in REBUILT:
        assert f"{finished / name} is damaged" in messages(finished)


def test_a_changed_byte_within_a_parquet_file_is_noticed(finished):
    path = finished / "datasets" / "round_01" / "train.parquet"
    content = bytearray(path.read_bytes())
    content[content.index(ZSTD_MAGIC) + 8] ^= 0xFF
    path.write_bytes(bytes(content))
    assert session(finished) == EXIT_DONE, messages(finished)
    assert f"{path} is damaged" in messages(finished)
    assert list(differences_in(baseline().content, content_of(finished))) == []


def test_files_that_are_gone_are_written_again(finished):
    for name in REBUILT:
        (finished / name).unlink()
    shutil.rmtree(finished / "datasets")
    assert session(finished) == EXIT_DONE, messages(finished)
    assert list(differences_in(baseline().content, content_of(finished))) == []


@pytest.mark.parametrize("damage", ["overwritten", "emptied", "removed", "torn", "pages"])
def test_a_damaged_journal_is_refused_and_left_as_it_is(finished, damage):
    journal = finished / "prosetting.db"
    if damage == "removed":
        journal.unlink()
    else:
        whole = journal.read_bytes()
        broken = {
            "overwritten": b"x" * len(whole),
            "emptied": b"",
            "torn": whole[:5000],
            "pages": whole[:8192] + b"x" * (len(whole) - 8192),
        }
        journal.write_bytes(broken[damage])
    before = {path: path.read_bytes() for path in finished.glob("*") if path.suffix in (".db", ".json")}
    assert session(finished) == EXIT_USAGE, messages(finished)
    assert str(journal) in messages(finished)
    assert "restore it from a copy" in messages(finished)
    after = {path: path.read_bytes() for path in finished.glob("*") if path.suffix in (".db", ".json")}
    assert after == before
