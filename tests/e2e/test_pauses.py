"""What stops a run for a person to look, and what an unreliable teacher does to its results: nothing."""

from __future__ import annotations

import json

import pytest
from whole_runs import read

from prosetting.core.journal import Journal
from prosetting.errors import EXIT_DONE, EXIT_PAUSED
from prosetting.teachers.embedded_teacher import EmbeddedTeacher

ONE_ROUND = ("--total-rounds", "1", "--validation-data-file", "")
KEY = "sk-planted-3f9a1c77e2"


def grades_by(workspace, who: str) -> int:
    with Journal(workspace / "prosetting.db", read_only=True) as journal:
        return sum(grade.decided_by == who for _, grade in journal.graded_attempts("train", 1))


def results(workspace) -> dict[str, object]:
    """Everything that the run decided, without times."""
    found = {}
    for file in sorted((workspace / "data").glob("*.json")):
        content = read(file)
        content.pop("meta", None)
        found[file.name] = content
    return found


@pytest.fixture(scope="module")
def reliable(demo, tmp_path_factory):
    """One round with a teacher that does nothing wrong."""
    workspace = tmp_path_factory.mktemp("pauses") / "reliable"
    done = demo.run(workspace, *ONE_ROUND)
    assert done.returncode == EXIT_DONE, done.stderr[-2000:]
    return workspace


def test_a_spent_budget_pauses_the_run_and_a_larger_one_goes_on(demo, reliable, tmp_path):
    paused = demo.run(tmp_path, *ONE_ROUND, "--teacher-max-tokens-total", "1500")
    assert paused.returncode == EXIT_PAUSED, paused.stderr[-2000:]
    assert "TEACHER_MAX_TOKENS_TOTAL" in paused.stderr
    assert read(tmp_path / "training_state.json")["status"] == "paused"
    went_on = demo.run(tmp_path, *ONE_ROUND, "--teacher-max-tokens-total", "9000000")
    assert went_on.returncode == EXIT_DONE, went_on.stderr[-2000:]
    assert results(tmp_path) == results(reliable)


def test_a_gullible_judge_pauses_the_run_with_the_evidence_and_grades_nothing(demo, reliable, tmp_path):
    paused = demo.run(tmp_path, *ONE_ROUND, "--embedded-teacher-faults", "yes@1")
    assert paused.returncode == EXIT_PAUSED, paused.stderr[-2000:]
    assert "failed a canary" in paused.stderr
    assert grades_by(tmp_path, "teacher1") == 0
    assert demo.run(tmp_path, *ONE_ROUND).returncode == EXIT_DONE
    assert grades_by(tmp_path, "teacher1") == grades_by(reliable, "teacher1") > 0


def test_an_unreliable_teacher_changes_no_result(demo, reliable, tmp_path):
    unreachable, unreadable = "429@0.15,500@0.1,reset@0.1", "truncate@0.04,html@0.04,empty@0.04,wrong_schema@0.04"
    faults = f"{unreachable},{unreadable},wrong_count@0.04,duplicate@0.04"
    patient = ("--teacher-max-retries", "9", "--teacher-retry-delay", "0.01")
    done = demo.run(tmp_path, *ONE_ROUND, *patient, "--embedded-teacher-faults", faults)
    assert done.returncode == EXIT_DONE, done.stderr[-2000:]
    ours, theirs = results(tmp_path), results(reliable)
    rewards = "round_01_rewards.json"
    decided = [
        (row["verdict"], other["verdict"])
        for row, other in zip(ours[rewards]["rows"], theirs[rewards]["rows"], strict=True)
        if row["verdict"] != "unknown"
    ]
    assert all(verdict == other for verdict, other in decided)
    # An item may stay open after bounded tries; nearly all come through.
    assert len(decided) > 0.95 * len(theirs[rewards]["rows"])


def test_the_teachers_key_is_in_no_file_log_or_message_of_a_run(demo, tmp_path):
    with EmbeddedTeacher(port=0, log_file=tmp_path / "teacher.log", faults="500@0.2,html@0.1") as teacher:
        flags = ("--teacher-base-url", teacher.endpoint.base_url, "--teacher-api-key", KEY)
        done = demo.run(tmp_path / "run", *ONE_ROUND, *flags, "--teacher-retry-delay", "0.01")
        wrong = demo.run(tmp_path / "wrong", *ONE_ROUND, *flags, "--teacher-model-name", "another")
    assert done.returncode == EXIT_DONE, done.stderr[-2000:]
    assert wrong.returncode != EXIT_DONE
    said = done.stdout + done.stderr + wrong.stdout + wrong.stderr
    assert KEY not in said
    holding = [file for file in tmp_path.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]
    assert holding == []
    config = read(tmp_path / "run" / "training_config.json")
    assert json.dumps(config["settings"]["teacher_api_key"]) != json.dumps(KEY)
