"""The values of settings. They come from, strongest first: command-line flags, the environment, the `.env` file, the
defaults. What is wrong with one is told with where it came from and what would be right."""

from __future__ import annotations

import difflib
import os
import shlex
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from prosetting.config import AGREEING, ENV_NAMES, Settings, env_name, example_value, flag_name, setting_unit
from prosetting.errors import ConfigError

Source = Literal["flag", "environment", "file"]
ALIASES = {"PHYSICAL_DPO_GPU": "PHYSICAL_GRPO_GPU"}
"""Other names of settings in a file and in the environment."""
NOT_OURS = frozenset(
    {"TRL_EXPERIMENTAL_SILENCE"}
    | {
        f"VERL_{name}"
        for name in (
            "AUTO_PADDING",
            "DATAPROTO_SERIALIZATION_METHOD",
            "DISABLE_FLASH_ATTN_CE",
            "ENGINE_DEVICE",
            "ENGINE_VENDOR",
            "FORCE_DEVICE",
            "FULL_DETERMINISM",
            "KEEP_NVTX_INJECTION",
            "LOGGING_LEVEL",
            "PLATFORM",
            "USE_EXTERNAL_MODULES",
            "USE_EXTERNAL_PLUGINS",
            "USE_MODELSCOPE",
            "VLLM_FP8_QUANT_ENABLED",
        )
    }
)
"""Variables of other programs under a prefix of ours."""
# First words that are ours alone; MAX_, LOG_, SEED_ and the like belong to everybody's environment.
OUR_PREFIXES = (
    "ATTEMPTS_",
    "AUTO_",
    "EMBEDDED_",
    "ENHANCE_",
    "GENERATOR_",
    "PHYSICAL_",
    "RAY_SOLVER_",
    "RAY_TRAINER_",
    "REPLAY_",
    "REWARD_",
    "SOLVER_",
    "TEACHER_",
    "TEACHER2_",
    "TRL_",
    "VERL_",
)


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings, which of them the user gave (in contrast to defaults) by field name, and what to warn of."""

    settings: Settings
    explicit: frozenset[str]
    warnings: tuple[str, ...] = ()


def load_settings(
    *, flags: Mapping[str, str], environ: Mapping[str, str], env_file: Path | None, need_model: bool = True
) -> LoadedSettings:
    """Merge flags > environment > `.env` > defaults and validate.

    `flags` is keyed by environment name. `env_file` None means: `.env` of the current folder, if there is one.
    `need_model` False is for what works without a Solver. Raises ConfigError for an unknown key with one of our
    prefixes, a bad value, a missing `env_file`, or SOLVER_MODEL_PATH not set where it is needed.
    """
    raw: dict[str, tuple[str, Source]] = {}
    file = env_file or Path(".env")
    of_file = _read_env_file(file, must_exist=env_file is not None)
    for source, values in (("file", of_file), ("environment", environ), ("flag", flags)):
        _refuse_unknown_keys(values, source)
        values = _under_one_name(values, source)
        raw |= {key: (values[key], source) for key in ENV_NAMES if key in values}  # type: ignore[misc]
    settings = _validated(raw)
    if need_model and not settings.solver_model_path:
        raise _not_set("solver_model_path")
    return LoadedSettings(settings, frozenset(key.lower() for key in raw), _exposed_keys(file, of_file))


def settings_of(flags: Mapping[str, str]) -> Settings:
    """The settings of these flags alone, by environment name, all others at their defaults. Raises ConfigError."""
    return _validated({key: (value, "flag") for key, value in flags.items()})


def _validated(raw: Mapping[str, tuple[str, Source]]) -> Settings:
    try:
        return Settings.model_validate({key.lower(): value for key, (value, _) in raw.items()})
    except ValidationError as error:
        raise _config_error(error, raw) from None


def _exposed_keys(file: Path, values: Mapping[str, str]) -> tuple[str, ...]:
    """A warning where the file holds a key and other users of this machine can read it."""
    keys = sorted(name for name, value in values.items() if name.endswith("API_KEY") and value)
    if not keys or os.name != "posix" or not file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return ()
    return (f"{file} holds {', '.join(keys)} and other users can read it; run: chmod 600 {shlex.quote(str(file))}",)


def _read_env_file(path: Path, *, must_exist: bool) -> dict[str, str]:
    from dotenv import dotenv_values

    if not path.is_file():
        if not must_exist:
            return {}
        raise ConfigError(
            f"there is no settings file at {path}", next_step="check --env-file, or: cp .env.example .env"
        )
    return {key: value for key, value in dotenv_values(path, interpolate=False).items() if value is not None}


def _refuse_unknown_keys(keys: Iterable[str], source: str) -> None:
    for key in keys:
        if key in ENV_NAMES or key in ALIASES or key in NOT_OURS or not key.startswith(OUR_PREFIXES):
            continue
        near = difflib.get_close_matches(key, ENV_NAMES, n=1, cutoff=0.5)
        raise ConfigError(
            f"{key} (in the {source}) is no setting of ProSetting",
            next_step=f"did you mean {near[0]}?" if near else "all settings: prosetting settings",
        )


def _under_one_name(values: Mapping[str, str], source: str) -> Mapping[str, str]:
    """The values with each alias under its setting's own name."""
    given = {alias: name for alias, name in ALIASES.items() if alias in values}
    for alias, name in given.items():
        if values.get(name, values[alias]) != values[alias]:
            raise ConfigError(
                f"{alias}={values[alias]!r} and {name}={values[name]!r} (in the {source}) are one setting",
                next_step=f"keep {name} alone",
            )
    return {**values, **{name: values[alias] for alias, name in given.items()}}


def _config_error(error: ValidationError, raw: Mapping[str, tuple[str, Source]]) -> ConfigError:
    first = error.errors(include_url=False, include_input=False)[0]
    if not first["loc"]:
        found = [_shown(key, *raw[key]) for key in ENV_NAMES if key in raw and key in first["msg"]]
        example = next(example for name, example in AGREEING.items() if name in first["msg"])
        return ConfigError(
            f"{first['msg'].removeprefix('Value error, ')}: {', '.join(found)}",
            next_step=f"make these settings agree, such as {example}",
        )
    name = str(first["loc"][0])
    key = env_name(name)
    return ConfigError(f"{_shown(key, *raw[key])}: {first['msg']}", next_step=_expected(name))


def _not_set(name: str) -> ConfigError:
    key = env_name(name)
    return ConfigError(
        f"{key} is not set: {Settings.model_fields[name].description}",
        next_step=f"put {key}=… into .env, or: export {key}=…, or add {flag_name(name)}",
    )


def _shown(key: str, value: str, source: Source) -> str:
    return f"{key}={'(hidden)' if key.endswith('API_KEY') else repr(value)} (from the {source})"


def _expected(name: str) -> str:
    field = Settings.model_fields[name]
    unit = setting_unit(name)
    return f"{field.description}{f' [{unit}]' if unit else ''}; for example {env_name(name)}={example_value(name)}"
