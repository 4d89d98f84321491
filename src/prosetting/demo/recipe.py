"""Every number of the demo in one place. A change here needs another RECIPE_VERSION."""

from __future__ import annotations

from dataclasses import dataclass

RECIPE_VERSION = 2


@dataclass(frozen=True, slots=True)
class Pupil:
    """How often the pupil whose solutions the solver first learns from falls for each misconception."""

    takes_away_is_plus: float = 0.5
    carry_forgotten: float = 0.5
    slip: float = 0.02


@dataclass(frozen=True, slots=True)
class Recipe:
    """Sizes of the model, its warm start and the question files. Defaults were tuned on seeds 1, 2, 3."""

    # Model: Qwen3, tied embeddings, fp32
    vocabulary: int = 400
    layers: int = 4
    hidden: int = 64
    heads: int = 2
    head_dim: int = 32
    mlp: int = 256
    # Warm start
    examples: int = 24_320
    steps: int = 380
    batch: int = 64
    matrix_learning_rate: float = 0.015
    other_learning_rate: float = 6e-3
    pupil: Pupil = Pupil()
    # Question files
    seed_questions: int = 120
    heldout_questions: int = 256


@dataclass(frozen=True, slots=True)
class GeneratorRecipe(Recipe):
    """Of the Generator's base model: the Solver's sizes with another warm start. No question files."""

    examples: int = 20_000
    steps: int = 600
    batch: int = 32
    pupil: Pupil = Pupil(takes_away_is_plus=0.3, carry_forgotten=0.3)


# Settings of `prosetting run` for the demo, beside the paths and the seed.
RUN_SETTINGS: dict[str, str] = {
    "TOTAL_ROUNDS": "5",
    "FIRST_TRAINING_ROUND": "3",
    "TRAIN_ON": "untrained",
    "ATTEMPTS_PER_QUESTION": "8",
    "NEW_QUESTIONS_PER_ROUND": "150",
    "REPLAY_OTHER_SHARE": "0.2",
    "MAX_PAIRS_PER_QUESTION": "4",
    "EVAL_ATTEMPTS": "8",
    "SOLVER_INSTRUCTION": "",
    "SOLVER_BATCH_SIZE": "512",
    "SOLVER_MAX_NEW_TOKENS": "48",
    "SOLVER_TEMPERATURE": "1.0",
    "TRL_NUM_PROCESSES": "1",
    "TRL_MIXED_PRECISION": "no",
    "TRL_GRADIENT_CHECKPOINTING": "false",
    "TRL_LEARNING_RATE": "1e-4",
    "TRL_LR_SCHEDULER": "linear",
    "TRL_NUM_EPOCHS": "1",
    "DPO_BATCH_QUESTIONS": "5",
    "TRL_GRADIENT_ACCUMULATION": "1",
    "TRL_BETA": "0.5",
    "TRL_LOSS_TYPE": "sigmoid,sft",
    "TRL_LOSS_WEIGHTS": "1,15",
    "TRL_MAX_LENGTH": "128",
}

# And with a Generator.
GENERATOR_SETTINGS: dict[str, str] = {
    "GENERATOR_SHARE": "0.5",
    "GENERATOR_MAX_NEW_TOKENS": "128",
    "GENERATOR_LEARNING_RATE": "1e-3",
    "GENERATOR_NUM_EPOCHS": "3",
    "GENERATOR_BATCH_SIZE": "16",
    "TRL_MAX_LENGTH": "256",  # it reads a question and an attempt, and writes a question and its solution
}
