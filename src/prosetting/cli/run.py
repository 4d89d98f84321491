"""`prosetting run`: start a run, or go on with one."""

from __future__ import annotations

import gc
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prosetting.cli.settings_flags import EnvFile, load

if TYPE_CHECKING:
    from prosetting.config import Settings
    from prosetting.core.workspace import Workspace


class RunMode(StrEnum):
    """Who decides between rounds: nobody, or a person."""

    AUTO = "auto"
    SEMI = "semi"


def run(
    ctx: typer.Context,
    mode: Annotated[RunMode, typer.Option(help="auto: by itself. semi: asks before each round")] = RunMode.AUTO,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only tell the settings, the rounds, and about what they take. Starts and writes nothing."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: machine-readable output.")] = False,
    env_file: EnvFile = None,
) -> None:
    """Run the rounds of a workspace, or go on where they stopped.

    Every setting is also a flag: TOTAL_ROUNDS is --total-rounds.

    \b
    Example:
      prosetting run --dry-run
      prosetting run --solver-model-path Qwen/Qwen3-8B --questions-file questions.json --total-rounds 3
    """
    from prosetting.core.machine import fit_to_machine, this_machine
    from prosetting.core.text import printable
    from prosetting.core.workspace import Workspace
    from prosetting.errors import WorkspaceInUse

    loaded = load(ctx, env_file)
    for warning in loaded.warnings:
        typer.echo(printable(f"warning: {warning}"), err=True)
    settings, notices = fit_to_machine(loaded, this_machine())
    if dry_run:
        return _print_plan(settings, notices, as_json)
    from prosetting.managers.forks import fork_server_of

    workspace = Workspace.of(settings)
    before = _written_at(workspace)
    try:
        with fork_server_of(settings):
            from prosetting.managers.run import start_run

            gc.freeze()  # what is loaded by now stays: nobody need look through it for garbage
            code = start_run(settings, notices, mode.value, command=typed_command(sys.argv, os.environ, Path.cwd()))
    except WorkspaceInUse:
        raise
    except BaseException:
        _print_report(workspace, before)
        raise
    _print_report(workspace, before)
    raise typer.Exit(code)


def _print_plan(settings: Settings, notices: list[str], as_json: bool) -> None:
    """What a run would check before it begins is checked, the teachers' answer excepted: `doctor` asks them."""
    import json
    from dataclasses import asdict

    from prosetting.cli.plan_text import plan_lines
    from prosetting.managers.open_engines import check_engines
    from prosetting.managers.question_files import load_question_files
    from prosetting.managers.run_plan import plan_run

    check_engines(settings)
    plan = plan_run(settings, notices, load_question_files(settings))
    typer.echo(json.dumps(asdict(plan), ensure_ascii=False, indent=1) if as_json else "\n".join(plan_lines(plan)))


def typed_command(argv: Sequence[str], environ: Mapping[str, str], folder: Path) -> str:
    """What to type to go on with this run: the folder, settings of the environment, the program and its flags.

    A key is named, never told: `--teacher-api-key "$TEACHER_API_KEY"`.
    """
    from prosetting.config import ENV_NAMES, flag_name

    flags = {flag_name(name.lower()): name for name in ENV_NAMES if name.endswith("API_KEY")}
    program = Path(argv[0])
    words = ["prosetting"] if program.name in ("prosetting", "__main__.py") else ["python", shlex.quote(argv[0])]
    key = ""
    for word in argv[1:]:
        flag, equals, _ = word.partition("=")
        if key:
            words.append(f'"${key}"')
        elif flag in flags and equals:
            words.append(f'{flag}="${flags[flag]}"')
        else:
            words.append(shlex.quote(word))
        key = flags.get(word, "") if not key else ""
    set_here = [f"{name}={shlex.quote(environ[name])}" for name in ENV_NAMES if _tells(name, environ)]
    return f"cd {shlex.quote(str(folder))} && {' '.join([*set_here, *words])}"


def _tells(name: str, environ: Mapping[str, str]) -> bool:
    return name in environ and not name.endswith("API_KEY")


def _written_at(workspace: Workspace) -> int | None:
    return workspace.summary.stat().st_mtime_ns if workspace.summary.exists() else None


def _print_report(workspace: Workspace, before: int | None) -> None:
    """The report, if this run came far enough to have written one."""
    from prosetting.core.artifacts import read_json
    from prosetting.managers.report import terminal_report

    if _written_at(workspace) != before:
        typer.echo(terminal_report(read_json(workspace.summary)))
