"""One uninterrupted run of five rounds: what it leaves is whole, consistent and as documented."""

from __future__ import annotations

import json
import math
import re
import shutil
import sqlite3
import subprocess
import sys
from itertools import product
from pathlib import Path

import jsonschema
import pyarrow.parquet as pq
import pytest
from whole_runs import OVERRIDES, children_of, clean_env, read

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "contract"))

from documented_commands import blocks, shown_and_not_there  # noqa: E402

ROUNDS = range(1, 6)
ROW_KEYS = {
    "questions": {"question_id", "text", "reference", "solution", "kind", "parent_id", "reason"},
    "trajectories": {"round", "question_id", "attempt", "response", "finish_reason", "completion_tokens"},
    "rewards": {"question_id", "attempt", "response", "verdict", "decided_by", "reward", "diagnosis"},
    "solver_training": {
        "question_id",
        "question",
        "pass_rate",
        "correct_attempts",
        "incorrect_attempts",
    },
    "enhanced_questions": {"question_id", "text", "reference", "solution", "kind", "parent_id"},
    "generator_training": {
        "question_id",
        "parent_id",
        "parent_question",
        "parent_pass_rate",
        "attempt",
        "attempt_verdict",
        "analysis",
        "kind",
        "source",
        "new_question",
        "reference",
        "solution",
        "pass_rate",
        "utility",
        "prompt",
        "completion",
    },
}
HELDOUT = {
    "type": "object",
    "required": ["pass_at_1", "pass_at_1_ci", "pass_at_k", "greedy", "questions", "samples"],
    "properties": {"pass_at_1_ci": {"type": "array", "minItems": 2, "maxItems": 2}},
}
SUMMARY = {
    "type": "object",
    "required": ["schema_version", "final_status", "duration_seconds", "rounds", "base", "errors", "seed", "meta"],
    "properties": {
        "final_status": {"enum": ["completed"]},
        "rounds": {
            "minItems": 5,
            "maxItems": 5,
            "items": {
                "required": [
                    "round",
                    "trained",
                    "reason",
                    "pairs",
                    "questions",
                    "average_reward",
                    "decided_by",
                    "heldout",
                ],
                "properties": {"heldout": HELDOUT, "trained": {"type": "boolean"}},
            },
        },
    },
}


def numbers_of(text: str) -> tuple[str, ...]:
    return tuple(re.findall("[0-9]+", text))


def rows(workspace: Path, query: str) -> list[tuple]:
    db = sqlite3.connect(f"file:{workspace / 'prosetting.db'}?mode=ro", uri=True)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def test_the_summary_matches_its_schema(finished):
    jsonschema.validate(read(finished / "auto_training_summary.json"), SUMMARY)


def test_training_is_skipped_until_its_first_round_and_happens_then(finished):
    summary = read(finished / "auto_training_summary.json")
    assert [r["trained"] for r in summary["rounds"]] == [False, False, False, False, True]
    assert "gathering data" in summary["rounds"][0]["reason"]
    assert "rounds 1, 2, 3, 4, 5" in summary["rounds"][4]["reason"]


def test_every_file_of_a_round_is_there_and_has_the_documented_rows(finished):
    for round_, (what, keys) in product(ROUNDS, ROW_KEYS.items()):
        found = read(finished / "data" / f"round_{round_:02d}_{what}.json")
        assert (found["schema_version"], found["round"]) == (1, round_)
        assert all(set(row) == keys for row in found["rows"]), what
    for round_ in ROUNDS:
        assert read(finished / "data" / f"round_{round_:02d}_results.json")["round"] == round_
        assert read(finished / f"round_{round_:02d}_progress.json")["open_stages"] == []
        assert read(finished / f"checkpoint_round_{round_}.json")["round"] == round_
        assert read(finished / "training_results" / f"trl_r{round_}_result.json")["round"] == round_
        assert read(finished / "datasets" / f"round_{round_:02d}" / "dataset_info.json")["round"] == round_
    assert read(finished / "training_state.json")["status"] == "completed"
    assert read(finished / "training_config.json")["settings"]["total_rounds"] == 5


def test_the_checkpoint_is_a_plain_model_folder_and_differs_from_the_base(finished, demo):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = finished / "checkpoints" / "merged_solver_r5"
    trained, base = (AutoModelForCausalLM.from_pretrained(path) for path in (folder, demo.folder / "solver"))
    AutoTokenizer.from_pretrained(folder)
    changed = [not (a == b).all() for a, b in zip(trained.parameters(), base.parameters(), strict=True)]
    assert any(changed)


