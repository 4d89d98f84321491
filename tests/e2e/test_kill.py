"""kill -9 in every stage: the run goes on and ends as one that was never killed."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from whole_runs import children_of, clean_env, read

KILLS = [
    (0, "evaluation"),
    (1, "data_collection"),
    (2, "data_grading"),
    (2, "dpo_conversion"),
    (3, "next_round_prep"),
    (5, "trl_training"),
]


def state(workspace: Path) -> tuple[int, str]:
    try:
        found = read(workspace / "training_state.json")
    except (OSError, ValueError):
        return (0, "")
    return found["current_round"], found["current_stage"]


def reached(workspace: Path, point: tuple[int, str]) -> bool:
    """At the point or past it: a short stage may be over before it is seen."""
    if state(workspace) == point:
        return True
    try:
        db = sqlite3.connect(f"file:{workspace / 'prosetting.db'}?mode=ro", uri=True)
        try:
            return bool(db.execute("SELECT 1 FROM stages WHERE round = ? AND stage = ?", point).fetchall())
        finally:
            db.close()
    except sqlite3.Error:
        return False


def kill_at(command: list[str], workspace: Path, point: tuple[int, str], log: Path) -> None:
    with log.open("a") as stream:
        run = subprocess.Popen(command, stdout=stream, stderr=stream, env=clean_env())
    try:
        deadline = time.monotonic() + 200
        while not reached(workspace, point):
            assert run.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, f"never came to {point}"
            time.sleep(0.02)
        if point[1] in ("trl_training", "data_collection"):
            time.sleep(2.5)  # into the stage, with a child at work
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()


@pytest.fixture(scope="module")
def survivor(demo, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    workspace = folder / "run"
    for point in KILLS:
        kill_at(demo.command(workspace), workspace, point, folder / "output.log")
    done = demo.run(workspace)
    assert done.returncode == 0, done.stderr[-3000:]
    return workspace


def content(path: Path) -> dict:
    found = read(path)
    found.pop("meta")
    return found


def test_the_killed_run_ends_with_all_rounds_done(survivor):
    summary = read(survivor / "auto_training_summary.json")
    assert (summary["final_status"], summary["rounds_done"]) == ("completed", 5)


def test_no_attempt_is_there_twice_and_none_is_missing(survivor):
    db = sqlite3.connect(survivor / "prosetting.db")
    drawn = db.execute("SELECT count(*) FROM trajectories WHERE split = 'train'").fetchone()[0]
    pooled = db.execute("SELECT count(*) FROM pools WHERE round <= 5").fetchone()[0]
    db.close()
    assert drawn == 8 * pooled


def test_it_equals_the_uninterrupted_run(survivor, finished):
    names = sorted(path.name for path in (finished / "data").iterdir())
    assert names == sorted(path.name for path in (survivor / "data").iterdir())
    different = [n for n in names if content(finished / "data" / n) != content(survivor / "data" / n)]
    assert different == []
    for round_, side in ((r, s) for r in range(1, 6) for s in ("train", "validation")):
        part = Path("datasets") / f"round_{round_:02d}" / f"{side}.parquet"
        assert pq.read_table(finished / part).equals(pq.read_table(survivor / part))


def test_the_children_of_a_killed_run_are_gone(survivor):
    time.sleep(2)  # they look for the run once a second
    assert children_of(survivor) == []
