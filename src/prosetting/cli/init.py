"""`prosetting init`: ask for what a run needs and write it into `.env`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prosetting.errors import ConfigError, ProSettingError

if TYPE_CHECKING:
    from prosetting.config import Settings

ASKED = {
    "SOLVER_MODEL_PATH": "Solver to train (a Hugging Face model folder, or a hub name such as Qwen/Qwen3-8B)",
    "QUESTIONS_FILE": "File of questions (.json or .jsonl)",
    "VALIDATION_DATA_FILE": "File of held-out questions that score every checkpoint (empty: none)",
    "WORKSPACE_DIR": "Folder where the run keeps everything it makes",
    "TEACHER_BASE_URL": "Teacher, an OpenAI-compatible address such as http://host:8000/v1 (empty: the embedded one)",
}
ASKED_OF_A_TEACHER = {
    "TEACHER_MODEL_NAME": "Model asked for there",
    "TEACHER_API_KEY": "Its key (not shown, empty: none)",
}


def init(
    ctx: typer.Context,
    env_file: Annotated[Path, typer.Option("--env-file", help="File to write.")] = Path(".env"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Change the file's settings without asking, when it is there.")
    ] = False,
) -> None:
    """Ask for the Solver, the questions and the teacher, and write them into .env, readable by you alone.

    What is given as a flag is not asked. Answers may come from a pipe, a line each. A file that is there is changed
    only when you say so, and keeps its other lines.

    \b
    Example:
      prosetting init
      prosetting init --solver-model-path Qwen/Qwen3-8B --questions-file questions.json --teacher-base-url "" </dev/null
    """
    from prosetting.cli.settings_flags import flags_of

    given = flags_of(ctx)
    before = _read(env_file)
    change = f"{env_file} is there. Change its settings, keeping its other lines?"
    if env_file.exists() and not overwrite and not _yes(change):
        raise ConfigError(f"{env_file} is left as it is", next_step="give --overwrite, or another --env-file")
    values = {**given}
    for key, question in ASKED.items():
        if key not in given:
            values[key] = _ask(key, question, before, values)
    if values["TEACHER_BASE_URL"]:
        for key, question in ASKED_OF_A_TEACHER.items():
            if key not in given:
                values[key] = _ask(key, question, before, values)
    _check(values)
    _write(env_file, values)
    typer.echo(f"wrote {env_file} ({', '.join(sorted(values))})", err=True)
    typer.echo("next: prosetting doctor, then: prosetting run", err=True)


def _ask(key: str, question: str, before: Mapping[str, str], values: Mapping[str, str]) -> str:
    """Until the answer is good; from a pipe, once."""
    from prosetting.config import Settings, example_value

    default = before.get(key, example_value(key.lower()) if key.lower() in Settings.model_fields else "")
    secret = key.endswith("API_KEY")
    while True:
        shown = f" [{'as it was' if secret else default}]" if default else ""
        answer = _line(f"{question}{shown}: ", secret=secret) or default
        try:
            _check({**values, key: answer}, only=key)
        except ProSettingError as error:
            if not sys.stdin.isatty():
                raise
            typer.echo(f"  {error}", err=True)
            continue
        return answer


def _line(prompt: str, *, secret: bool = False) -> str:
    """One line of the input; empty at its end, so that defaults stand for what a pipe does not say."""
    if secret and sys.stdin.isatty():
        import getpass

        return getpass.getpass(prompt, stream=sys.stderr).strip()
    sys.stderr.write(prompt)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not sys.stdin.isatty():
        sys.stderr.write("\n")
    return line.strip()


def _yes(question: str) -> bool:
    return _line(f"{question} [y/N]: ").lower() in ("y", "yes")


def _check(values: Mapping[str, str], *, only: str = "") -> None:
    """Raises ProSettingError for what a run would refuse; `only` one of them."""
    from prosetting.collectors.data_normalizer import load_questions
    from prosetting.collectors.local_solver import check_model_folder
    from prosetting.settings_sources import settings_of

    settings = settings_of(values)
    checks: dict[str, Callable[[Settings], object]] = {
        "SOLVER_MODEL_PATH": lambda s: check_model_folder(_needed(s.solver_model_path)),
        "QUESTIONS_FILE": lambda s: load_questions(s.questions_file),
        "VALIDATION_DATA_FILE": lambda s: s.validation_data_file and load_questions(s.validation_data_file),
    }
    for key, check in checks.items():
        if key == only or not only:
            check(settings)


def _needed(model: str) -> str:
    if not model:
        raise ConfigError("a run needs a Solver", next_step="give --solver-model-path, or answer the question")
    return model


def _read(env_file: Path) -> dict[str, str]:
    from dotenv import dotenv_values

    if not env_file.is_file():
        return {}
    return {key: value for key, value in dotenv_values(env_file, interpolate=False).items() if value is not None}


def _write(env_file: Path, values: Mapping[str, str]) -> None:
    """Whole or not at all, mode 600 from its first byte on; other lines of the file stay."""
    import os
    import re

    old = env_file.read_text(encoding="utf-8").splitlines() if env_file.is_file() else []
    ours = re.compile(rf"\s*(export\s+)?({'|'.join(map(re.escape, values))})\s*=")
    kept = [line for line in old if not ours.match(line)]
    head = kept or ["# Written by prosetting init. All settings: prosetting settings"]
    lines = [*head, *(f"{key}={_quoted(value)}" for key, value in values.items())]
    temporary = env_file.with_name(f".{env_file.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write("\n".join(lines) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, env_file)
    except OSError as error:
        raise ConfigError(
            f"{env_file} cannot be written: {error.strerror}", next_step="give another --env-file, or mend its folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _quoted(value: str) -> str:
    """As a `.env` file takes it."""
    plain = value and all(each.isalnum() or each in "/._-:,@+%" for each in value)
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return value if plain or not value else f"'{escaped}'"
