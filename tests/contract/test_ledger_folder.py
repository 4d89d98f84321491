"""The folder of the easy-to-hard experiment, with real transformers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from prosetting.demo.ledgers.prepare import prepare
from prosetting.demo.ledgers.recipe import EVERY_ARM, LedgerRecipe
from prosetting.errors import TrainingError

TINY = LedgerRecipe(
    layers=1, mlp=64, batch=4, most_steps=2, cool_down_steps=2, gate_stories=8, gate_share=0.0, most_stretches=1
)


def test_the_folder_holds_a_solver_without_position_embeddings_and_settings_for_every_arm(tmp_path: Path) -> None:
    said: list[str] = []
    files = prepare(tmp_path, 7, TINY, said.append)
    assert set(files) == set(EVERY_ARM)
    assert all(file.is_file() for file in files.values())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "solver")
    assert model.config.no_rope_layers == [0]
    before = len(said)
    prepare(tmp_path, 7, TINY, said.append)
    assert said[before:] == [f"seed 7: {tmp_path} is ready, nothing to make"]


def test_a_solver_that_has_not_converged_is_refused_and_made_again_the_next_time(tmp_path: Path) -> None:
    strict = dataclasses.replace(TINY, gate_share=0.97)
    for _ in range(2):
        with pytest.raises(TrainingError, match="did not converge"):
            prepare(tmp_path, 7, strict)
    assert not (tmp_path / "solver").exists()
