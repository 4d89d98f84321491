"""The command line: `prosetting`. Light to import; each command loads what it needs when it is run.

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 stopped and resumable, 4 workspace in use,
5 teacher unavailable, 6 paused for a person to look, 130 Ctrl+C.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from prosetting import __version__
from prosetting.cli import (
    compare,
    ctl,
    dashboard,
    doctor,
    evaluate,
    export,
    fork,
    grade,
    init,
    lineage,
    replay,
    report,
    run,
    selfcheck,
    settings,
    status,
    train_generator,
)
from prosetting.cli.settings_flags import (
    EvalCommand,
    GeneratorCommand,
    GradeCommand,
    InitCommand,
    SettingsCommand,
    WorkspaceCommand,
)
from prosetting.errors import EXIT_INTERRUPTED, ProSettingError, RunStopped

# Plain text: no markup of a question or a model is ever interpreted, and lines stay whole for other programs.
app = typer.Typer(
    name="prosetting",
    help="Rounds of progressive self-training: sample, grade, pair, train, write the next questions.",
    epilog="Start with: prosetting init, then: prosetting doctor, then: prosetting run",
    add_completion=True,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("init", cls=InitCommand, short_help="Ask for what a run needs and write .env")(init.init)
app.command("run", cls=SettingsCommand, short_help="Start a run, or go on with one")(run.run)
app.command("status", cls=WorkspaceCommand, short_help="What the run of a workspace is doing")(status.status)
app.command("ctl", cls=WorkspaceCommand, short_help="Pause, resume or stop a run in the background")(ctl.ctl)
app.command("dashboard", cls=WorkspaceCommand, short_help="A workspace in a browser, live")(dashboard.dashboard)
app.command("report", cls=WorkspaceCommand, short_help="The report of a workspace, finished or not")(report.report)
app.command("fork", cls=SettingsCommand, short_help="Go on from a round of a workspace, with other settings")(fork.fork)
app.command("compare", short_help="Two runs on the questions that both were scored on")(compare.compare)
app.command("lineage", cls=WorkspaceCommand, short_help="Where a question comes from, and what became of it")(
    lineage.lineage
)
app.command("export", cls=WorkspaceCommand, short_help="Weights and data as folders for the Hugging Face Hub")(
    export.export
)
app.command("replay", short_help="Recorded attempts, served as a Solver")(replay.replay)
app.command("grade", cls=GradeCommand, short_help="Verdicts on recorded attempts")(grade.grade)
app.command("eval", cls=EvalCommand, short_help="Score a model on files of questions")(evaluate.evaluate)
app.command("train-generator", cls=GeneratorCommand, short_help="Train the Generator on a workspace's questions")(
    train_generator.train_generator
)
app.command("doctor", cls=WorkspaceCommand, short_help="Is everything there that a run needs?")(doctor.doctor)
app.command("selfcheck", short_help="Does a run survive kill -9 on this disk?")(selfcheck.selfcheck)
app.command("settings", short_help="The reference page of all settings")(settings.settings)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"prosetting {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main(args: Sequence[str] | None = None) -> int:
    """Run one command line (default: this process's) and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal of another encoding shows \\u2705 rather than ending the command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(args=args, prog_name="prosetting")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except ProSettingError as error:
        from prosetting.core.text import printable

        # Leaving because a person asked to is no error.
        word = "" if isinstance(error, RunStopped) else "error: "
        print(f"{word}{printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
