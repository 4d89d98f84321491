"""The command line as users have it: commands, flags, exit codes, keys. Change it here only on purpose."""

from __future__ import annotations

import pytest
import typer.main

from prosetting import errors
from prosetting.cli.main import app, main
from prosetting.config import ENV_NAMES

KEYS_TEXT = """
SOLVER_MODEL_PATH GENERATOR_MODEL_PATH QUESTIONS_FILE VALIDATION_DATA_FILE WORKSPACE_DIR LOG_DIR
TRUST_REMOTE_CODE HTTP_USE_ENV_PROXIES
TOTAL_ROUNDS FIRST_TRAINING_ROUND TRAIN_ON SAVE_ROUNDS SEED TRAINING_FRAMEWORK
ATTEMPTS_PER_QUESTION POOL_POLICY REPLAY_FAILED_SHARE REPLAY_OTHER_SHARE MAX_POOL_QUESTIONS NEW_QUESTIONS_PER_ROUND
CURRICULUM CURRICULUM_BAND ENHANCE_TOO_HARD SOLVER_ENGINE SOLVER_BASE_URLS SOLVER_API_KEY SOLVER_MODEL_NAME
PHYSICAL_SOLVER_GPU SOLVER_INSTRUCTION SOLVER_BATCH_SIZE SOLVER_MAX_NEW_TOKENS SOLVER_TEMPERATURE SOLVER_TOP_P
TEACHER_BASE_URL TEACHER_API_KEY TEACHER_MODEL_NAME TEACHER2_BASE_URL TEACHER2_API_KEY TEACHER2_MODEL_NAME
TEACHER_CONCURRENT_WORKERS TEACHER_TIMEOUT TEACHER_MAX_RETRIES TEACHER_RETRY_DELAY EMBEDDED_TEACHER_PORT
TEACHER_MAX_TOKENS_TOTAL TEACHER_MAX_COST TEACHER_PRICE_PROMPT TEACHER_PRICE_COMPLETION
TEACHER2_PRICE_PROMPT TEACHER2_PRICE_COMPLETION EMBEDDED_TEACHER_FAULTS REWARD_FUNCTION REFERENCE_AS_CHOSEN
MAX_PAIRS_PER_QUESTION ALL_CORRECT_QUESTIONS SUPERVISED_ROWS_PER_ROUND SHUFFLE_LABELS
SOLVER_ENGINE SOLVER_TENSOR_PARALLEL SOLVER_REPLICAS SOLVER_SERVER_PYTHON SOLVER_SERVER_ARGS SOLVER_SERVER_PORT
SOLVER_START_TIMEOUT SOLVER_RELOAD_COMMAND GPU_SHARING
PHYSICAL_GRPO_GPU DPO_ENGINE DPO_BATCH_QUESTIONS DPO_MAX_TOKENS_PER_FORWARD
TRL_NUM_PROCESSES TRL_MIXED_PRECISION TRL_LEARNING_RATE TRL_LR_SCHEDULER TRL_NUM_EPOCHS
TRL_BATCH_SIZE TRL_GRADIENT_ACCUMULATION TRL_LOSS TRL_BETA TRL_LOSS_TYPE TRL_LOSS_WEIGHTS TRL_MAX_LENGTH
TRL_SHARDING ACCELERATE_CONFIG_FILE TRL_LORA_RANK TRL_LORA_ALPHA TRL_LORA_TARGETS
TRL_GRADIENT_CHECKPOINTING TRL_STOP_GRACE TRL_REPORT_TO
TRL_LAUNCHER RAY_CLUSTER_ADDRESS RAY_SOLVER_REPLICAS RAY_SOLVER_GPUS RAY_SOLVER_CPUS
RAY_TRAINER_GPUS RAY_TRAINER_CPUS RAY_AUTOSCALING RAY_NODE_TIMEOUT
VERL_PYTHON VERL_ATTEMPTS_PER_QUESTION VERL_BATCH_QUESTIONS VERL_MINI_BATCH_QUESTIONS VERL_MAX_TOKENS_PER_GPU
VERL_MAX_PROMPT_LENGTH VERL_NUM_EPOCHS VERL_LEARNING_RATE VERL_CRITIC_LEARNING_RATE VERL_KL_COEF
VERL_ROLLOUT_ENGINE VERL_TENSOR_PARALLEL VERL_GPU_MEMORY VERL_SAVE_STEPS VERL_OVERRIDES
GENERATOR_SHARE GENERATOR_TRIALS GENERATOR_MAX_NEW_TOKENS GENERATOR_LEARNING_RATE GENERATOR_NUM_EPOCHS
GENERATOR_BATCH_SIZE GENERATOR_LORA_RANK
EVAL_ATTEMPTS EVAL_FILES ROUND_GATE
AUTO_RETRY_ENABLED AUTO_MAX_RETRIES AUTO_RETRY_DELAY AUTO_CONTINUE_ON_FAILURE CHECKPOINT_INTERVAL
"""
KEYS = KEYS_TEXT.split()
SETTING_FLAGS = {"--" + key.lower().replace("_", "-") for key in KEYS}
OWN_FLAGS = {
    "init": {"--env-file", "--overwrite"},
    "run": {"--mode", "--dry-run", "--json", "--env-file"},
    "status": {"--json", "--watch", "--env-file"},
    "ctl": {"request", "--wait", "--json", "--env-file"},
    "dashboard": {"--host", "--port", "--token-file", "--env-file"},
    "report": {"--json", "--env-file"},
    "export": {"--to", "--round", "--license", "--name", "--json", "--env-file"},
    "compare": {"run_a", "run_b", "--round-a", "--round-b", "--json"},
    "fork": {"--from-round", "--to", "--env-file"},
    "lineage": {"question_id", "--json", "--env-file"},
    "replay": {"file", "--port", "--model", "--fault", "--fault-seed"},
    "grade": {"file", "--rules-only", "--out", "--env-file"},
    "eval": {"model", "files", "--attempts", "--recorded", "--rules-only", "--out", "--json", "--env-file"},
    "train-generator": {"--out", "--env-file"},
    "doctor": {"--quick", "--json", "--env-file"},
    "selfcheck": {"--crash", "--quick", "--json", "--workspace-dir", "--seed"},
    "settings": set(),
}
WITHOUT_SETTINGS = {"settings", "compare", "selfcheck", "replay"}