def test_pairs_in_the_parquet_are_those_recomputed_from_the_journal(finished):
    """Recomputed here from the tables alone, by the documented rule; the cap of the demo settings is 4."""
    from prosetting.core.artifacts import draw_seed

    for round_ in ROUNDS:
        folder = finished / "datasets" / f"round_{round_:02d}"
        written = [
            (row["question_id"], row["chosen"], row["rejected"], row["prompt"])
            for side in ("train", "validation")
            for row in pq.read_table(folder / f"{side}.parquet").to_pylist()
        ]
        attempts = rows(
            finished,
            "SELECT question_id, q.text, attempt, response, verdict FROM trajectories"
            " JOIN grades USING (split, round, question_id, attempt) JOIN questions q USING (question_id)"
            f" WHERE split = 'train' AND round = {round_} ORDER BY question_id, attempt",
        )
        expected = set()
        for question_id, prompt in {(a[0], a[1]) for a in attempts}:
            texts: dict[str, tuple[int, set[str]]] = {}
            for q, _, attempt, response, verdict in attempts:
                if q == question_id and verdict != "unknown":
                    texts.setdefault(response, (attempt, set()))[1].add(verdict)
            good = [(t, n) for t, (n, verdicts) in texts.items() if verdicts == {"correct"}]
            bad = [(t, n) for t, (n, verdicts) in texts.items() if verdicts == {"incorrect"}]
            pairs = sorted(
                product(good, bad), key=lambda p: draw_seed(5, "pair", round_, question_id, p[0][1], p[1][1])
            )
            expected |= {(question_id, g[0], b[0], prompt) for g, b in pairs[:4]}
        assert len(written) == len(set(written))
        assert set(written) == expected
    assert sum(r["pairs"] for r in read(finished / "auto_training_summary.json")["rounds"]) > 0


def test_a_question_stays_on_its_side_of_the_split_in_every_round(finished):
    sides: dict[str, set[str]] = {"train": set(), "validation": set()}
    for round_, side in product(ROUNDS, sides):
        table = pq.read_table(finished / "datasets" / f"round_{round_:02d}" / f"{side}.parquet")
        sides[side] |= set(table.column("question_id").to_pylist())
    assert not sides["train"] & sides["validation"]


def test_every_attempt_of_every_pool_is_drawn_and_graded_once(finished):
    for round_ in ROUNDS:
        pool = rows(finished, f"SELECT count(*) FROM pools WHERE round = {round_}")[0][0]
        graded = rows(finished, f"SELECT count(*) FROM grades WHERE split = 'train' AND round = {round_}")[0][0]
        assert graded == 8 * pool


def test_teacher1_decides_what_has_no_reference_and_the_report_counts_it(finished):
    first = read(finished / "auto_training_summary.json")["rounds"][0]
    without = rows(
        finished,
        "SELECT count(*) FROM grades g JOIN questions USING (question_id)"
        " WHERE split = 'train' AND round = 1 AND reference IS NULL",
    )[0][0]
    assert without >= 8 * 12 / 5
    assert first["decided_by"]["teacher1"] >= without - first["unknown"]
    assert first["decided_by"]["rules"] > 0


def test_no_held_out_question_was_ever_in_a_pool(finished):
    heldout = {q for (q,) in rows(finished, "SELECT DISTINCT question_id FROM trajectories WHERE split = 'heldout'")}
    pooled = {q for (q,) in rows(finished, "SELECT DISTINCT question_id FROM pools")}
    assert len(heldout) == 12
    assert not heldout & pooled


def test_no_teacher_question_has_the_numbers_of_a_held_out_one_under_other_names(finished, demo):
    held = [json.loads(line)["question"] for line in (demo.folder / "heldout.jsonl").read_text().splitlines()]
    new = rows(finished, "SELECT DISTINCT text FROM questions JOIN pools USING (question_id) WHERE reason = 'enhanced'")
    assert new
    assert not {numbers_of(text) for text in held} & {numbers_of(text) for (text,) in new}


def test_the_pool_grows_by_new_questions_and_keeps_every_failed_one(finished):
    summary = read(finished / "auto_training_summary.json")
    assert summary["rounds"][-1]["questions"] > summary["rounds"][0]["questions"]
    for round_ in range(1, 5):
        failed = {
            q
            for (q,) in rows(
                finished,
                "SELECT DISTINCT question_id FROM grades"
                f" WHERE split = 'train' AND round = {round_} AND verdict = 'incorrect'",
            )
        }
        replayed = {
            q
            for (q,) in rows(
                finished,
                f"SELECT question_id FROM pools WHERE round = {round_ + 1} AND reason = 'failed_replay'",
            )
        }
        assert failed == replayed


def test_a_finished_run_started_again_does_nothing_and_says_so(finished, demo):
    before = rows(finished, "SELECT count(*), total(seconds) FROM stages")
    again = demo.run(finished)
    assert again.returncode == 0, again.stderr
    assert rows(finished, "SELECT count(*), total(seconds) FROM stages") == before
    assert read(finished / "auto_training_summary.json")["final_status"] == "completed"


