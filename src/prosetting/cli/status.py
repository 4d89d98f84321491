"""`prosetting status`: what the run of a workspace is doing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prosetting.cli.settings_flags import EnvFile

if TYPE_CHECKING:
    from prosetting.core.control import ControlStatus
    from prosetting.core.workspace import Workspace

AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
WATCH_INTERVAL_S = 2.0
CLEAR = "\x1b[H\x1b[2J\x1b[3J"


def status(
    ctx: typer.Context,
    as_json: AsJson = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Again every two seconds, until the run ends. With --json a line each time.")
    ] = False,
    env_file: EnvFile = None,
) -> None:
    """Show what the run of a workspace is doing: rounds, stages, pool, pass rates, judge, teachers, GPUs, memory, disk.

    \b
    Example:
      prosetting status --workspace-dir /tmp/prosetting_workspace --json
      prosetting status --watch
    """
    import time

    from prosetting.cli.workspaces import workspace_of

    workspace = workspace_of(ctx, env_file)
    live = _show(workspace, as_json, line=watch, clear=watch)
    while watch and live:
        time.sleep(WATCH_INTERVAL_S)
        live = _show(workspace, as_json, line=True, clear=True)


def _show(workspace: Workspace, as_json: bool, *, line: bool, clear: bool) -> bool:
    """One look; whether a run is live."""
    from prosetting.cli.workspaces import open_journal, state_of, total_rounds_of
    from prosetting.core.control import RunState, control_status
    from prosetting.managers.run_status import run_status
    from prosetting.managers.status_view import status_of_workspace

    control, state = control_status(workspace), state_of(workspace)
    word = _word(str(state.get("status", "stopped")), control)
    error = str(state.get("error", ""))
    with open_journal(workspace) as journal:
        total = total_rounds_of(workspace, journal)
        if as_json:
            text = _json(workspace, word, control, error, run_status(journal, total), indent=None if line else 1)
        else:
            text = _text(workspace, word, control, error, status_of_workspace(journal, workspace, total))
    if clear and not as_json and sys.stdout.isatty():
        text = CLEAR + text
    typer.echo(text)
    return control.state is not RunState.NONE


def _word(written: str, control: ControlStatus) -> str:
    """A run that was killed could not write so: its state says running, and nobody holds the lock."""
    if control.holder:
        return control.state.value
    return "interrupted" if written == "running" else written


def _json(
    workspace: Workspace, word: str, control: ControlStatus, error: str, found: Any, *, indent: int | None
) -> str:
    import json
    from dataclasses import asdict

    head = {"workspace": str(workspace.root), "status": word, "held_by": control.holder, "error": error}
    content = head | {"can_continue": found.can_continue} | asdict(found)
    return json.dumps(content, ensure_ascii=False, indent=indent)


def _text(workspace: Workspace, word: str, control: ControlStatus, error: str, status: str) -> str:
    from prosetting.core.text import printable

    holder = control.holder
    who = f" (process {holder['pid']} since {holder['since']})" if holder else ""
    asked = f", a person is asked: {control.question}" if control.question else ""
    lines = [f"Workspace {workspace.root}: {word}{who}{asked}"]
    if error:
        lines.append(f"Last error: {printable(error)}")
    lines.append(status)
    if "Can Continue: Yes" in status and not holder:
        lines.append("\nThe same command goes on from here: prosetting run")
    return "\n".join(lines)