def flags_of(command: typer.main.TyperGroup) -> set[str]:
    context = typer.Context(command)
    return {option for param in command.get_params(context) for option in param.opts} - {"--help"}


def test_the_keys_are_these() -> None:
    assert set(ENV_NAMES) == set(KEYS)


def test_the_commands_and_their_flags_are_these() -> None:
    group = typer.main.get_command(app)
    assert set(group.commands) == set(OWN_FLAGS)
    for name, command in group.commands.items():
        settings = set() if name in WITHOUT_SETTINGS else SETTING_FLAGS
        assert flags_of(command) == OWN_FLAGS[name] | settings, name


def test_every_command_has_an_example_in_its_help() -> None:
    for name, command in typer.main.get_command(app).commands.items():
        assert "Example:" in command.help, name
        assert f"prosetting {name}" in command.help, name


def test_the_help_of_every_command_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    for name in OWN_FLAGS:
        assert main([name, "--help"]) == 0
        captured = capsys.readouterr()
        assert f"Usage: prosetting {name}" in captured.out
        assert "\x1b" not in captured.out
        assert captured.err == ""


def test_the_exit_codes_are_these() -> None:
    codes = {name: value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert codes == {
        "EXIT_DONE": 0,
        "EXIT_FAILED": 1,
        "EXIT_USAGE": 2,
        "EXIT_STOPPED": 3,
        "EXIT_WORKSPACE_IN_USE": 4,
        "EXIT_TEACHER_UNAVAILABLE": 5,
        "EXIT_PAUSED": 6,
        "EXIT_INTERRUPTED": 130,
    }