def test_the_generators_rows_get_their_utility_once_the_next_round_has_measured_them(finished):
    measured_rows = 0
    for round_ in ROUNDS:
        for row in read(finished / "data" / f"round_{round_:02d}_generator_training.json")["rows"]:
            if round_ == ROUNDS[-1]:
                assert (row["pass_rate"], row["utility"]) == (None, None)
                continue
            rewards = [
                graded["reward"]
                for graded in read(finished / "data" / f"round_{round_ + 1:02d}_rewards.json")["rows"]
                if graded["question_id"] == row["question_id"] and graded["reward"] is not None
            ]
            assert row["pass_rate"] == pytest.approx(sum(rewards) / len(rewards))
            assert row["utility"] == pytest.approx(math.exp(-((row["pass_rate"] - 0.5) ** 2) / 0.08))
            measured_rows += 1
    assert measured_rows > 0


def test_the_lineage_of_a_new_question_leads_from_its_seed_over_a_failed_attempt_to_its_pairs(finished):
    row = read(finished / "data" / "round_02_generator_training.json")["rows"][0]
    command = [sys.executable, "-m", "prosetting", "lineage", row["question_id"], "--workspace-dir", str(finished)]
    told = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, env=clean_env())
    story = json.loads(told.stdout)
    assert row["parent_id"] in told.stdout
    assert row["new_question"] in json.dumps(story, ensure_ascii=False)
    assert row["analysis"] in json.dumps(story, ensure_ascii=False)
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=clean_env()).stdout
    assert "seed" in shown.splitlines()[0]
    assert "pairs:" in shown


def test_the_judge_is_checked_in_every_round_it_judged_in(finished):
    for round_ in ROUNDS:
        found = read(finished / "data" / f"round_{round_:02d}_results.json")
        judge = found["judge"]
        assert judge["canaries"] == judge["canaries_right"] + judge["canaries_unknown"]
        assert judge["canaries_right"] > 0 or found["decided_by"]["teacher1"] == 0
        assert judge["regraded_agree"] + judge["regraded_unknown"] == judge["regraded"] > 0


def test_no_child_outlives_the_run(finished):
    assert children_of(finished) == []


@pytest.mark.parametrize("changed", [("--seed", "6"), ("--attempts-per-question", "4")])
def test_a_workspace_made_with_other_settings_is_refused_with_the_difference(finished, demo, changed):
    refused = demo.run(finished, *changed)
    assert refused.returncode == 2
    assert "made with another configuration" in refused.stderr
    assert changed[0].strip("-").replace("-", "_").upper() in refused.stderr


@pytest.fixture(scope="module")
def tutorial_folder(finished, demo, tmp_path_factory) -> Path:
    """A folder that looks as the tutorial's clone does once its demo is over."""
    folder = tmp_path_factory.mktemp("tutorial")
    shutil.copytree(finished, folder / "runs" / "demo")
    settings = (demo.folder / ".env").read_text().replace(str(demo.folder / "unused"), str(folder / "runs" / "demo"))
    settings += "".join(f"{key}={value}\n" for key, value in OVERRIDES.items())
    (folder / "runs" / "demo-inputs" / "seed-7").mkdir(parents=True)
    (folder / "runs" / "demo-inputs" / "seed-7" / ".env").write_text(settings)
    (folder / "bin").mkdir()
    for name, command in (("prosetting", "-m prosetting "), ("python", "")):
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {sys.executable} {command}"$@"\n')
        (folder / "bin" / name).chmod(0o755)
    return folder


TUTORIAL = [block for block in blocks(ROOT / "docs" / "tutorial.md") if block.output]
TAKES_LONG = ("make demo", "nohup")


@pytest.mark.parametrize(
    "block", [b for b in TUTORIAL if not any(word in b.text for word in TAKES_LONG)], ids=lambda b: b.commands[-1]
)
def test_what_the_tutorial_shows_of_a_finished_run_is_what_comes(block, tutorial_folder):
    """`make demo` itself and the run in the background are typed by test_tutorial.py, which is slow."""
    row = read(tutorial_folder / "runs" / "demo" / "data" / "round_02_generator_training.json")["rows"][0]
    commands = re.sub("lineage [0-9a-f]+", f"lineage {row['parent_id']}", block.text).replace("source ", ": ")
    path = f"{tutorial_folder / 'bin'}:{clean_env()['PATH']}"
    done = subprocess.run(
        ["bash", "-c", commands],
        cwd=tutorial_folder,
        env=clean_env() | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert shown_and_not_there(block.output, done.stdout) == [], done.stdout
