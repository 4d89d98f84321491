"""Exported folders as the Hub's own tools read them, offline: cards by huggingface_hub, data by datasets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, ModelCard

from prosetting.cli.main import main
from prosetting.managers.toy_loop import run_toy, toy_settings, write_toy_inputs


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("private_place")
    write_toy_inputs(folder / "in")
    assert run_toy(toy_settings(folder / "in", folder / "run", rounds=3)) == 0
    return folder / "run"


def export(workspace: Path, *flags: str) -> int:
    return main(["export", "--workspace-dir", str(workspace), *flags])


@pytest.fixture(scope="module")
def exported(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("out") / "toy-solver"
    assert export(workspace, "--to", str(to), "--license", "apache-2.0") == 0
    return to


def test_the_model_card_tells_settings_figures_lineage_and_licence(exported: Path) -> None:
    card = ModelCard.load(exported / "model" / "README.md")
    assert (card.data.license, card.data.library_name, card.data.pipeline_tag) == (
        "apache-2.0",
        "transformers",
        "text-generation",
    )
    assert [result.metric_type for result in card.data.eval_results] == ["pass@1"]
    assert "round 2: trained on" in card.text
    assert "round 3: trained on" in card.text
    assert '"attempts_per_question": 3' in card.text
    metrics = [json.loads(line) for line in (exported / "model" / "prosetting_metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in metrics] == [0, 1, 2, 3]
    assert round(metrics[-1]["heldout"]["pass_at_1"]["value"], 4) == card.data.eval_results[0].metric_value


def test_the_model_is_the_round_s_and_no_more(exported: Path, workspace: Path) -> None:
    source = workspace / "checkpoints" / "merged_solver_r3"
    assert (exported / "model" / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert not (exported / "model" / "complete.json").exists()


def test_every_configuration_of_the_data_loads(exported: Path, workspace: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq
    from datasets import get_dataset_config_names, load_dataset

    folder = str(exported / "dataset")
    card = DatasetCard.load(exported / "dataset" / "README.md")
    assert (card.data.license, card.data.pretty_name) == ("apache-2.0", "toy-solver")
    assert set(get_dataset_config_names(folder)) == {"pairs", "by_question", "questions"}
    pairs = load_dataset(folder, "pairs", cache_dir=str(tmp_path))
    expected = [pq.read_table(file).num_rows for file in sorted((workspace / "datasets").glob("*/train.parquet"))]
    assert pairs["train"].num_rows == sum(expected) > 0
    assert {"prompt", "chosen", "rejected"} <= set(pairs["train"].column_names)
    assert load_dataset(folder, cache_dir=str(tmp_path))["train"].num_rows == sum(expected), "pairs are the default"
    questions = load_dataset(folder, "questions", cache_dir=str(tmp_path))["train"]
    assert {row["round"] for row in questions} == {1, 2, 3}
    parents = {row["parent_id"] for row in questions} - {None}
    assert parents
    assert parents <= {row["question_id"] for row in questions}


def test_nothing_of_this_machine_goes_with_it(exported: Path) -> None:
    for file in exported.rglob("*"):
        if file.is_file():
            assert b"private_place" not in file.read_bytes(), file


def test_an_earlier_round_without_training_has_data_and_no_model(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(workspace, "--to", str(tmp_path / "first"), "--round", "1", "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"round": 1, "dataset": str(tmp_path / "first" / "dataset")}
    assert "no round has trained yet" in captured.err
    assert "The licence is not settled" in (tmp_path / "first" / "dataset" / "README.md").read_text()


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (("--round", "4"), "round 4 of .* is not over"),
        (("--license", "My own!"), "no licence's identifier"),
    ],
)
def test_what_cannot_be_exported_is_one_error_and_leaves_nothing(
    flags: tuple[str, ...], what: str, workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    assert export(workspace, "--to", str(tmp_path / "x"), *flags) == 2
    assert re.search(what, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_left_alone(workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("x")
    assert export(workspace, "--to", str(tmp_path)) == 2
    assert "is there and not empty" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]
