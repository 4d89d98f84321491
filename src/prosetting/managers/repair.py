"""Files of a run that are damaged or missing: set aside, and written again from the journal.

Every file but the journal is written from the journal and is never read back to go on. The journal itself is
never begun anew beside the files of a run that it belongs to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prosetting.core.artifacts import write_json
from prosetting.core.state_manager import CONCLUSION, GENERATOR_TRAINING
from prosetting.core.workspace import Workspace
from prosetting.datasets.data_saver import PAIR_FILES
from prosetting.errors import WorkspaceError
from prosetting.managers.conclusion import conclude, records_checkpoint
from prosetting.managers.preference_data import convert, convert_for_verl
from prosetting.managers.round_files import RoundFiles
from prosetting.managers.run_so_far import RunSoFar
from prosetting.records import Stage

WHOLLY_READ_BYTES = 2**20
"""Larger files are looked at at both ends only: a resume must not read a run's gigabytes."""
EDGE_BYTES = 64


def check_journal_is_there(workspace: Workspace) -> None:
    """Raises WorkspaceError where files of a run stand without the journal that they were written from."""
    journal = workspace.journal
    if journal.exists() and journal.stat().st_size:
        return
    if workspace.config.exists() or workspace.state.exists() or any((workspace.root / "data").glob("round_*.json")):
        raise WorkspaceError(
            f"the journal {journal} is {'empty' if journal.exists() else 'gone'}, but {workspace.root} holds"
            " the files of a run. Nothing was changed",
            next_step="restore it from a copy, or set another WORKSPACE_DIR to start anew",
        )


def set_damaged_aside(workspace: Workspace) -> list[Path]:
    """Quarantine every damaged JSON and parquet file; where they stood."""
    damaged = [(path, why) for path in _files(workspace) if (why := damage_of(path))]
    for path, why in damaged:
        workspace.quarantine(path, why)
    return [path for path, _ in damaged]


def damage_of(path: Path) -> str:
    """What is wrong with a JSON artefact or a parquet file, empty when nothing is seen to be."""
    try:
        large = path.stat().st_size > WHOLLY_READ_BYTES
        if path.suffix == ".parquet":
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                if not large:
                    file.read()
        elif large:
            return _damage_at_the_ends(path)
        elif "schema_version" not in json.loads(path.read_bytes()):
            return "it is no artefact of a run"
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    return ""


def _damage_at_the_ends(path: Path) -> str:
    with path.open("rb") as stream:
        head = stream.read(EDGE_BYTES)
        stream.seek(-EDGE_BYTES, 2)
        tail = stream.read()
    whole = head.startswith(b'{\n "schema_version": ') and tail.endswith(b"}\n}")
    return "" if whole else "its beginning or its end is not that of a whole file"


def _files(workspace: Workspace) -> Iterator[Path]:
    for pattern in (
        "*.json",
        "data/*.json",
        "training_results/*.json",
        "datasets/round_*/*.json",
        "datasets/round_*/*.parquet",
        "training_data/*.parquet",
    ):
        yield from sorted(workspace.root.glob(pattern))


def write_missing(run: RunSoFar) -> list[Path]:
    """Write every file again that the stages done so far have written and that is not there; which these were."""
    missing: list[Path] = []
    for round_ in range(run.journal.rounds_begun() + 1):
        done = run.journal.stages_done(round_)
        if done and _stages_told(run.workspace.progress(round_)) != set(done):
            run.state.write_progress(round_)
        writers = _writers(run, round_, set(done))
        lost = [path for path in writers if not path.exists()]
        for write in dict.fromkeys(writers[path] for path in lost):
            write()
        missing += lost
    return missing


def _stages_told(progress: Path) -> set[str]:
    return set(json.loads(progress.read_bytes())["stages"]) if progress.exists() else set()


def _writers(run: RunSoFar, round_: int, done: set[str]) -> dict[Path, Callable[[], Any]]:
    """Each file that the finished stages of a round have written, and what writes it."""

    workspace, journal = run.workspace, run.journal
    files = RoundFiles(workspace, journal)

    def data_of_training() -> None:
        if name:
            convert_for_verl(workspace, journal, round_, run.settings, name)
        else:
            convert(workspace, journal, round_, run.settings)

    def conclusion() -> None:
        conclude(run, round_)

    def training_result() -> None:
        tell(Stage.TRL_TRAINING, workspace.training_result(round_))

    def generator_result() -> None:
        tell(GENERATOR_TRAINING, workspace.generator_result(round_))

    def tell(stage: str, path: Path) -> None:
        record = journal.stage(round_, stage)
        assert record is not None
        write_json(path, {"round": round_, **record.output})

    converted = journal.stage(round_, Stage.DPO_CONVERSION)
    name = str(converted.output.get("training_data", "")) if converted else ""
    folder, data = workspace.dataset_dir(round_), workspace.round_data
    pair_files = [folder / name for name in (*PAIR_FILES, "dataset_info.json")]
    training_files = [workspace.training_data(f"{name}.{kind}") for kind in ("json", "parquet")]
    by_stage: dict[str, dict[Path, Callable[[], Any]]] = {
        Stage.DATA_COLLECTION: {
            data(round_, "questions"): lambda: files.questions(round_),
            data(round_, "trajectories"): lambda: files.trajectories(round_),
        },
        Stage.DATA_GRADING: {data(round_, "rewards"): lambda: files.rewards(round_)},
        Stage.DPO_CONVERSION: {
            **dict.fromkeys(training_files if name else pair_files, data_of_training),
            data(round_, "solver_training"): data_of_training,
        },
        Stage.TRL_TRAINING: {workspace.training_result(round_): training_result},
        GENERATOR_TRAINING: {workspace.generator_result(round_): generator_result},
        Stage.NEXT_ROUND_PREP: {
            data(round_, "enhanced_questions"): lambda: files.enhanced_questions(round_),
            data(round_, "generator_training"): lambda: files.generator_training(round_),
        },
        CONCLUSION: {data(round_, "results"): conclusion},
    }
    if records_checkpoint(run.settings, round_):
        by_stage[CONCLUSION][workspace.checkpoint_record(round_)] = conclusion
    return {path: write for stage in sorted(done) for path, write in by_stage.get(stage, {}).items()}
