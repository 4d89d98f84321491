"""Every number of the experiment in one place. A change here needs another RECIPE_VERSION."""

from __future__ import annotations

from dataclasses import dataclass

RECIPE_VERSION = 1
WARM_START_LEVELS = (1, 2, 3)
TARGET_LEVEL = 5
"""Two levels above the warm start."""


@dataclass(frozen=True, slots=True)
class LedgerRecipe:
    """Sizes of the model, its warm start and the question files. Defaults were tuned on seeds 1 and 2."""

    # Model: SmolLM3 without any position embedding, tied embeddings, fp32
    vocabulary: int = 448
    layers: int = 4
    hidden: int = 64
    heads: int = 2
    mlp: int = 256
    # Warm start: at full rate until the loss is low, then down to nothing, then the gate; again where it does not pass
    batch: int = 32
    matrix_learning_rate: float = 6e-3
    other_learning_rate: float = 3e-3
    low_loss: float = 0.03
    most_steps: int = 2_000
    cool_down_steps: int = 200
    gate_stories: int = 256
    gate_share: float = 0.97
    most_stretches: int = 4
    # Question files: how many by level
    pool: tuple[tuple[int, int], ...] = ((2, 100), (3, 200))
    heldout: tuple[tuple[int, int], ...] = ((1, 8), (2, 8), (3, 16), (4, 24), (5, 48), (6, 24))


# Settings of `prosetting run`, beside the paths and the seed.
RUN_SETTINGS: dict[str, str] = {
    "TOTAL_ROUNDS": "5",
    "FIRST_TRAINING_ROUND": "2",
    "TRAIN_ON": "round",
    "ATTEMPTS_PER_QUESTION": "8",
    "CURRICULUM": "band",
    "CURRICULUM_BAND": "0,0.75",
    "NEW_QUESTIONS_PER_ROUND": "300",
    "REPLAY_FAILED_SHARE": "0.2",
    "REPLAY_OTHER_SHARE": "0.1",
    "ALL_CORRECT_QUESTIONS": "supervised",
    "SUPERVISED_ROWS_PER_ROUND": "110",
    "MAX_PAIRS_PER_QUESTION": "4",
    "REWARD_FUNCTION": "prosetting.demo.ledgers.reward:whole_ledger",
    "EVAL_ATTEMPTS": "4",
    "SOLVER_INSTRUCTION": "",
    "SOLVER_BATCH_SIZE": "512",
    "SOLVER_MAX_NEW_TOKENS": "96",
    "SOLVER_TEMPERATURE": "1.0",
    "TRL_NUM_PROCESSES": "1",
    "TRL_MIXED_PRECISION": "no",
    "TRL_GRADIENT_CHECKPOINTING": "false",
    "TRL_LEARNING_RATE": "5e-4",
    "TRL_LR_SCHEDULER": "linear",
    "TRL_NUM_EPOCHS": "2",
    "DPO_BATCH_QUESTIONS": "5",
    "TRL_GRADIENT_ACCUMULATION": "1",
    "TRL_BETA": "0.5",
    "TRL_LOSS_TYPE": "sigmoid,sft",
    "TRL_LOSS_WEIGHTS": "1,5",
    "TRL_MAX_LENGTH": "256",
}

# What each arm changes in them. Where questions stay easy there are few pairs: such a control gets supervised rows
# instead, so that it trains on as many rows as the loop.
ARMS: dict[str, dict[str, str]] = {
    "main": {},
    "fixed easy pool": {"POOL_POLICY": "fixed", "SUPERVISED_ROWS_PER_ROUND": "300"},
    "no hardening": {"CURRICULUM": "all", "SUPERVISED_ROWS_PER_ROUND": "300"},
    "shuffled labels": {"SHUFFLE_LABELS": "true"},
}

# What else was asked: what a part of the recipe is worth.
WITHOUT: dict[str, dict[str, str]] = {
    "no supervised rows": {"ALL_CORRECT_QUESTIONS": "nothing"},
    "harder at 8 of 8": {"CURRICULUM": "zones"},
}
EVERY_ARM = ARMS | WITHOUT
