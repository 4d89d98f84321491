"""A fork of a real run, through the command line: what is over is kept, what follows follows from it."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from whole_runs import Demo, clean_env, read

FORK = ("-m", "prosetting", "fork")


def fork(demo: Demo, source: Path, target: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = demo.command(source, "--to", str(target), *flags, launcher=FORK)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=clean_env())


def same_round(one: Path, other: Path, round_: int) -> list[str]:
    """The files of a round that differ, apart from `meta`."""
    different = []
    names = {path.name for root in (one, other) for path in (root / "data").glob(f"round_{round_:02d}_*.json")}
    assert len(names) == 7
    for name in sorted(names):
        contents = [read(root / "data" / name) for root in (one, other)]
        for content in contents:
            content.pop("meta")
        if contents[0] != contents[1]:
            different.append(name)
    for side in ("train", "validation"):
        part = Path("datasets") / f"round_{round_:02d}" / f"{side}.parquet"
        if not pq.read_table(one / part).equals(pq.read_table(other / part)):
            different.append(part.name)
    return different


def calls(workspace: Path) -> dict[str, int]:
    """HTTP calls of each request to a teacher."""
    db = sqlite3.connect(f"file:{workspace / 'prosetting.db'}?mode=ro", uri=True)
    try:
        return dict(db.execute("SELECT request_hash, attempts FROM teacher_calls"))
    finally:
        db.close()


@pytest.fixture(scope="module")
def unchanged(demo, finished, tmp_path_factory) -> Path:
    """A fork at round 2 without any change, run to the end."""
    target = tmp_path_factory.mktemp("fork") / "run"
    made = fork(demo, finished, target, "--from-round", "2")
    assert made.returncode == 0, made.stderr
    assert f"prosetting run --env-file {demo.folder / '.env'} --workspace-dir {target}" in made.stdout
    done = demo.run(target)
    assert done.returncode == 0, done.stderr[-3000:]
    return target


def test_a_fork_without_changes_ends_as_the_run_it_was_made_from(unchanged, finished):
    assert {r: same_round(unchanged, finished, r) for r in range(1, 6)} == {r: [] for r in range(1, 6)}
    weights = Path("checkpoints") / "merged_solver_r5" / "model.safetensors"
    assert (unchanged / weights).read_bytes() == (finished / weights).read_bytes()


def test_a_fork_buys_no_reply_that_is_there(unchanged, finished):
    assert calls(unchanged) == calls(finished)


def test_a_fork_with_a_change_keeps_what_is_over_and_goes_on_otherwise(demo, finished, tmp_path):
    target, changed = tmp_path / "run", ("--attempts-per-question", "4")
    made = fork(demo, finished, target, "--from-round", "2", *changed)
    assert made.returncode == 0, made.stderr
    assert "attempts_per_question: 8 → 4" in made.stdout
    rounds = ("--total-rounds", "3")
    done = demo.run(target, *changed, *rounds)
    assert done.returncode == 0, done.stderr[-3000:]
    # Round 3 measured the questions of round 2 anew, with half of the attempts.
    assert [same_round(target, finished, r) for r in (1, 2)] == [[], ["round_02_generator_training.json"]]
    drawn = read(target / "data" / "round_03_trajectories.json")["rows"]
    assert {row["attempt"] for row in drawn} == {0, 1, 2, 3}
    before, after = calls(finished), calls(target)
    assert {request: after[request] for request in before} == before
    assert f"Forked from {finished} at round 2; changed: ATTEMPTS_PER_QUESTION 8 → 4" in " ".join(done.stdout.split())


def test_a_round_that_is_not_over_cannot_be_forked(demo, finished, tmp_path):
    refused = fork(demo, finished, tmp_path / "run", "--from-round", "6")
    assert refused.returncode == 2
    assert "is not over: done are 1, 2, 3, 4, 5" in refused.stderr
    assert not (tmp_path / "run").exists()
