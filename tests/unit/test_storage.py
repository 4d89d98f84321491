import errno
import sqlite3
from pathlib import Path

import pytest

from prosetting.core.storage import check_room, journal_damaged, mount_point, pause_for, writes_pause
from prosetting.errors import EXIT_PAUSED, RunPaused, WorkspaceError
from prosetting.managers.room import RESERVE_BYTES, bytes_needed
from prosetting.records import Stage


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES])
def test_a_refused_write_is_a_pause_that_names_file_place_and_free_room(tmp_path, number):
    pause = pause_for(OSError(number, "no", str(tmp_path / "data" / "a.json")), tmp_path)
    assert pause is not None
    assert pause.exit_code == EXIT_PAUSED
    assert f"{tmp_path / 'data' / 'a.json'}" in pause.what
    assert f"file system {mount_point(tmp_path)}" in pause.what
    assert "free there" in pause.what
    assert "the same command goes on" in pause.next_step


@pytest.mark.parametrize(
    "words", ["database or disk is full", "disk I/O error", "attempt to write a readonly database"]
)
def test_what_sqlite_says_of_a_disk_is_a_pause_too(tmp_path, words):
    assert pause_for(sqlite3.OperationalError(words), tmp_path) is not None


def test_a_full_database_is_known_by_its_error_code(tmp_path):
    db = sqlite3.connect(tmp_path / "a.db")
    db.execute("CREATE TABLE t (x)")
    db.execute("PRAGMA max_page_count = 3")
    with pytest.raises(RunPaused, match="full"), writes_pause(tmp_path):
        db.executemany("INSERT INTO t VALUES (?)", [("x" * 3000,)] * 10)


@pytest.mark.parametrize("error", [ConnectionRefusedError(), ValueError(), sqlite3.OperationalError("no such table")])
def test_other_errors_are_none(tmp_path, error):
    assert pause_for(error, tmp_path) is None


def test_an_error_within_a_program_is_left_alone(tmp_path):
    with pytest.raises(ConnectionRefusedError), writes_pause(tmp_path):
        raise ConnectionRefusedError


def test_a_damaged_journal_is_named_and_not_begun_anew(tmp_path):
    (tmp_path / "prosetting.db").write_bytes(b"x" * 5000)
    with pytest.raises(WorkspaceError, match=r"prosetting\.db cannot be read") as caught, writes_pause(tmp_path):
        sqlite3.connect(tmp_path / "prosetting.db").execute("SELECT * FROM t")
    assert "restore it from a copy" in caught.value.next_step
    assert (tmp_path / "prosetting.db").read_bytes() == b"x" * 5000
    assert str(Path("a.db")) in journal_damaged(Path("a.db"), ValueError()).what


def test_room_is_checked_and_both_figures_are_named(tmp_path):
    check_room(tmp_path, 1, "a byte")
    with pytest.raises(RunPaused, match="the model needs about") as caught:
        check_room(tmp_path / "not" / "there" / "yet", 2**50, "the model")
    assert "1,048,576.0 GiB" in caught.value.what
    assert "free" in caught.value.what


def test_a_stage_needs_what_it_writes():
    load = {"questions": 100, "attempts": 800, "attempt_bytes": 1000, "training_bytes": 5 * 10**9}
    needed = {stage: bytes_needed(stage, **load) - RESERVE_BYTES for stage in Stage}
    assert needed[Stage.DATA_COLLECTION] == 1_600_000
    assert needed[Stage.TRL_TRAINING] == 5 * 10**9
    assert all(needed.values())
