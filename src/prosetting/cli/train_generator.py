"""`prosetting train-generator`: the Generator trained on what a workspace has measured, outside a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prosetting.cli.settings_flags import EnvFile, load
from prosetting.errors import ConfigError

if TYPE_CHECKING:
    from prosetting.config import Settings
    from prosetting.core.workspace import Workspace
    from prosetting.trainers.base import TrainingJob


def train_generator(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the trained model, not there yet")],
    env_file: EnvFile = None,
) -> None:
    """Train GENERATOR_MODEL_PATH on all questions of WORKSPACE_DIR whose pass rate was measured.

    A run that has GENERATOR_MODEL_PATH does so by itself in every round. This is for a run without one, or for another
    model. Stopped, the same command goes on from the last checkpoint.

    \b
    Example:
      prosetting train-generator --workspace-dir runs/demo --generator-model-path Qwen/Qwen3-8B --out generator
    """
    from prosetting.cli.logs import log_to_stderr
    from prosetting.core import stopping
    from prosetting.core.machine import fit_to_machine, this_machine
    from prosetting.core.text import printable
    from prosetting.core.workspace import Workspace
    from prosetting.managers.open_engines import open_generator_trainer

    loaded = load(ctx, env_file, need_model=False)
    settings, notices = fit_to_machine(loaded, this_machine())
    job = _job(settings, Workspace.of(settings), out.expanduser().absolute())
    with log_to_stderr() as log, stopping.stoppable():
        for notice in notices:
            log.info("notice: %s", notice)
        result = open_generator_trainer(settings).train(job)
    figures = ", ".join(
        f"{name} {result.metrics[name]:.3f}" for name in ("first_loss", "loss") if name in result.metrics
    )
    typer.echo(
        printable(f"{result.model_dir}: trained on {result.train_pairs} questions, {result.steps} steps, {figures}")
    )


def _job(settings: Settings, workspace: Workspace, out: Path) -> TrainingJob:
    """Raises ConfigError or DataError for what cannot be trained."""
    from prosetting.errors import DataError
    from prosetting.managers.open_engines import check_generator
    from prosetting.trainers.base import TrainingJob
    from prosetting.trainers.generator_job import read_rows

    if not settings.generator_model_path:
        raise ConfigError(
            "GENERATOR_MODEL_PATH is not set: there is no model to train",
            next_step="add --generator-model-path, a Hugging Face model folder or a hub name",
        )
    if out.exists():
        raise ConfigError(f"{out} exists", next_step="give another folder to --out")
    check_generator(settings)
    files = sorted(workspace.round_data(1, "generator_training").parent.glob("round_*_generator_training.json"))
    if not read_rows(files):
        raise DataError(
            f"{workspace.root} holds no new question whose pass rate was measured",
            next_step="see --workspace-dir; a round's questions are measured in the next one",
        )
    return TrainingJob(
        round=len(files),
        model_path=settings.generator_model_path,
        dataset_dirs=[],
        output_dir=out,
        log_file=out.with_name(f"{out.name}.log"),
        seed=settings.seed,
        training_files=files,
    )
