"""The strategies that a run is made of, a dict a family, and what is refused before anything is spent.

Each family is one dict of small functions in the file of its layer; a setting names the entry (docs/strategies.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prosetting.config import Settings, env_name
from prosetting.datasets.all_correct import ALL_CORRECT
from prosetting.errors import ConfigError
from prosetting.managers.pool_policy import POOL_POLICIES
from prosetting.managers.training_rounds import TRAIN_ON
from prosetting.processors.curriculum import CURRICULA
from prosetting.trainers.losses import PRESETS

FAMILIES: dict[str, Mapping[str, Any]] = {
    "train_on": TRAIN_ON,
    "pool_policy": POOL_POLICIES,
    "curriculum": CURRICULA,
    "all_correct_questions": ALL_CORRECT,
    "trl_loss": PRESETS,
}
"""By the setting that names an entry."""


def check_strategies(settings: Settings) -> None:
    """Raises ConfigError for a name that no family has, and for strategies that do not go together."""
    for setting, family in FAMILIES.items():
        if (name := getattr(settings, setting)) not in family:
            raise ConfigError(
                f"{env_name(setting)}={name!r} is not known", next_step=f"choose from {', '.join(family)}"
            )
    if settings.makes_supervised_rows and settings.trains_with_verl:
        raise ConfigError(
            f"ALL_CORRECT_QUESTIONS={settings.all_correct_questions} but TRAINING_FRAMEWORK="
            f"{settings.training_framework}: verl draws its own attempts and takes no rows of others",
            next_step="set ALL_CORRECT_QUESTIONS=nothing, or TRAINING_FRAMEWORK=TRL_DPO",
        )
