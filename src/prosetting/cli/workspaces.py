"""The workspace that a command line names, and what is read of it."""

from __future__ import annotations

from pathlib import Path

import typer

from prosetting.cli.settings_flags import load
from prosetting.core.reading import open_journal, state_of, total_rounds_of
from prosetting.core.workspace import Workspace

__all__ = ["open_journal", "state_of", "total_rounds_of", "workspace_of"]


def workspace_of(ctx: typer.Context, env_file: Path | None) -> Workspace:
    return Workspace.of(load(ctx, env_file, need_model=False).settings)
