"""Questions whose attempts were all correct: the supervised rows that are made of them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from prosetting.config import Settings
from prosetting.core.journal import Journal
from prosetting.core.workspace import Workspace
from prosetting.datasets.all_correct import drawn_attempt, drawn_questions, supervised_row
from prosetting.datasets.data_saver import save_pairs
from prosetting.datasets.dpo_data_converter import is_validation
from prosetting.errors import ConfigError
from prosetting.managers.strategies import check_strategies
from prosetting.managers.toy_loop import run_toy, toy_settings, write_toy_inputs
from prosetting.records import QuestionId, QuestionPairs, Stage, Trajectory, Verdict, question_id_of
from prosetting.trainers.losses import check_losses

ATTEMPTS = [Trajectory(2, question_id_of("q"), number, f"text {number}", "stop", 3) for number in range(8)]
IDS = [question_id_of(f"question {number}") for number in range(300)]


def test_the_attempt_is_drawn_by_the_seed_whatever_order_they_come_in() -> None:
    drawn = {drawn_attempt(ATTEMPTS, seed).attempt for seed in range(60)}
    assert drawn == set(range(8))
    assert drawn_attempt(ATTEMPTS[::-1], 5) == drawn_attempt(ATTEMPTS, 5)


def test_as_many_questions_as_are_wished_are_drawn_anew_in_each_round() -> None:
    first = drawn_questions(iter(IDS), 1, run_seed=7, most=40)
    assert len(first) == 40
    assert first == drawn_questions(reversed(IDS), 1, run_seed=7, most=40)
    assert first != drawn_questions(IDS, 2, run_seed=7, most=40)
    assert drawn_questions(IDS, 1, run_seed=7, most=None) == set(IDS)


def test_a_row_is_told_from_a_pair_in_both_files_and_in_the_counts(tmp_path: Path) -> None:
    rows = [supervised_row("p", Trajectory(2, id_, 4, "text", "stop", 3)) for id_ in IDS[:60]]
    pairs = [QuestionPairs("p", id_, 2, ("a", "b"), (0, 1), chosen=(0,), rejected=(1,)) for id_ in IDS[60:]]
    counts = save_pairs(tmp_path, 2, [*rows, *pairs])
    held_back = sum(map(is_validation, IDS[:60]))
    assert (counts.supervised_train, counts.supervised_validation) == (60 - held_back, held_back)
    assert (counts.pairs, counts.supervised_rows, counts.questions) == (240, 60, 300)
    triplets = pq.read_table(tmp_path / "train.parquet").to_pylist()
    assert sum(row["chosen"] == row["rejected"] == "text" for row in triplets) == 60 - held_back
    by_question = pq.read_table(tmp_path / "train_by_question.parquet").to_pylist()
    assert sum((row["chosen"], row["rejected"], row["attempts"]) == ([0], [0], [4]) for row in by_question)
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert info["train_rows"] == len(triplets)
    assert info["supervised"]["train_rows"] == 60 - held_back


@pytest.mark.parametrize("most", [None, 1])
def test_in_a_run_only_questions_solved_by_all_attempts_give_rows(tmp_path: Path, most: int | None) -> None:
    write_toy_inputs(tmp_path)
    changes = {"attempts_per_question": 2, "max_pool_questions": 12, "supervised_rows_per_round": most}
    settings = toy_settings(tmp_path, tmp_path / "run", rounds=2, seed=1).model_copy(update=changes)
    assert run_toy(settings) == 0
    workspace, told = Workspace.of(settings), 0
    with Journal(workspace.journal) as journal:
        for round_ in (1, 2):
            solved = _solved_by_all(journal, round_)
            rows = [
                (QuestionId(row["question_id"]), row["chosen_attempt"])
                for side in ("train", "validation")
                for row in pq.read_table(workspace.dataset_dir(round_) / f"{side}.parquet").to_pylist()
                if row["chosen_attempt"] == row["rejected_attempt"]
            ]
            assert {id_ for id_, _ in rows} <= solved
            assert len(rows) == (len(solved) if most is None else min(most, len(solved)))
            output = _output(journal, round_, Stage.DPO_CONVERSION)
            assert output.get("supervised_rows", 0) == len(rows)
            told += output.get("supervised_train", 0)
        training = _output(journal, 2, Stage.TRL_TRAINING)
    assert told > 0
    assert training["supervised_rows"] == told
    assert f" and {told} supervised rows of rounds 1, 2" in training["reason"]
    assert "supervised" in (workspace.root / "report.html").read_text()


def _solved_by_all(journal: Journal, round_: int) -> set[QuestionId]:
    verdicts: dict[QuestionId, set[Verdict]] = {}
    for trajectory, grade in journal.graded_attempts("train", round_):
        verdicts.setdefault(trajectory.question_id, set()).add(grade.verdict)
    return {id_ for id_, found in verdicts.items() if found == {Verdict.CORRECT}}


def _output(journal: Journal, round_: int, stage: Stage) -> dict[str, Any]:
    record = journal.stage(round_, stage)
    assert record
    return record.output


def settings(**changes: Any) -> Settings:
    losses = {"trl_loss_type": ("sigmoid", "sft"), "trl_loss_weights": (1.0, 5.0)}
    return Settings(**{"solver_model_path": "org/model", "all_correct_questions": "supervised"} | losses | changes)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"trl_loss_type": (), "trl_loss_weights": ()}, "the loss is sigmoid, β 0.1"),
        ({"trl_loss_weights": (1.0, 0.0)}, "the loss is sigmoid . 0 · sft, β 0.1"),
        ({"trl_loss_type": ("apo_down", "sft")}, "apo_down would move"),
    ],
)
def test_losses_that_cannot_train_on_such_rows_are_refused(changes: dict[str, Any], found: str) -> None:
    check_losses(settings())
    with pytest.raises(ConfigError, match=found) as caught:
        check_losses(settings(**changes))
    assert "ALL_CORRECT_QUESTIONS=nothing" in caught.value.next_step


def test_verl_which_takes_no_rows_refuses_them() -> None:
    with pytest.raises(ConfigError, match="verl draws its own attempts"):
        check_strategies(settings(training_framework="VERL_PPO"))
