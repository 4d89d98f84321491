"""`prosetting export`: a run's weights and data as folders for the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prosetting.cli.settings_flags import EnvFile
from prosetting.cli.status import AsJson
from prosetting.errors import ConfigError


def export(
    ctx: typer.Context,
    to: Annotated[Path, typer.Option("--to", help="New folder, which gets model/ and dataset/.")],
    round_: Annotated[int | None, typer.Option("--round", min=1, help="Round. Default: the last that is over.")] = None,
    licence: Annotated[
        str, typer.Option("--license", help="Licence as the Hub names it, such as apache-2.0.")
    ] = "other",
    name: Annotated[str | None, typer.Option("--name", help="Name in the cards. Default: that of the folder.")] = None,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Write the Solver after a round and the data that trained it, each with its card, ready to be uploaded.

    The cards tell settings, figures, lineage and licence. No key, address or path of this machine goes with them.
    Nothing is uploaded: hf upload USER/NAME DIR/model does that.

    \b
    Example:
      prosetting export --to my-solver --license apache-2.0
    """
    import importlib.util
    import json

    from prosetting.cli.workspaces import open_journal, workspace_of
    from prosetting.managers.export import export_run
    from prosetting.managers.run_status import require_begun

    if importlib.util.find_spec("huggingface_hub") is None:
        raise ConfigError("huggingface_hub is not installed", next_step="pip install 'prosetting[train]'")
    workspace = workspace_of(ctx, env_file)
    with open_journal(workspace) as journal:
        require_begun(journal)
        done = export_run(workspace, journal, to, round_=round_, licence=licence, name=name or to.name)
    if done.model is None:
        typer.echo("no model: no round has trained yet, the weights are those you gave", err=True)
    folders = {kind: str(path) for kind, path in (("model", done.model), ("dataset", done.dataset)) if path}
    if as_json:
        typer.echo(json.dumps({"round": done.round, **folders}, ensure_ascii=False))
        return
    for kind, folder in folders.items():
        typer.echo(folder)
        typer.echo(f"  to publish it: hf upload USER/{to.name} {folder} --repo-type {kind}", err=True)
