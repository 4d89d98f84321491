"""What a workspace is tied to for life: its fixed settings, its question files, and the versions that judge.

A fork (`managers/fork.py`) goes on with other values; what its earlier rounds were made with stays on record here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosetting.config import Settings, env_name
from prosetting.core.artifacts import SCHEMA_VERSION, digest
from prosetting.core.journal import Journal
from prosetting.core.journal_file import refuse_other_version
from prosetting.core.state_manager import CONCLUSION, differences, two_ways_out
from prosetting.core.workspace import Workspace
from prosetting.errors import WorkspaceError
from prosetting.managers.question_files import QuestionFiles
from prosetting.processors.answer_verifier import VERIFIER_VERSION
from prosetting.processors.reward_function import fingerprint
from prosetting.records import PoolEntry, Question
from prosetting.teachers.prompts import PROMPT_VERSION

QUESTIONS = "questions_file (content)"
HELD_OUT = "validation_data_file (content)"
REPORTED = "eval_files (content)"
_BOUND, _FORKS = "fixed_settings", "forks"


@dataclass(frozen=True, slots=True)
class Fork:
    """Rounds up to `round` were copied from `workspace`. `changed`: name → (value of these rounds, value after)."""

    workspace: str
    round: int
    changed: dict[str, tuple[Any, Any]]


def check_versions(workspace: Workspace) -> None:
    """Raises WorkspaceError where another version wrote the workspace, before anything in it is touched."""
    refuse_other_version(workspace.journal)
    for path in (workspace.state, workspace.config, workspace.summary):
        found = _schema_version(path)
        if found not in (None, SCHEMA_VERSION):
            raise WorkspaceError(
                f"{path} is of schema version {found}, this program reads {SCHEMA_VERSION}",
                next_step="use the version that wrote it, or set another WORKSPACE_DIR",
            )


def _schema_version(path: Path) -> Any:
    """None for a file that is absent or damaged: that is for its reader to tell."""
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("schema_version")
    except (OSError, ValueError, AttributeError):
        return None


def bind(journal: Journal, settings: Settings, files: QuestionFiles) -> None:
    """Tie a new workspace to these values; refuse other ones later, saying which differ and what can be done."""
    values = bound_values(settings) | {QUESTIONS: content_of(files.pool), HELD_OUT: content_of(files.heldout)}
    # They decide which new questions may enter a pool.
    values |= {REPORTED: content_of(files.all_reported)} if files.reported else {}
    stored = journal.fact(_BOUND)
    if stored is None:
        with journal.transaction():
            journal.set_pool(1, [PoolEntry(question, "seed") for question in files.pool])
            journal.set_fact(_BOUND, values)
        return
    if changed := differences(_as_typed(stored), _as_typed(values)):
        last_done = max(journal.rounds_with(CONCLUSION), default=0)
        way_out = (
            two_ways_out(0, "only the first round reads QUESTIONS_FILE")
            if stored.get(QUESTIONS) != values[QUESTIONS]
            else two_ways_out(last_done, "the last one done; an earlier one is as good")
        )
        raise WorkspaceError(
            "\n    ".join([f"the workspace {settings.workspace_dir} was made with another configuration:", *changed]),
            next_step=way_out,
        )


def bound_values(settings: Settings) -> dict[str, Any]:
    """Fixed settings and versions, by name: all that is bound except the contents of the question files."""
    own_verifier = settings.reward_function
    return {
        **settings.fixed_values(),
        **({"reward_function (content)": fingerprint(own_verifier)} if own_verifier else {}),
        "verifier version": VERIFIER_VERSION,
        "prompt contract": PROMPT_VERSION,
    }


def content_of(questions: Sequence[Question]) -> str:
    return digest(sorted(question.question_id + str(question.reference) for question in questions))


def forks(journal: Journal) -> list[Fork]:
    """The forks that led to this workspace, earliest first."""
    found = journal.fact(_FORKS) or []
    return [
        Fork(one["workspace"], one["round"], {name: tuple(pair) for name, pair in one["changed"].items()})
        for one in found
    ]


def bind_fork(journal: Journal, values: Mapping[str, Any], lineage: Sequence[Fork]) -> None:
    """Tie a fork to its values and record what its copied rounds were made with."""
    journal.set_fact(_BOUND, dict(values))
    journal.set_fact(
        _FORKS, [{"workspace": fork.workspace, "round": fork.round, "changed": fork.changed} for fork in lineage]
    )


def bound_to(journal: Journal, round_: int | None = None) -> dict[str, Any] | None:
    """What the workspace is bound to; with a round, what that round was made with. None before the first start."""
    values = journal.fact(_BOUND)
    if values is None:
        return None
    for fork in reversed(forks(journal)):
        if round_ is not None and round_ <= fork.round:
            values |= {name: before for name, (before, _) in fork.changed.items()}
    return dict(values)


def fork_lines(journal: Journal) -> list[str]:
    """The forks for people to read: from where, at which round, and what changed."""
    lines = []
    for fork in forks(journal):
        changed = ", ".join(f"{_typed(name)} {old!r} → {new!r}" for name, (old, new) in sorted(fork.changed.items()))
        lines.append(f"{fork.workspace} at round {fork.round}; changed: {changed or 'nothing'}")
    return lines


def _as_typed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {_typed(name): value for name, value in values.items()}


def _typed(name: str) -> str:
    """The name of a setting as users write it; a version or a content has no other."""
    setting, _, rest = name.partition(" ")
    return f"{env_name(setting)} {rest}".strip() if setting in Settings.model_fields else name
