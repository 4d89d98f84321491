"""`prosetting selfcheck`: does what a run promises hold on this machine and this disk?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prosetting.cli.status import AsJson
from prosetting.errors import EXIT_DONE, EXIT_FAILED, ConfigError

PROGRESS_EVERY = 20


def selfcheck(
    crash: Annotated[bool, typer.Option("--crash", help="Kill a toy run at every named point and resume it.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Each point once, within a minute; else at several of its occurrences.")
    ] = False,
    as_json: AsJson = False,
    workspace_dir: Annotated[
        Path | None, typer.Option(help="A folder on the disk to check. Default: a temporary one")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws which kills follow one another.")] = 1,
) -> None:
    """Kill a small run at every write, rename, commit and child start, resume it, and compare it with one left alone.

    The loop, the journal, the files and the teacher are the real ones; Solver and Trainer are scripted, no model is
    needed. Exit code 0: every run ended as the uninterrupted one. What a lost run left stays in the folder.

    \b
    Example:
      prosetting selfcheck --crash --quick --workspace-dir /data
    """
    if not crash:
        raise ConfigError("nothing was asked to be checked", next_step="prosetting selfcheck --crash")
    import shutil
    import tempfile

    from prosetting.errors import WorkspaceError

    if workspace_dir is not None and not workspace_dir.is_dir():
        raise WorkspaceError(f"there is no folder {workspace_dir}", next_step="name a folder on the disk to check")
    folder = Path(tempfile.mkdtemp(prefix="prosetting-selfcheck-", dir=workspace_dir))
    survived = False
    try:
        survived = _certificate(folder, quick=quick, as_json=as_json, seed=seed)
    except KeyboardInterrupt:
        survived = True
        raise
    finally:
        if survived:
            shutil.rmtree(folder, ignore_errors=True)
    raise typer.Exit(EXIT_DONE if survived else EXIT_FAILED)


def _certificate(folder: Path, *, quick: bool, as_json: bool, seed: int) -> bool:
    """Run it, say how it goes, and whether every point was survived."""
    import json
    import os
    import time
    from dataclasses import asdict

    from prosetting.managers import selfcheck

    started = time.monotonic()
    baseline = selfcheck.uninterrupted(folder, rounds=2 if quick else 3)
    typer.echo(
        f"toy run in {folder}: {len(set(baseline.points))} named points, {len(baseline.points)} times reached,"
        f" {baseline.seconds:.1f} s",
        err=as_json,
    )
    outcomes = []
    # Runs wait for the disk more than for a core.
    for outcome in selfcheck.certify(baseline, folder, quick=quick, seed=seed, jobs=2 * (os.cpu_count() or 1)):
        outcomes.append(outcome)
        if not outcome.survived:
            typer.echo(f"  {outcome.name}: {outcome.outcome}", err=as_json)
        if len(outcomes) % PROGRESS_EVERY == 0:
            typer.echo(f"  {len(outcomes)} kills, {time.monotonic() - started:.0f} s", err=as_json)
    survived = sum(outcome.survived for outcome in outcomes)
    outcomes.sort(key=lambda outcome: outcome.name)
    if as_json:
        counts = {"points": len(outcomes), "survived": survived}
        content = counts | {"quick": quick, "seed": seed, "outcomes": [asdict(outcome) for outcome in outcomes]}
        typer.echo(json.dumps(content, ensure_ascii=False, indent=1))
    else:
        typer.echo(f"survived {survived} of {len(outcomes)} points in {time.monotonic() - started:.0f} s")
    return survived == len(outcomes)
