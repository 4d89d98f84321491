"""`prosetting dashboard`: a workspace in a browser, while its run lives or later."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prosetting.cli.settings_flags import EnvFile


def dashboard(
    ctx: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen at. Beyond loopback a token file is needed.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen at. 0: any free one.", min=0, max=65535)] = 8765,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token for pause, resume and stop. Default: one is drawn.")
    ] = None,
    env_file: EnvFile = None,
) -> None:
    """Show a workspace in a browser: rounds, questions, teachers, machine, log; pause, resume and stop its run.

    Reads the journal, writes nothing to it, and may be started and ended at any time.

    \b
    Example:
      prosetting dashboard --workspace-dir /tmp/prosetting_workspace
    """
    from prosetting.cli.workspaces import workspace_of
    from prosetting.errors import ConfigError

    workspace = workspace_of(ctx, env_file)
    try:
        from prosetting.dashboard.serve import serve
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise ConfigError(
            f"the dashboard needs {error.name}, which is not installed",
            next_step="pip install 'prosetting[dashboard]'",
        ) from None
    serve(workspace, host=host, port=port, token_file=token_file, say=lambda text: typer.echo(text, err=True))
