"""The losses that a round may train with: presets of TRL's, and what is refused of them. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Loss:
    """The sum of TRL's losses of `types`, each times its weight. β holds the policy to the reference."""

    types: tuple[str, ...]
    weights: tuple[float, ...]
    beta: float

    def in_words(self) -> str:
        """`sigmoid + 5 · sft, β 0.5`."""
        weighted = zip(self.weights, self.types, strict=True)
        terms = (name if weight == 1 else f"{weight:g} · {name}" for weight, name in weighted)
        return f"{' + '.join(terms)}, β {self.beta:g}"


# A sequence's sigmoid loss pulls with β, the sft loss is a mean over tokens: weight / β tells how strong the latter is.
PRESETS: dict[str, Loss] = {
    "dpo": Loss(("sigmoid",), (1.0,), 0.1),
    "dpo+sft": Loss(("sigmoid", "sft"), (1.0, 1.0), 0.1),
    "dpo_norm": Loss(("sigmoid_norm",), (1.0,), 5.0),
    "ipo": Loss(("ipo",), (1.0,), 0.1),
    "apo": Loss(("apo_zero",), (1.0,), 0.1),
    "sft": Loss(("sft",), (1.0,), 0.1),
}
"""By TRL_LOSS. When to use which, and where the numbers come from: docs/strategies.md."""


def loss_of(settings: Settings) -> Loss:
    """What TRL_LOSS or TRL_LOSS_TYPE names, with the weights and the β that are set besides."""
    preset = PRESETS[settings.trl_loss]
    types = settings.trl_loss_type or preset.types
    alone = (1.0,) if settings.trl_loss_type else preset.weights
    return Loss(types, settings.trl_loss_weights or alone, settings.trl_beta or preset.beta)


def check_losses(settings: Settings) -> None:
    """Raises ConfigError for a loss that TRL does not know, and for supervised rows that it cannot train on."""
    loss = loss_of(settings)
    if len(loss.types) != len(loss.weights):
        raise ConfigError(
            f"TRL_LOSS={settings.trl_loss} has {len(loss.types)} losses, TRL_LOSS_WEIGHTS {len(loss.weights)}",
            next_step="leave TRL_LOSS_WEIGHTS out, or name the losses with TRL_LOSS_TYPE",
        )
    for name in loss.types:
        if name not in LOSSES:
            raise ConfigError(
                f"TRL_LOSS_TYPE names the loss {name!r}, which is not known",
                next_step=f"choose from {', '.join(LOSSES)}",
            )
    if settings.makes_supervised_rows:
        _check_supervised(loss, f"ALL_CORRECT_QUESTIONS={settings.all_correct_questions}")


def _check_supervised(loss: Loss, rows: str) -> None:
    if dict(zip(loss.types, loss.weights, strict=True)).get("sft", 0.0) <= 0:
        raise ConfigError(
            f"{rows} makes rows that only an sft loss trains on, and the loss is {loss.in_words()}",
            next_step="set TRL_LOSS=dpo+sft, or ALL_CORRECT_QUESTIONS=nothing",
        )
    if moving := [name for name in loss.types if name not in STILL_ON_EQUAL_SIDES]:
        others = [name for name in LOSSES if name in STILL_ON_EQUAL_SIDES and name != "sft"]
        raise ConfigError(
            f"{rows} makes rows that only the sft loss may move, and {', '.join(moving)} would move them too",
            next_step=f"beside sft choose from {', '.join(others)}, or set ALL_CORRECT_QUESTIONS=nothing",
        )
