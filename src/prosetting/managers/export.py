"""A run's weights and data as folders that the Hub's own tools upload as they are.

    TO/model     the Solver after a round, its card, the run's settings and figures
    TO/dataset   the preference pairs and the questions of all rounds so far, and their card

Nothing of this machine goes with them: no key, no address, no path.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from prosetting.core.artifacts import make_folder, replace_atomically
from prosetting.core.journal import Journal
from prosetting.core.model_folder import is_hub_name
from prosetting.core.state_manager import CONCLUSION
from prosetting.core.workspace import Workspace
from prosetting.datasets.data_saver import SIDES, save_pools
from prosetting.errors import ConfigError, ProSettingError
from prosetting.managers.binding import bound_to, fork_lines
from prosetting.managers.hub_cards import Story, dataset_card, model_card
from prosetting.managers.metrics import round_metrics
from prosetting.managers.round_gate import made_in
from prosetting.records import Checkpoint, Stage
from prosetting.trainers.checkpoints import SEAL

LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
PATTERNS = {"pairs": "{side}.parquet", "by_question": "{side}_by_question.parquet"}
_PATHS = ("solver_model_path", "reward_function")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: the folders, None for weights that nobody trained."""

    round: int
    model: Path | None
    dataset: Path


def export_run(
    workspace: Workspace, journal: Journal, to: Path, *, round_: int | None, licence: str, name: str
) -> Exported:
    """Write both folders below `to`, whole or not at all. `round_` None: the last round that is over.

    Raises ConfigError for a round that is not over, a licence that reads as none, or a folder that is in use.
    """
    if not LICENCE.fullmatch(licence):
        raise ConfigError(
            f"{licence!r} is no licence's identifier", next_step="give one as the Hub names them, such as apache-2.0"
        )
    over = journal.rounds_with(CONCLUSION)
    last = round_ if round_ is not None else max(over, default=0)
    if last not in over:
        raise ConfigError(
            f"round {last} of {workspace.root} is not over"
            if last
            else f"no round of {workspace.root} is over, so there is nothing to export",
            next_step=f"choose one of these: {', '.join(map(str, over))}" if over else "go on with it: prosetting run",
        )
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"{to} is there and not empty", next_step="give --to a new folder")
    return _Export(workspace, journal, last, licence, name).write(to)


class _Export:
    def __init__(self, workspace: Workspace, journal: Journal, last: int, licence: str, name: str) -> None:
        self._workspace, self._journal, self._last = workspace, journal, last
        found = (round_metrics(journal, workspace, r) for r in range(last + 1))
        self._story = Story(
            name=name,
            licence=licence,
            last_round=last,
            settings=_public(bound_to(journal, last) or {}),
            metrics=[each for each in found if each is not None],
            forks=fork_lines(journal),
        )

    def write(self, to: Path) -> Exported:
        partial = to.with_name(f".{to.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            checkpoint = self._checkpoint()
            if checkpoint is not None:
                self._model(partial / "model", checkpoint)
            self._dataset(partial / "dataset")
            if to.exists():
                to.rmdir()
            make_folder(to.parent)
            partial.rename(to)
        except OSError as error:
            raise ProSettingError(
                f"{to} cannot be written: {error.strerror or error}", next_step="give --to a folder with room for it"
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return Exported(self._last, to / "model" if checkpoint else None, to / "dataset")

    def _checkpoint(self) -> Checkpoint | None:
        """The trained weights that stand after the last round; None before any training."""
        made = made_in(self._journal, self._last)
        record = self._journal.stage(made, Stage.TRL_TRAINING) if made else None
        return Checkpoint(made, record.output["checkpoint"], trained=True) if record else None

    # The model

    def _model(self, folder: Path, checkpoint: Checkpoint) -> None:
        source = Path(checkpoint.path)
        if not source.is_dir():
            raise ConfigError(
                f"the weights of round {checkpoint.round} are gone: {source}",
                next_step="put the folder back, or give another --round",
            )
        make_folder(folder)
        for file in sorted(source.iterdir()):
            if file.is_file() and file.name not in (SEAL, "README.md"):
                shutil.copy2(file, folder / file.name)
        _write_text(folder / "README.md", model_card(self._story, checkpoint.round))
        self._facts(folder)

    def _facts(self, folder: Path) -> None:
        _write_text(folder / "prosetting_settings.json", json.dumps(self._story.settings, ensure_ascii=False, indent=1))
        lines = (json.dumps(asdict(each), ensure_ascii=False) for each in self._story.metrics)
        _write_text(folder / "prosetting_metrics.jsonl", "\n".join(lines))

    # The data

    def _dataset(self, folder: Path) -> None:
        rows: dict[tuple[str, str], int] = {}
        for kind, pattern in PATTERNS.items():
            for side in SIDES:
                for r in range(1, self._last + 1):
                    source = self._workspace.dataset_dir(r) / pattern.format(side=side)
                    if source.is_file() and (count := pq.read_metadata(source).num_rows):
                        rows[kind, side] = rows.get((kind, side), 0) + count
                        target = folder / "data" / kind / f"{side}-round_{r:02d}.parquet"
                        make_folder(target.parent)
                        shutil.copy2(source, target)
        rows["questions", "train"] = save_pools(
            folder / "data" / "questions" / "train-00000.parquet",
            ((r, entry) for r in range(1, self._last + 1) for entry in self._journal.pool(r)),
        )
        _write_text(folder / "README.md", dataset_card(self._story, rows))
        self._facts(folder)


def _public(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide what was computed, without the places of this machine."""
    public = dict(settings)
    for name in _PATHS:
        value = public.get(name)
        if isinstance(value, str) and not (name == "solver_model_path" and is_hub_name(value)):
            public[name] = value.rstrip("/").rpartition("/")[2]
    return public


def _write_text(file: Path, text: str) -> None:
    with replace_atomically(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
