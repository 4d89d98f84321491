"""A new workspace that goes on from a round of another one, with other settings where they were changed.

What is over stays as it was made; a changed setting holds from the next round on. Nothing of the source is touched,
and nothing of the fork depends on it later: checkpoints are hard links where the file system allows, else copies.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prosetting.collectors.data_normalizer import load_questions
from prosetting.config import Settings
from prosetting.core.artifacts import make_folder, read_json, write_json
from prosetting.core.journal import Journal
from prosetting.core.journal_copy import copy_rounds
from prosetting.core.journal_rows import Split
from prosetting.core.state_manager import CONCLUSION, EVAL_FILES, EVALUATION, GENERATOR_TRAINING, StateManager
from prosetting.core.storage import MIB, check_room
from prosetting.core.workspace import Workspace, WorkspaceLock
from prosetting.errors import ConfigError, DataError, WorkspaceError
from prosetting.managers.binding import HELD_OUT, QUESTIONS, REPORTED, Fork, bind_fork, bound_values, content_of, forks
from prosetting.managers.question_files import load_reported
from prosetting.managers.round_files import RoundFiles
from prosetting.managers.round_gate import made_in
from prosetting.managers.run_status import require_begun
from prosetting.managers.strategies import check_strategies
from prosetting.records import PoolEntry, Question, Stage
from prosetting.settings_sources import LoadedSettings
from prosetting.trainers.checkpoints import put_in_place, sync

Say = Callable[[str], None]
_ABSENT = "nothing"


@dataclass(frozen=True, slots=True)
class _Source:
    """A workspace and its journal, which is open for reading only."""

    workspace: Workspace
    journal: Journal


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a fork is bound to, how it came to be, and the first round's questions where they are others."""

    values: dict[str, Any]
    forks: list[Fork]
    questions: list[Question] | None
    model: str
    total_rounds: int

    @property
    def round(self) -> int:
        return self.forks[-1].round


def fork_workspace(
    workspace: Workspace,
    journal: Journal,
    target: Path,
    *,
    round_: int,
    loaded: LoadedSettings,
    total_rounds: int,
    say: Say,
) -> Fork:
    """Make `target` a workspace that holds all up to `round_` of `workspace`; 0: first questions and teacher replies.

    Settings that the user did not give are those of `workspace`. `target` appears whole or not at all.
    Raises WorkspaceError when the round is not over or `target` is in use, ConfigError or DataError for settings that
    cannot hold, RunPaused without room on the disk.
    """
    source = _Source(workspace, journal)
    plan = _plan(source, round_, loaded, total_rounds)
    _check_target(target)
    _check_weights(source, round_)
    check_room(target, _bytes_to_copy(source, target, round_), f"the fork in {target}")
    partial = _at(target.with_name(f".{target.name}.fork"))
    make_folder(partial.root)
    with WorkspaceLock(partial):
        try:
            _clear(partial)
            _build(source, partial, _at(target), plan, say)
            if target.exists():
                target.rmdir()  # fails if somebody put something there meanwhile
            _sync_tree(partial.root)
            put_in_place(partial.root, target)
        except BaseException:
            shutil.rmtree(partial.root, ignore_errors=True)
            raise
    return plan.forks[-1]


def _at(root: Path) -> Workspace:
    return Workspace(root, root / "logs")


# What it will be


