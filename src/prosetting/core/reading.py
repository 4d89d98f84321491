"""A workspace as other programs find it: its journal, read-only, and what its run last wrote of itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prosetting.core.artifacts import read_json
from prosetting.core.journal import Journal
from prosetting.core.workspace import Workspace, WorkspaceLock, holder_of
from prosetting.errors import WorkspaceInUse


@contextmanager
def open_journal(workspace: Workspace) -> Iterator[Journal]:
    """The journal, read-only. Raises WorkspaceError where no run was started."""
    _finish_rollback(workspace)
    with Journal(workspace.journal, read_only=True) as journal:
        yield journal


def _finish_rollback(workspace: Workspace) -> None:
    """A run killed in the middle of a commit leaves one to be rolled back, which a reader must not do."""
    rollback = workspace.journal.with_name(workspace.journal.name + "-journal")
    if rollback.exists() and rollback.stat().st_size and holder_of(workspace) is None:
        with contextlib.suppress(WorkspaceInUse, OSError), WorkspaceLock(workspace):
            Journal(workspace.journal).close()


def state_of(workspace: Workspace) -> dict[str, Any]:
    """`training_state.json`, empty before the run has written it."""
    return read_json(workspace.state) if workspace.state.exists() else {}


def total_rounds_of(workspace: Workspace, journal: Journal) -> int:
    """TOTAL_ROUNDS of the latest run; before it wrote its state, the rounds that have a pool."""
    if total := state_of(workspace).get("total_rounds"):
        return int(total)
    round_ = 1
    while journal.pool_counts(round_ + 1):
        round_ += 1
    return round_
