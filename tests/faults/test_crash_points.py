"""kill -9 at every named point, and again while the run resumes: it ends as one that was left in peace."""

from __future__ import annotations

import errno
import json
import random
from collections import Counter
from contextlib import suppress
from dataclasses import replace

import pytest
from toy_runs import JOBS, baseline, new_folder

from prosetting.cli.main import main
from prosetting.core import crash_points
from prosetting.core.journal import Journal
from prosetting.errors import EXIT_DONE
from prosetting.managers.run_content import differences_in
from prosetting.managers.selfcheck import (
    Baseline,
    Case,
    full_cases,
    run_case,
    run_cases,
    timed_cases,
)

# What users and tests name. Others come and go with the files of a run.
NAMES = {
    "workspace:made",
    "lock:taken",
    "lock:written",
    "child:to_start:prosetting.teachers.embedded_teacher",
    "child:started:prosetting.teachers.embedded_teacher",
    "teacher:answered",
    "solver:sampled",
    "trainer:begun",
    "folder:synced:merged_solver_rN.partial",
    *(f"folder:{done}:merged_solver_rN" for done in ("made", "renamed", "settled")),
    *(
        f"artifact:{done}:{name}"
        for done in ("begun", "written", "synced", "renamed", "settled")
        for name in (
            *("training_state.json", "train.parquet", "round_N_rewards.json", "auto_training_summary.json"),
            *("eval.json", "eval.questions.jsonl"),
        )
    ),
    *(
        f"journal:{when}_commit:{table}"
        for when in ("before", "after")
        for table in ("schema", "pools", "trajectories", "grades", "teacher_calls", "enhancements", "stages")
    ),
    *(
        f"stage:{done}:{stage}"
        for done in ("begun", "worked", "marked")
        for stage in (
            *("data_collection", "data_grading", "dpo_conversion", "trl_training", "next_round_prep"),
            *("evaluation", "round_gate", "eval_files"),
        )
    ),
}


@pytest.fixture
def seed() -> int:
    """Another one each time, told when a test fails; not in the tests' names, which all processes must agree on."""
    drawn = random.randrange(10**6)
    print(f"seed {drawn}")
    return drawn


def test_the_points_have_these_names():
    assert NAMES - set(baseline().points) == set()


def test_the_run_that_is_killed_rolls_a_training_back_and_is_scored_at_its_end():
    summary = json.loads(baseline().content["auto_training_summary.json"])
    assert [r["gate"]["action"] for r in summary["rounds"]] == ["rolled_back", "passed"]
    assert [file["task"] for file in summary["eval_files"]] == ["reported"]
    assert {"results/eval.json", "results/eval.questions.jsonl"} <= baseline().content.keys()
    trainings = [json.loads(baseline().content[f"training_results/trl_r{r}_result.json"]) for r in (1, 2)]
    assert [training["rounds_used"] for training in trainings] == [[1], [2]]
    made_of = json.loads(baseline().content["checkpoints/merged_solver_r2/config.json"])
    assert made_of["trainings"] == 1, "the second training began with the weights before the first"


def test_the_certificate_every_point_is_survived_also_while_resuming(seed, capfd):
    folder = new_folder()
    command = ["selfcheck", "--crash", "--quick", "--json", "--workspace-dir", str(folder), "--seed", str(seed)]
    code = main(command)
    certificate = json.loads(capfd.readouterr().out)
    lost = [outcome for outcome in certificate["outcomes"] if outcome["outcome"] != "survived"]
    assert lost == [], f"seed {seed}"
    assert code == EXIT_DONE
    assert certificate["points"] == certificate["survived"] == len(certificate["outcomes"])
    assert {f"{name}#1" for name in NAMES} <= {outcome["name"] for outcome in certificate["outcomes"]}
    assert list(folder.iterdir()) == []


def test_kills_at_any_time_are_survived(seed):
    results = run_cases(baseline(), timed_cases(baseline(), 10, seed), new_folder(), JOBS)
    assert [result for result in results if result.differences] == [], f"seed {seed}"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_kills_at_any_time_are_survived_often(seed):
    results = run_cases(baseline(), timed_cases(baseline(), 100, seed), new_folder(), JOBS)
    assert [result for result in results if result.differences] == [], f"seed {seed}"


# Of about 430 cases; each session has its own deadline, so that a run that hangs is found long before this one.
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_point_is_survived_at_several_occurrences_with_a_second_kill(seed):
    results = list(run_cases(baseline(), full_cases(baseline(), seed), new_folder(), JOBS))
    assert [result for result in results if result.differences] == [], f"seed {seed}"
    reached = Counter(bool(result.killed_at) for result in results)
    assert reached[True] > 0.95 * len(results)


# The points themselves


def test_a_fault_comes_once_or_for_good(monkeypatch):
    def faults(order: str) -> list[bool]:
        monkeypatch.setenv(crash_points.FAIL_AT, order)
        crash_points.arm()
        return [fails("a:written"), fails("b:written"), fails("a:written"), fails("a:written")]

    assert faults("a:written#2:EIO") == [False, False, True, False]
    assert faults("a:written#2+:EIO") == [False, False, True, True]
    monkeypatch.delenv(crash_points.FAIL_AT)
    crash_points.arm()
    assert not fails("a:written")


def fails(name: str) -> bool:
    try:
        crash_points.reached(name)
    except OSError as error:
        return error.errno == errno.EIO
    return False


def test_commits_are_named_by_the_tables_that_they_write(tmp_path, monkeypatch):
    monkeypatch.setenv(crash_points.CRASH_LOG, str(tmp_path / "log"))
    crash_points.arm()
    try:
        with Journal(tmp_path / "a.db") as journal:
            (tmp_path / "log").unlink()
            with suppress(ValueError), journal.transaction():
                journal.set_fact("a", 1)
                raise ValueError
            journal.set_pool(1, [])
            journal.set_fact("a", 2)
    finally:
        monkeypatch.delenv(crash_points.CRASH_LOG)
        crash_points.arm()
    commits = [["pools", "questions"], ["facts"]]
    assert (tmp_path / "log").read_text().split() == [
        f"journal:{when}_commit:{table}" for tables in commits for when in ("before", "after") for table in tables
    ]


# The certificate itself


def test_a_run_left_in_peace_equals_another_and_buys_nothing_twice():
    result = run_case(baseline(), Case(()), new_folder() / "case")
    assert (result.killed_at, result.differences) == ((), ())


def test_a_lost_row_and_a_lost_file_are_noticed():
    found = baseline()
    attempts = found.content["journal:trajectories"]
    tampered = {**found.content, "journal:trajectories": [*attempts, "one more"], "gone.json": b""}
    differences = differences_in(tampered, found.content)
    assert list(differences) == ["gone.json is missing", "journal:trajectories differs"]


def test_a_run_that_cannot_be_resumed_is_lost():
    broken: Baseline = replace(baseline(), inputs=new_folder())
    result = run_case(broken, Case(("stage:worked:data_grading#1",)), new_folder() / "case")
    assert any("ended with 2" in difference for difference in result.differences)
