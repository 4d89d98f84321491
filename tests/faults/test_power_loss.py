"""The power goes between any two writes, syncs and renames: every file is old, new or absent, and the run goes on."""

from __future__ import annotations

import functools
import random
import re
import shutil
from pathlib import Path

import pytest
from power_loss import Recorded, record, recorded, states, write_state
from toy_runs import ROUNDS, baseline, messages, new_folder

from prosetting.core import artifacts
from prosetting.errors import EXIT_DONE
from prosetting.managers.run_content import content_of, differences_in
from prosetting.managers.selfcheck import run_session

DRAWS = [("none", 0), ("all", 0), ("drawn", 1), ("drawn", 1000)]
SAMPLE = 12
TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


@functools.cache
def root() -> Path:
    """Where the recorded run stands, and all that go on from what it left: paths are written into its files."""
    folder = new_folder() / "disk"
    folder.mkdir()
    return folder


def run_recorded(*, syncing: bool) -> Recorded:
    log = new_folder() / "events"

    def before() -> None:
        if not syncing:
            artifacts._sync = lambda path: None
        record(root() / "run", log)

    status = run_session(baseline().inputs, root() / "run", {}, rounds=ROUNDS, before=before)
    assert status == EXIT_DONE, messages(root() / "run")
    shutil.rmtree(root())
    root().mkdir()
    return recorded(log)


@functools.cache
def run_in_peace() -> Recorded:
    return run_recorded(syncing=True)


def torn(found: Recorded) -> list[str]:
    """Files that stand under their own name with a content that nobody ever gave them whole."""
    whole: dict[str, set[bytes]] = {}
    for what, path, other, content in found.events:
        if content is not None:
            whole.setdefault(other if what == "rename" else path, set()).add(content)
    bad = []
    for number, state in states(found, root(), DRAWS):
        for path, content in state.items():
            in_the_making = TEMPORARY.fullmatch(path.name) or path.parent.name.endswith(".partial")
            if not in_the_making and content not in whole.get(str(root() / path), whole.get(_beside(path), set())):
                bad.append(f"after event {number}: {path}")
    return bad


def _beside(path: Path) -> str:
    """A model's file before its folder got its name."""
    return str(root() / path.parent.with_name(f"{path.parent.name}.partial") / path.name)


def lost_when_resumed(found: Recorded, number: int, state: dict[Path, bytes]) -> list[str]:
    workspace = root() / "run"
    shutil.rmtree(root())
    root().mkdir()
    write_state(root(), state, found.journals[number], workspace)
    status = run_session(baseline().inputs, workspace, {}, rounds=ROUNDS)
    assert status == EXIT_DONE, f"after event {number}:\n{messages(workspace)}"
    return list(differences_in(baseline().content, content_of(workspace)))


def test_every_file_is_old_new_or_absent():
    found = run_in_peace()
    assert len(found.events) > 200
    assert torn(found) == []


def test_a_writer_that_does_not_sync_is_noticed():
    assert torn(run_recorded(syncing=False)) != []


def test_the_run_goes_on_from_what_is_left():
    found = run_in_peace()
    left = list(states(found, root(), DRAWS))
    for number, state in random.Random(1).sample(left, SAMPLE):
        assert lost_when_resumed(found, number, state) == [], f"after event {number}"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_run_goes_on_from_every_state():
    found = run_in_peace()
    for number, state in states(found, root(), DRAWS):
        assert lost_when_resumed(found, number, state) == [], f"after event {number}"