def _plan(source: _Source, round_: int, loaded: LoadedSettings, total_rounds: int) -> _Plan:
    before = require_begun(source.journal)
    done = source.journal.rounds_with(CONCLUSION)
    if round_ and round_ not in done:
        raise WorkspaceError(
            f"round {round_} of {source.workspace.root} is not over: done are {', '.join(map(str, done)) or 'none'}",
            next_step=f"--from-round {max(done, default=0)}, or let the run finish round {round_}",
        )
    settings = _settings_of_fork(before, loaded)
    contents = {name: before[name] for name in (QUESTIONS, HELD_OUT, REPORTED) if name in before}
    questions = None
    if "questions_file" in loaded.explicit:
        questions = load_questions(settings.questions_file)
        contents[QUESTIONS] = content_of(questions)
        if round_ and contents[QUESTIONS] != before[QUESTIONS]:
            raise ConfigError(
                f"{settings.questions_file} holds other questions than the run began with, and only round 1 reads it",
                next_step="--from-round 0 starts with them; or give the old file",
            )
    if "validation_data_file" in loaded.explicit:
        heldout = load_questions(settings.validation_data_file) if settings.validation_data_file else []
        _refuse_played(source.journal, round_, heldout, "VALIDATION_DATA_FILE")
        contents[HELD_OUT] = content_of(heldout)
    if "eval_files" in loaded.explicit:
        reported = load_reported(settings)
        _refuse_played(source.journal, round_, reported, "EVAL_FILES")
        contents[REPORTED] = content_of(reported)
    values = bound_values(settings) | contents
    changed = {
        name: (before.get(name, _ABSENT), values.get(name, _ABSENT))
        for name in sorted(before.keys() | values.keys())
        if before.get(name, _ABSENT) != values.get(name, _ABSENT)
    }
    # An earlier fork from a later round than this one has nothing left here.
    lineage = [Fork(one.workspace, min(one.round, round_), one.changed) for one in forks(source.journal)]
    lineage.append(Fork(str(source.workspace.root), round_, changed))
    return _Plan(values, lineage, None if round_ else questions, settings.solver_model_path, total_rounds)


def _settings_of_fork(before: dict[str, Any], loaded: LoadedSettings) -> Settings:
    """What the user gave, and the source's values for the rest of what is fixed."""
    bound = before.keys() & Settings.model_fields.keys()
    kept = {name: before[name] for name in bound - loaded.explicit}
    try:
        settings = Settings.model_validate({**loaded.settings.model_dump(), **kept})
    except ValidationError as error:
        message = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise ConfigError(
            f"with the other settings of the workspace this cannot hold: {message}", next_step="change these together"
        ) from None
    check_strategies(settings)
    return settings


def _refuse_played(journal: Journal, round_: int, heldout: list[Question], setting: str) -> None:
    """A question that was played cannot be held out any more."""
    if shared := [question for question in heldout if journal.in_pools(question.question_id, round_ + 1)]:
        raise DataError(
            f"{len(shared)} of the held-out questions are in the pools of these rounds,"
            f" such as {shared[0].text[:80]!r}: scores on them would not be held out",
            next_step=f"take them out of {setting}, or fork from an earlier round",
        )


def _check_target(target: Path) -> None:
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise WorkspaceError(f"{target} exists and is not an empty folder", next_step="give another folder to --to")


def _check_weights(source: _Source, round_: int) -> None:
    made = made_in(source.journal, round_)
    if made and not (folder := source.workspace.model_dir(made)).is_dir():
        raise _weights_gone(round_, folder)
    records = {r: source.journal.stage(r, GENERATOR_TRAINING) for r in range(1, round_ + 1)}
    learned = [r for r, record in records.items() if record and record.output["trained"]]
    if learned and not (folder := source.workspace.generator_dir(learned[-1])).is_dir():
        raise _weights_gone(round_, folder)


def _weights_gone(round_: int, folder: Path) -> WorkspaceError:
    return WorkspaceError(
        f"the weights after round {round_} are not there any more: {folder}",
        next_step="put them back, or fork from another round",
    )


def _bytes_to_copy(source: _Source, target: Path, round_: int) -> int:
    """The journal, the JSON files and, where no hard link can be made, datasets and checkpoints."""
    files = [source.workspace.journal]
    parent = next(folder for folder in target.parents if folder.exists())
    linked = parent.stat().st_dev == source.workspace.root.stat().st_dev
    for r in range(1, round_ + 1):
        files += _data_files(source.workspace, r)
        if not linked:
            files += [file for folder in _folders(source.workspace, r) for file in folder.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) + MIB


# Making it


def _clear(partial: Workspace) -> None:
    """Away with what a fork that was killed left here."""
    for path in partial.root.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != partial.lock_file:
            path.unlink()


