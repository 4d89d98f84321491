"""The losses by one name, and the settings that win over it."""

from __future__ import annotations

from typing import Any

import pytest

from prosetting.config import Settings
from prosetting.errors import ConfigError
from prosetting.trainers.launch import check_training
from prosetting.trainers.losses import LOSSES, PRESETS, Loss, check_losses, loss_of


def settings(**changes: Any) -> Settings:
    return Settings.model_validate({"solver_model_path": "org/model", **changes})


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_what_is_trained_with(name: str) -> None:
    wanted = settings(trl_loss=name)
    check_training(wanted)
    assert loss_of(wanted) == PRESETS[name]
    assert set(PRESETS[name].types) <= set(LOSSES)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Loss(("sigmoid",), (1.0,), 0.1)),
        ({"trl_loss": "dpo+sft", "trl_loss_weights": (1, 5), "trl_beta": 0.5}, Loss(("sigmoid", "sft"), (1, 5), 0.5)),
        ({"trl_loss_type": ("hinge",)}, Loss(("hinge",), (1,), 0.1)),
        ({"trl_loss_type": ("ipo", "sft"), "trl_loss_weights": (1, 2)}, Loss(("ipo", "sft"), (1, 2), 0.1)),
    ],
)
def test_what_is_set_besides_wins(changes: dict[str, Any], expected: Loss) -> None:
    check_losses(settings(**changes))
    assert loss_of(settings(**changes)) == expected


def test_a_loss_in_words() -> None:
    assert Loss(("sigmoid", "sft"), (1.0, 5.0), 0.5).in_words() == "sigmoid + 5 · sft, β 0.5"


def test_weights_of_other_losses_than_the_preset_has_are_refused() -> None:
    with pytest.raises(ConfigError, match="TRL_LOSS=dpo has 1 losses, TRL_LOSS_WEIGHTS 2"):
        check_losses(settings(trl_loss_weights=(1.0, 5.0)))
