"""`prosetting fork`: go on from a round of another workspace, with other settings."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prosetting.cli.settings_flags import EnvFile, load

if TYPE_CHECKING:
    from prosetting.managers.binding import Fork


def fork(
    ctx: typer.Context,
    from_round: Annotated[
        int, typer.Option(min=0, help="The last round to keep. 0: only the first questions and the teacher's replies")
    ],
    to: Annotated[Path, typer.Option(metavar="DIR", help="The new workspace: a folder that is empty or not there yet")],
    env_file: EnvFile = None,
) -> None:
    """Start a new workspace from a round of WORKSPACE_DIR that is over, with changed settings.

    A changed setting holds from the next round on; settings that you do not give stay as they are there. No reply of
    a teacher is bought twice. WORKSPACE_DIR stays as it is.

    \b
    Example:
      prosetting fork --from-round 2 --to /tmp/warmer --workspace-dir /tmp/run --solver-temperature 1.2
    """
    from prosetting.cli.workspaces import open_journal, total_rounds_of
    from prosetting.core.text import printable
    from prosetting.core.workspace import Workspace
    from prosetting.managers.fork import fork_workspace

    loaded = load(ctx, env_file, need_model=False)
    workspace, target = Workspace.of(loaded.settings), to.expanduser().absolute()
    with open_journal(workspace) as journal:
        total = loaded.settings.total_rounds
        if "total_rounds" not in loaded.explicit:
            total = total_rounds_of(workspace, journal)
        made = fork_workspace(
            workspace, journal, target, round_=from_round, loaded=loaded, total_rounds=total, say=typer.echo
        )
    typer.echo(printable(f"{target} holds {_kept(made)}\nGo on there with: {_command(made, target, env_file)}"))


def _kept(made: Fork) -> str:
    kept = f"rounds 1 to {made.round}" if made.round else "the first questions and the teacher's replies"
    changed = "".join(f"\n  {name}: {old!r} → {new!r}" for name, (old, new) in made.changed.items())
    return f"{kept} of {made.workspace}; changed from round {made.round + 1} on:{changed or ' nothing'}"


def _command(made: Fork, target: Path, env_file: Path | None) -> str:
    from prosetting.config import Settings, flag_name

    words = ["prosetting", "run", *(("--env-file", str(env_file)) if env_file else ())]
    words += ["--workspace-dir", str(target)]
    for name, (_, value) in made.changed.items():
        if name in Settings.model_fields:
            words += [flag_name(name), _as_typed(value)]
    return " ".join(map(shlex.quote, words))


def _as_typed(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
