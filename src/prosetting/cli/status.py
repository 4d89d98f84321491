"""`prosetting status`: what the run of a workspace is doing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from prosetting.cli.settings_flags import EnvFile

AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def status(ctx: typer.Context, as_json: AsJson = False, env_file: EnvFile = None) -> None:
    """Show what the run of a workspace is doing: rounds, stages, pool, pass rates.

    \b
    Example:
      prosetting status --workspace-dir /tmp/prosetting_workspace --json
    """
    from prosetting.cli.workspaces import open_journal, state_of, total_rounds_of, workspace_of
    from prosetting.core.workspace import holder_of
    from prosetting.managers.run_status import run_status

    workspace = workspace_of(ctx, env_file)
    with open_journal(workspace) as journal:
        found = run_status(journal, total_rounds_of(workspace, journal))
    state, holder = state_of(workspace), holder_of(workspace)
    word = _word(state.get("status", "stopped"), live=holder is not None)
    if as_json:
        _print_json(workspace.root, word, holder, str(state.get("error", "")), found)
    else:
        _print_text(workspace.root, word, holder, str(state.get("error", "")), found)


def _word(written: str, *, live: bool) -> str:
    """A run that was killed could not write so: its state says running, and nobody holds the lock."""
    return "running" if live else "interrupted" if written == "running" else written


def _print_json(root: Path, word: str, holder: dict[str, Any] | None, error: str, found: Any) -> None:
    import json
    from dataclasses import asdict

    head = {"workspace": str(root), "status": word, "held_by": holder, "error": error}
    content = head | {"can_continue": found.can_continue} | asdict(found)
    typer.echo(json.dumps(content, ensure_ascii=False, indent=1))


def _print_text(root: Path, word: str, holder: dict[str, Any] | None, error: str, found: Any) -> None:
    from prosetting.core.text import printable
    from prosetting.managers.report import render_status

    who = f" (process {holder['pid']} since {holder['since']})" if holder else ""
    typer.echo(f"Workspace {root}: {word}{who}")
    if error:
        typer.echo(f"Last error: {printable(error)}")
    typer.echo(render_status(found))
    if found.can_continue and not holder:
        typer.echo("\nThe same command goes on from here: prosetting run")
