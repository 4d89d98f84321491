"""`prosetting settings`: the reference page of all settings."""

from __future__ import annotations

import typer


def settings() -> None:
    """Print every setting with its type, default, unit and meaning.

    \b
    Example:
      prosetting settings | grep TEACHER_
    """
    from prosetting.config import reference_markdown

    typer.echo(reference_markdown(), nl=False)
