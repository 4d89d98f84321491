"""`prosetting report`: the report of a workspace, finished or not."""

from __future__ import annotations

import typer

from prosetting.cli.settings_flags import EnvFile
from prosetting.cli.status import AsJson


def report(ctx: typer.Context, as_json: AsJson = False, env_file: EnvFile = None) -> None:
    """Print the report of a workspace from its journal and write report.html and its results/ folder anew.

    \b
    Example:
      prosetting report --workspace-dir /tmp/prosetting_workspace
    """
    import json

    from prosetting.cli.workspaces import open_journal, state_of, total_rounds_of, workspace_of
    from prosetting.core.workspace import holder_of
    from prosetting.managers.report import terminal_report, write_report
    from prosetting.managers.run_status import require_begun
    from prosetting.managers.run_summary import run_summary

    workspace = workspace_of(ctx, env_file)
    with open_journal(workspace) as journal:
        require_begun(journal)
        written = state_of(workspace).get("status", "stopped")
        # A run that was killed left `running` behind: nothing failed, and it can go on.
        final = "stopped" if written == "running" and holder_of(workspace) is None else written
        seconds = journal.run_seconds()
        summary = run_summary(journal, total_rounds_of(workspace, journal), final, seconds)
        write_report(workspace, journal, summary)
    typer.echo(json.dumps(summary, ensure_ascii=False, indent=1) if as_json else terminal_report(summary))
