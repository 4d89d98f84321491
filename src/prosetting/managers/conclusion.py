"""The end of a round: its result file and, every CHECKPOINT_INTERVAL rounds, its checkpoint record."""

from __future__ import annotations

from dataclasses import asdict

from prosetting.config import Settings
from prosetting.core.artifacts import write_json
from prosetting.managers.round_files import RoundFiles
from prosetting.managers.run_so_far import RunSoFar
from prosetting.managers.run_summary import round_summary


def conclude(run: RunSoFar, round_: int) -> None:
    """Write the files that tell what a round came to."""
    summary = asdict(round_summary(run.journal, round_))
    seconds = {"duration_seconds": summary.pop("duration_seconds")}
    RoundFiles(run.workspace, run.journal).results(round_, summary, seconds)
    if records_checkpoint(run.settings, round_):
        checkpoint = asdict(run.checkpoint(round_))
        write_json(run.workspace.checkpoint_record(round_), {**checkpoint, "next_round": round_ + 1})


def records_checkpoint(settings: Settings, round_: int) -> bool:
    """Whether a round has such a record."""
    return round_ % settings.checkpoint_interval == 0 or round_ == settings.total_rounds
