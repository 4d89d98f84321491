"""`prosetting doctor`: is everything there that a run needs? One line for each thing, with what to do."""

from __future__ import annotations

from typing import Annotated

import typer

from prosetting.cli.settings_flags import EnvFile, load
from prosetting.cli.status import AsJson
from prosetting.errors import EXIT_DONE, EXIT_FAILED, ConfigError


def doctor(
    ctx: typer.Context,
    quick: Annotated[bool, typer.Option("--quick", help="Load no heavy package and call no teacher.")] = False,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Check the machine, the packages, the settings and the files that a run needs.

    \b
    Example:
      prosetting doctor --quick
    """
    import json
    from dataclasses import asdict

    from prosetting.cli import checks
    from prosetting.config import Settings
    from prosetting.settings_sources import LoadedSettings

    try:
        loaded, problem = load(ctx, env_file, need_model=False), None
    except ConfigError as error:
        # Everything else is still told, with the defaults.
        loaded, problem = LoadedSettings(Settings(), frozenset()), error
    found = []
    for check in checks.all_checks(loaded, problem, quick=quick):
        found.append(check)
        if not as_json:
            typer.echo(checks.line(check))
    wrong = [check for check in found if check.level == "wrong"]
    if as_json:
        typer.echo(json.dumps({"ready": not wrong, "checks": [asdict(c) for c in found]}, ensure_ascii=False, indent=1))
    else:
        typer.echo(f"\nNot ready: {len(wrong)} to mend (❌ above)." if wrong else "\nReady: prosetting run")
    raise typer.Exit(EXIT_FAILED if wrong else EXIT_DONE)
