"""`prosetting ctl`: ask a run in the background to pause, go on or stop, or what it does."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from prosetting.cli.settings_flags import EnvFile
from prosetting.cli.status import AsJson

if TYPE_CHECKING:
    from prosetting.core.control import ControlStatus


class Request(StrEnum):
    """What a run can be asked."""

    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    STATUS = "status"


def ctl(
    ctx: typer.Context,
    request: Annotated[Request, typer.Argument(metavar="pause|resume|stop|status", help="What to ask the run.")],
    wait: Annotated[
        float,
        typer.Option("--wait", metavar="SECONDS", min=0, help="Wait this long until it is done, not only asked for."),
    ] = 0.0,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Ask the live run of a workspace to pause, go on or stop, also one that was started by nohup.

    pause: what is in flight is finished and committed, nothing new is begun, engines stay loaded; a training saves a
    checkpoint and ends. resume: go on; where a person is asked (--mode semi) it is the answer c. stop: as the first
    Ctrl+C; the same command goes on later. Exit code 0 when the run has heard it (with --wait: has done it), 1 when it
    has not within the time, 2 when no run is live.

    \b
    Example:
      prosetting ctl pause --wait 600 && nvidia-smi; prosetting ctl resume
    """
    from prosetting.cli.workspaces import workspace_of
    from prosetting.core.control import RunState, Wish, ask_run, control_status, is_done, wait_for
    from prosetting.errors import EXIT_FAILED

    workspace = workspace_of(ctx, env_file)
    if request is Request.STATUS:
        return _print(control_status(workspace), as_json)
    wish = Wish(request.value)
    status = ask_run(workspace, wish)
    if wait:
        status = wait_for(workspace, wish, wait)
    _print(status, as_json)
    if wait and not is_done(wish, status.state):
        raise typer.Exit(EXIT_FAILED)
    if status.state is RunState.PAUSING and not as_json:
        typer.echo("what is in flight is finished first; to wait for it: prosetting ctl pause --wait 600", err=True)


def _print(status: ControlStatus, as_json: bool) -> None:
    import json
    import platform
    from dataclasses import asdict

    if as_json:
        typer.echo(json.dumps(asdict(status), ensure_ascii=False))
        return
    who = ""
    if status.holder:
        elsewhere = f" on {status.holder['host']}" if status.holder["host"] != platform.node() else ""
        who = f" (process {status.holder['pid']}{elsewhere})"
    asked = f", a person is asked: {status.question}" if status.question else ""
    word = "no live run" if status.state == "none" else status.state.value
    typer.echo(f"{word}{who}{asked}")
