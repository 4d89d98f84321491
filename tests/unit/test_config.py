"""Settings: where a value comes from, and what is said of one that cannot hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from prosetting.config import ENV_NAMES, reference_markdown
from prosetting.core.machine import Machine, fit_to_machine
from prosetting.errors import EXIT_USAGE, ConfigError
from prosetting.settings_sources import LoadedSettings, load_settings, settings_of

ROOT = Path(__file__).resolve().parents[2]
CPU_ONLY = Machine(gpu_ids=(), cpu_count=2)
TWO_GPUS = Machine(gpu_ids=(0, 1), cpu_count=16)
MODEL = {"SOLVER_MODEL_PATH": "org/model"}


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    path = tmp_path / "settings.env"
    path.write_text("SOLVER_MODEL_PATH=org/from-file\nTOTAL_ROUNDS=7\nSEED=7\nATTEMPTS_PER_QUESTION=7\n")
    return path


@pytest.fixture(autouse=True)
def _no_env_file_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(environ: dict[str, str] | None = None, **flags: str) -> LoadedSettings:
    return load_settings(flags=flags, environ=MODEL | (environ or {}), env_file=None)


def error_of(environ: dict[str, str]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(environ)
    return caught.value


def test_flags_win_over_the_environment_over_the_file_over_defaults(env_file: Path) -> None:
    loaded = load_settings(
        flags={"TOTAL_ROUNDS": "9"}, environ={"TOTAL_ROUNDS": "8", "SEED": "8"}, env_file=env_file
    ).settings
    assert (loaded.total_rounds, loaded.seed, loaded.attempts_per_question) == (9, 8, 7)
    assert loaded.solver_batch_size == 64


def test_the_env_file_of_the_current_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TOTAL_ROUNDS=6\n")
    assert load().settings.total_rounds == 6


def test_an_env_file_that_is_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no settings file"):
        load_settings(flags={}, environ={}, env_file=tmp_path / "none.env")


def test_explicit_settings_are_told_apart_from_defaults() -> None:
    assert load({"TOTAL_ROUNDS": "5"}).explicit == {"solver_model_path", "total_rounds"}


def test_lists_and_empty_values_read_as_typed() -> None:
    settings = load({"PHYSICAL_GRPO_GPU": "0, 1", "TRL_REPORT_TO": "", "VALIDATION_DATA_FILE": ""}).settings
    assert settings.physical_grpo_gpu == (0, 1)
    assert settings.trl_report_to == ()
    assert settings.validation_data_file is None


@pytest.mark.parametrize(
    ("key", "near"),
    [("TEACHER_BASE_ULR", "TEACHER_BASE_URL"), ("SOLVER_PATH", "SOLVER_MODEL_PATH"), ("TRL_EPOCHS", "TRL_NUM_EPOCHS")],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(key: str, near: str) -> None:
    error = error_of({key: "1"})
    assert key in error.what
    assert near in error.next_step
    assert error.exit_code == EXIT_USAGE


def test_keys_of_other_programs_are_left_alone() -> None:
    assert load({"PATH": "/bin", "MAX_JOBS": "3", "TRL_EXPERIMENTAL_SILENCE": "1"}).settings.total_rounds == 5


@pytest.mark.parametrize(
    ("key", "value", "accepted"),
    [
        ("TRL_NUM_PROCESSES", "0", "greater than or equal to 1"),
        ("TRL_NUM_PROCESSES", "many", "valid integer"),
        ("TRAINING_FRAMEWORK", "JAX", "TRL_DPO"),
        ("SOLVER_TOP_P", "1.5", "less than or equal to 1"),
        ("AUTO_RETRY_ENABLED", "perhaps", "valid boolean"),
        ("PHYSICAL_GRPO_GPU", "0,x", "valid integer"),
    ],
)
def test_a_bad_value_is_named_with_its_source_and_what_is_accepted(key: str, value: str, accepted: str) -> None:
    error = error_of({key: value})
    assert f"{key}='{value}' (from the environment)" in error.what
    assert accepted in error.what
    assert f"for example {key}=" in error.next_step


def test_two_settings_that_say_who_samples_are_both_named() -> None:
    error = error_of({"SOLVER_ENGINE": "vllm", "SOLVER_BASE_URLS": "http://host:8000/v1"})
    assert "SOLVER_ENGINE='vllm' (from the environment), SOLVER_BASE_URLS='http://host:8000/v1'" in error.what
    assert "SOLVER_BASE_URLS empty" in error.next_step


def test_losses_that_are_named_twice_are_refused() -> None:
    error = error_of({"TRL_LOSS": "ipo", "TRL_LOSS_TYPE": "sigmoid"})
    assert "each name the losses: TRL_LOSS='ipo' (from the environment), TRL_LOSS_TYPE='sigmoid'" in error.what
    assert "TRL_LOSS=ipo with TRL_LOSS_TYPE empty" in error.next_step


@pytest.mark.parametrize("value", ["0.9,0.5", "0.5", "0.1,0.2,0.3", "0,75"])
def test_a_band_is_two_shares_the_first_below_the_second(value: str) -> None:
    error = error_of({"CURRICULUM_BAND": value})
    assert f"the first below the second: CURRICULUM_BAND='{value}' (from the environment)" in error.what
    assert "CURRICULUM_BAND=0,0.75" in error.next_step


def test_a_setting_is_known_by_its_other_name_too(tmp_path: Path) -> None:
    assert load({"PHYSICAL_DPO_GPU": "2,3"}).settings.physical_grpo_gpu == (2, 3)
    assert load({"PHYSICAL_DPO_GPU": "2"}).explicit == {"solver_model_path", "physical_grpo_gpu"}
    assert load({"PHYSICAL_DPO_GPU": "2"}, PHYSICAL_GRPO_GPU="1").settings.physical_grpo_gpu == (1,)
    error = error_of({"PHYSICAL_DPO_GPU": "2", "PHYSICAL_GRPO_GPU": "3"})
    assert "PHYSICAL_DPO_GPU='2' and PHYSICAL_GRPO_GPU='3'" in error.what


def test_losses_and_weights_that_do_not_match_are_both_named() -> None:
    error = error_of({"TRL_LOSS_TYPE": "sigmoid,sft", "TRL_LOSS_WEIGHTS": "1"})
    assert "TRL_LOSS_TYPE='sigmoid,sft' (from the environment)" in error.what
    assert "TRL_LOSS_WEIGHTS='1'" in error.what
    assert "TRL_LOSS_WEIGHTS=1,5" in error.next_step


@pytest.mark.parametrize("environ", [{}, {"SOLVER_MODEL_PATH": ""}])
def test_a_model_that_is_not_set_is_asked_for_by_name_unless_none_is_needed(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="SOLVER_MODEL_PATH is not set") as caught:
        load_settings(flags={}, environ=environ, env_file=None)
    assert "--solver-model-path" in caught.value.next_step
    assert load_settings(flags={}, environ=environ, env_file=None, need_model=False).settings.solver_model_path == ""


def test_secrets_are_in_no_error_and_in_no_stored_value() -> None:
    error = error_of({"TEACHER_API_KEY": "sk-secret", "TRL_NUM_PROCESSES": "0"})
    assert "sk-secret" not in str(error)
    settings = load({"TEACHER_API_KEY": "sk-secret"}).settings
    assert "sk-secret" not in str(settings.public_values()) + repr(settings) + str(settings.fixed_values())


def test_defaults_clamp_to_a_machine_without_gpu_with_a_notice_each() -> None:
    settings, notices = fit_to_machine(load(), CPU_ONLY)
    assert (settings.physical_solver_gpu, settings.physical_grpo_gpu) == ((), ())
    assert (settings.trl_num_processes, settings.trl_mixed_precision) == (1, "no")
    assert [notice.split(":")[0] for notice in notices] == [
        "PHYSICAL_SOLVER_GPU",
        "PHYSICAL_GRPO_GPU",
        "TRL_NUM_PROCESSES",
        "TRL_MIXED_PRECISION",
    ]


def test_defaults_clamp_to_the_gpus_there_are() -> None:
    settings, _ = fit_to_machine(load(), TWO_GPUS)
    assert (settings.physical_solver_gpu, settings.physical_grpo_gpu) == ((0,), (0, 1))
    assert (settings.trl_num_processes, settings.trl_mixed_precision) == (2, "bf16")


def test_nothing_is_said_where_everything_fits() -> None:
    eight = Machine(gpu_ids=tuple(range(8)), cpu_count=64)
    loaded = load()
    assert fit_to_machine(loaded, eight) == (loaded.settings, [])


@pytest.mark.parametrize(
    ("key", "value"), [("PHYSICAL_SOLVER_GPU", "4"), ("PHYSICAL_GRPO_GPU", "0,7"), ("TRL_NUM_PROCESSES", "8")]
)
def test_an_explicit_value_that_the_machine_cannot_hold_is_an_error(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}={value}") as caught:
        fit_to_machine(load({key: value}), TWO_GPUS)
    assert key in caught.value.next_step


def test_explicit_processes_may_share_the_cpu() -> None:
    settings, _ = fit_to_machine(load({"TRL_NUM_PROCESSES": "2", "PHYSICAL_GRPO_GPU": ""}), CPU_ONLY)
    assert settings.trl_num_processes == 2


def test_the_example_file_is_valid_and_holds_the_keys_a_user_must_set() -> None:
    loaded = load_settings(flags={}, environ={}, env_file=ROOT / ".env.example", need_model=False)
    must = {"solver_model_path", "questions_file", "workspace_dir", "teacher_base_url", "auto_retry_enabled"}
    assert must <= loaded.explicit
    assert fit_to_machine(loaded, CPU_ONLY)[0].trl_num_processes == 1


def test_commented_keys_of_the_example_file_are_valid_too() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    keys = [line.removeprefix("# ").partition("=")[0] for line in lines if "=" in line]
    assert set(keys) - set(ENV_NAMES) == set()
    assert "TRL_NUM_PROCESSES" in keys


def test_the_reference_page_is_the_one_generated() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == reference_markdown(), "write it anew: python -m prosetting.config > docs/settings.md"
    assert all(f"| `{name}` |" in page for name in ENV_NAMES)


# a settings file with keys that others can read


def warnings_of(file: Path, text: str, mode: int) -> tuple[str, ...]:
    file.write_text(text)
    file.chmod(mode)
    return load_settings(flags={}, environ=MODEL, env_file=file).warnings


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_keys_that_others_can_read_are_warned_of_with_the_way_to_hide_them(tmp_path: Path, mode: int) -> None:
    (warning,) = warnings_of(tmp_path / "my keys.env", "TEACHER_API_KEY=sk-secret-1\nOTHER_API_KEY=sk-secret-2", mode)
    assert "OTHER_API_KEY, TEACHER_API_KEY" in warning
    assert f"chmod 600 '{tmp_path}/my keys.env'" in warning
    assert "sk-secret" not in warning


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("TEACHER_API_KEY=sk-secret-1", 0o600),
        ("TEACHER_API_KEY=sk-secret-1", 0o622),
        ("TEACHER_API_KEY=\nTOTAL_ROUNDS=3", 0o644),
        ("# TEACHER_API_KEY=sk-secret-1", 0o644),
    ],
    ids=["hidden", "only writable", "empty", "commented"],
)
def test_nothing_is_warned_of_where_no_key_can_be_read(tmp_path: Path, text: str, mode: int) -> None:
    assert warnings_of(tmp_path / "some.env", text, mode) == ()


def test_the_env_file_of_the_current_folder_is_warned_of_by_its_name(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SOLVER_API_KEY=sk-secret-1")
    (tmp_path / ".env").chmod(0o644)
    (warning,) = load().warnings
    assert warning.startswith(".env holds SOLVER_API_KEY ")
    assert warning.endswith("chmod 600 .env")


def test_nothing_is_warned_of_on_systems_without_such_permissions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prosetting.settings_sources.os.name", "nt")
    assert warnings_of(tmp_path / "some.env", "TEACHER_API_KEY=sk-secret-1", 0o644) == ()


def test_a_share_for_the_generator_without_a_generator_is_refused():
    with pytest.raises(ConfigError, match="GENERATOR_SHARE needs GENERATOR_MODEL_PATH") as error:
        settings_of({"GENERATOR_SHARE": "0.5"})
    assert "GENERATOR_MODEL_PATH=" in error.value.next_step


def test_a_run_without_a_generator_is_bound_to_none_of_its_settings():
    without, with_one = settings_of({}), settings_of({"GENERATOR_MODEL_PATH": "g"})
    assert not [name for name in without.fixed_values() if name.startswith("generator_")]
    assert with_one.fixed_values()["generator_model_path"] == "g"