def _build(source: _Source, partial: Workspace, final: Workspace, plan: _Plan, say: Say) -> None:
    """All of it in `partial`; what names a path names it as it will be in `final`."""
    partial.create()
    Journal(partial.journal).close()
    copy_rounds(source.workspace.journal, partial.journal, plan.round, without=_scored_anew(plan))
    with Journal(partial.journal) as journal:
        with journal.transaction():
            bind_fork(journal, plan.values, plan.forks)
            if plan.questions is not None:
                journal.set_pool(1, [PoolEntry(question, "seed") for question in plan.questions])
        state = StateManager(partial, journal, plan.total_rounds)
        state.current = (plan.round + 1, Stage.DATA_COLLECTION)
        for r, checkpoint in _checkpoints(journal, final, plan):
            journal.set_stage_output(r, Stage.TRL_TRAINING, {**_training(journal, r), "checkpoint": checkpoint})
            _place_files(source.workspace, partial, r, say)
            _place_json(source.workspace.training_result(r), partial.training_result(r), checkpoint=checkpoint)
            _place_json(source.workspace.generator_result(r), partial.generator_result(r))
            _place_json(source.workspace.checkpoint_record(r), partial.checkpoint_record(r), path=checkpoint)
        for r in range(plan.round + 1):
            if journal.stages_done(r):
                state.write_progress(r)
        if plan.round:
            # The round after has measured its questions and told so there.
            RoundFiles(partial, journal).generator_training(plan.round)
        state.write_state("stopped")


def _scored_anew(plan: _Plan) -> dict[Split, str]:
    """Scores on other questions than the fork's are not copied: they would stand in one curve with its own."""
    kinds: dict[str, tuple[Split, str]] = {HELD_OUT: ("heldout", EVALUATION), REPORTED: ("reported", EVAL_FILES)}
    return dict(kinds[name] for name in kinds if name in plan.forks[-1].changed)


def _checkpoints(journal: Journal, final: Workspace, plan: _Plan) -> Iterator[tuple[int, str]]:
    """Each copied round and where the weights of its training will stand, or those that it carried over."""
    for r in range(1, plan.round + 1):
        made = r if _training(journal, r)["trained"] else made_in(journal, r)
        yield r, str(final.model_dir(made)) if made else plan.model


def _training(journal: Journal, round_: int) -> dict[str, Any]:
    record = journal.stage(round_, Stage.TRL_TRAINING)
    assert record is not None, f"round {round_} is over without training"
    return record.output


def _data_files(workspace: Workspace, round_: int) -> list[Path]:
    pattern = workspace.round_data(round_, "*")
    return sorted(pattern.parent.glob(pattern.name))


def _folders(workspace: Workspace, round_: int) -> list[Path]:
    folders = (workspace.dataset_dir(round_), workspace.model_dir(round_), workspace.generator_dir(round_))
    return [folder for folder in folders if folder.is_dir()]


def _place_files(source: Workspace, partial: Workspace, round_: int, say: Say) -> None:
    for file in (*_data_files(source, round_), *source.training_data("").glob(f"solver_r{round_}_*")):
        shutil.copy2(file, partial.root / file.relative_to(source.root))
    for folder in _folders(source, round_):
        copied = _link_or_copy(folder, partial.root / folder.relative_to(source.root))
        if copied:
            say(f"{folder.name}: {copied / MIB:,.1f} MiB copied")


def _link_or_copy(folder: Path, target: Path) -> int:
    """The same files under another folder; how many bytes had to be copied for it."""
    copied = 0
    for file in sorted(folder.rglob("*")):
        place = target / file.relative_to(folder)
        if file.is_dir():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            os.link(file.resolve(), place)
            continue
        shutil.copy2(file, place)
        copied += place.stat().st_size
    return copied


def _sync_tree(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        sync(path)


def _place_json(file: Path, place: Path, **changed: str) -> None:
    """A JSON file with another path in it. One that is not there stays away."""
    if file.exists():
        content = read_json(file)
        meta = content.pop("meta")
        del content["schema_version"]
        write_json(place, content | changed, **meta)
