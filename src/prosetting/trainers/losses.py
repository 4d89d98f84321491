"""The losses of TRL that a round may train with, and what is refused of them. No torch here."""

from __future__ import annotations

from prosetting.config import Settings
from prosetting.errors import ConfigError

# TRL's names less `exo_pair`, which needs a label smoothing that is no setting here.
LOSSES = (
    "sigmoid",
    "sigmoid_norm",
    "hinge",
    "ipo",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
)
OF_A_BATCH = {"aot", "aot_unpaired"}
"""Losses that compare the pairs of a batch: they mean something only in stock TRL's batches of pairs."""
STILL_ON_EQUAL_SIDES = {"sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "apo_zero", "discopop", "sft"}
"""Losses through which a supervised row (chosen = rejected) has no gradient but that of `sft`. Others look at one side
alone: apo_down would make the row's correct attempt less likely."""


def check_losses(settings: Settings) -> None:
    """Raises ConfigError for a loss that TRL does not know, and for supervised rows that it cannot train on."""
    for name in settings.trl_loss_type:
        if name not in LOSSES:
            raise ConfigError(
                f"TRL_LOSS_TYPE names the loss {name!r}, which is not known",
                next_step=f"choose from {', '.join(LOSSES)}",
            )
    if settings.makes_supervised_rows:
        _check_supervised(settings)


def _check_supervised(settings: Settings) -> None:
    rows = f"ALL_CORRECT_QUESTIONS={settings.all_correct_questions}"
    weight = dict(zip(settings.trl_loss_type, settings.trl_loss_weights, strict=True)).get("sft", 0.0)
    if weight <= 0:
        raise ConfigError(
            f"{rows} makes rows that only an sft loss trains on, and TRL_LOSS_TYPE={','.join(settings.trl_loss_type)}"
            f" with TRL_LOSS_WEIGHTS={','.join(map(str, settings.trl_loss_weights))} has none",
            next_step="set TRL_LOSS_TYPE=sigmoid,sft with TRL_LOSS_WEIGHTS=1,5, or ALL_CORRECT_QUESTIONS=nothing",
        )
    if moving := [name for name in settings.trl_loss_type if name not in STILL_ON_EQUAL_SIDES]:
        others = [name for name in LOSSES if name in STILL_ON_EQUAL_SIDES and name != "sft"]
        raise ConfigError(
            f"{rows} makes rows that only the sft loss may move, and {', '.join(moving)} of TRL_LOSS_TYPE would move"
            " them too",
            next_step=f"beside sft choose from {', '.join(others)}, or set ALL_CORRECT_QUESTIONS=nothing",
        )
