"""The round gate and the three kinds of questions in whole runs: real loop, journal, grading and teacher; the engines
are scripted, so that a training can be made to do harm."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prosetting.config import Settings
from prosetting.core.journal import Journal
from prosetting.core.state_manager import EVAL_FILES, ROUND_GATE
from prosetting.core.workspace import Workspace
from prosetting.errors import ConfigError, RunPaused
from prosetting.managers.export import export_run
from prosetting.managers.fork import fork_workspace
from prosetting.managers.round_gate import made_in
from prosetting.managers.run import start_run
from prosetting.managers.run_status import run_status
from prosetting.managers.status_view import status_text
from prosetting.managers.toy_loop import ScriptedSolver, ScriptedTrainer, toy_settings, write_toy_inputs
from prosetting.settings_sources import LoadedSettings
from prosetting.teachers import arithmetic
from prosetting.trainers.base import TrainingJob, TrainingResult

ROUNDS, HARMED = 4, 3
HELD_OUT = 40


class Harmful(ScriptedTrainer):
    """What it makes in round HARMED solves nothing."""

    def train(self, job: TrainingJob) -> TrainingResult:
        if job.round != HARMED:
            return super().train(job)
        broken = job.output_dir.with_name("broken")
        shutil.copytree(job.model_path, broken, dirs_exist_ok=True)
        config = json.loads((broken / "config.json").read_text())
        (broken / "config.json").write_text(json.dumps(config | {"trainings": -9}))
        return super().train(replace(job, model_path=str(broken)))


def stories(name: str, count: int) -> list[dict[str, str]]:
    rng = random.Random(name)
    found: dict[str, str] = {}
    while len(found) < count:
        problem = arithmetic.random_problem(rng, 3)
        found[arithmetic.render(problem)] = str(arithmetic.solve(problem))
    return [{"question": question, "answer": answer} for question, answer in found.items()]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "inputs"
    write_toy_inputs(folder)
    (folder / "heldout.json").write_text(json.dumps(stories("held out", HELD_OUT)))
    (folder / "final.json").write_text(json.dumps(stories("reported", 10)))
    return folder


def settings_of(inputs: Path, workspace: Path, **changes: Any) -> Settings:
    return toy_settings(inputs, workspace, rounds=ROUNDS).model_copy(update={"eval_attempts": 4, **changes})


def run(settings: Settings, trainer: type[ScriptedTrainer] = Harmful) -> Workspace:
    code = start_run(
        settings, (), "auto", open_solver=lambda s, w, m: ScriptedSolver(m), open_trainer=lambda _: trainer()
    )
    assert code == 0
    return Workspace.of(settings)


def summary_of(workspace: Workspace) -> dict[str, Any]:
    return dict(json.loads(workspace.summary.read_text()))


def training_of(workspace: Workspace, round_: int) -> dict[str, Any]:
    return dict(json.loads(workspace.training_result(round_).read_text()))


@pytest.fixture(scope="module")
def rolled_back(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return run(settings_of(inputs, tmp_path_factory.mktemp("run") / "back", round_gate="rollback"))


def test_weights_that_do_worse_are_turned_down_and_the_next_round_begins_with_those_before(
    rolled_back: Workspace,
) -> None:
    rounds = summary_of(rolled_back)["rounds"]
    assert [r["gate"]["action"] for r in rounds if r["gate"]] == ["passed", "rolled_back", "passed"]
    assert rounds[2]["heldout"] == rounds[1]["heldout"]
    assert json.loads(rolled_back.checkpoint_record(HARMED).read_text())["path"].endswith("merged_solver_r2")
    made_of = [json.loads((rolled_back.model_dir(r) / "config.json").read_text())["trainings"] for r in (2, 3, 4)]
    assert made_of == [1, -8, 2]


def test_what_a_training_that_was_turned_down_was_on_is_not_trained_on_again(
    rolled_back: Workspace, inputs: Path, tmp_path: Path
) -> None:
    assert training_of(rolled_back, HARMED)["rounds_used"] == [3]
    assert training_of(rolled_back, HARMED + 1)["rounds_used"] == [4]
    on_all = run(settings_of(inputs, tmp_path / "all", round_gate="rollback", train_on="all"))
    assert training_of(on_all, HARMED + 1)["rounds_used"] == [1, 2, 4]


def test_what_was_gathered_for_a_first_training_that_was_turned_down_stays_out_too(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "HARMED", 2)
    done = run(settings_of(inputs, tmp_path / "run", round_gate="rollback", train_on="all"))
    assert [training_of(done, r)["rounds_used"] for r in (2, 3, 4)] == [[1, 2], [3], [3, 4]]


def test_the_report_says_why_in_every_form(rolled_back: Workspace) -> None:
    texts = [rolled_back.report.read_text(), (rolled_back.results / "report.md").read_text()]
    with Journal(rolled_back.journal, read_only=True) as journal:
        status = {each.round: each for each in run_status(journal, ROUNDS).rounds}
    assert status[HARMED].heldout == status[HARMED - 1].heldout
    metrics = [json.loads(line) for line in rolled_back.metrics.read_text().splitlines()]
    for text in texts:
        assert "rolled back" in text
        assert "held-out pass rate" in text
    assert [row["gate"]["kept"] for row in metrics if row["gate"]] == [True, False, True]
    assert metrics[HARMED]["heldout"]["pass_at_1"] == metrics[HARMED - 1]["heldout"]["pass_at_1"]


def test_a_fork_and_an_export_take_the_weights_that_were_kept(rolled_back: Workspace, tmp_path: Path) -> None:
    with Journal(rolled_back.journal, read_only=True) as journal:
        exported = export_run(rolled_back, journal, tmp_path / "hub", round_=HARMED, licence="mit", name="toy")
        fork_workspace(
            rolled_back,
            journal,
            tmp_path / "fork",
            round_=HARMED,
            loaded=LoadedSettings(Settings(total_rounds=ROUNDS), frozenset()),
            total_rounds=ROUNDS,
            say=lambda _: None,
        )
    assert exported.model is not None
    assert json.loads((exported.model / "config.json").read_text())["trainings"] == 1
    fork = Workspace.of(Settings(workspace_dir=tmp_path / "fork"))
    assert training_of(fork, HARMED)["checkpoint"] == str(fork.model_dir(HARMED))
    with Journal(fork.journal, read_only=True) as journal:
        assert made_in(journal, HARMED) == HARMED - 1


def test_a_fork_with_other_held_out_questions_scores_its_start_on_them_before_it_decides(
    inputs: Path, rolled_back: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "others.json").write_text(json.dumps(stories("others", HELD_OUT)))
    changed = {"validation_data_file": tmp_path / "others.json", "workspace_dir": tmp_path / "fork"}
    with Journal(rolled_back.journal, read_only=True) as journal:
        fork_workspace(
            rolled_back,
            journal,
            tmp_path / "fork",
            round_=HARMED - 1,
            loaded=LoadedSettings(
                Settings(total_rounds=ROUNDS, validation_data_file=tmp_path / "others.json"),
                frozenset({"validation_data_file"}),
            ),
            total_rounds=ROUNDS,
            say=lambda _: None,
        )
    fork = run(settings_of(inputs, tmp_path / "fork", round_gate="rollback").model_copy(update=changed))
    rounds = summary_of(fork)["rounds"]
    assert rounds[HARMED - 1]["gate"]["action"] == "rolled_back"
    assert rounds[0]["heldout"] is None  # on other questions than the rest of the curve
    with Journal(fork.journal, read_only=True) as journal:
        asked = {row["question"] for row in stories("others", HELD_OUT)}
        scored = {journal.question(one.question_id) for one in journal.trajectories("heldout", HARMED - 1)}
        assert {question.text for question in scored if question} <= asked


def test_a_run_that_is_to_stop_pauses_and_goes_on_as_it_is_told(
    inputs: Path, rolled_back: Workspace, tmp_path: Path
) -> None:
    stopping = settings_of(inputs, tmp_path / "run", round_gate="stop")
    for _ in range(2):  # the same command stops there again
        with pytest.raises(RunPaused, match="round 3: the round gate") as caught:
            run(stopping)
        assert "ROUND_GATE=rollback" in caught.value.next_step
    assert json.loads(Workspace.of(stopping).state.read_text())["status"] == "paused"
    assert "round 3: the round gate" in (Workspace.of(stopping).results / "report.md").read_text()
    run(stopping.model_copy(update={"round_gate": "rollback"}))
    ends = [
        json.loads((w.model_dir(ROUNDS) / "config.json").read_text()) for w in (Workspace.of(stopping), rolled_back)
    ]
    assert ends[0] == ends[1]


def test_a_warning_keeps_the_weights_and_no_gate_says_nothing(inputs: Path, tmp_path: Path) -> None:
    warned = run(settings_of(inputs, tmp_path / "warn", round_gate="warn"))
    rounds = summary_of(warned)["rounds"]
    assert rounds[2]["gate"]["action"] == "warned"
    assert rounds[2]["heldout"]["pass_at_1"] < rounds[1]["heldout"]["pass_at_1"]
    assert json.loads(warned.checkpoint_record(HARMED).read_text())["path"].endswith("merged_solver_r3")
    silent = run(settings_of(inputs, tmp_path / "off", round_gate="off"))
    assert [r["gate"] for r in summary_of(silent)["rounds"]] == [None] * ROUNDS


def test_trainings_that_help_pass(inputs: Path, tmp_path: Path) -> None:
    done = run(settings_of(inputs, tmp_path / "run", round_gate="rollback"), ScriptedTrainer)
    assert {r["gate"]["action"] for r in summary_of(done)["rounds"] if r["gate"]} == {"passed"}


@pytest.mark.parametrize("mode", ["rollback", "stop"])
def test_a_gate_without_held_out_questions_is_refused(inputs: Path, tmp_path: Path, mode: str) -> None:
    with pytest.raises(ConfigError, match="there are none"):
        run(settings_of(inputs, tmp_path / "run", round_gate=mode, validation_data_file=None))
    assert not (tmp_path / "run").exists()


def test_the_last_weights_are_scored_on_eval_files_and_no_pool_ever_holds_their_questions(
    inputs: Path, tmp_path: Path
) -> None:
    settings = settings_of(inputs, tmp_path / "run", eval_files=(str(inputs / "final.json"),))
    done = run(settings, ScriptedTrainer)
    (file,) = summary_of(done)["eval_files"]
    assert (file["task"], file["questions"], file["metrics"][0]["name"]) == ("final", 10, "mean@4")
    assert json.loads((done.results / "eval.json").read_text())["files"] == [file]
    rows = [json.loads(line) for line in (done.results / "eval.questions.jsonl").read_text().splitlines()]
    assert sum(row["correct"] for row in rows) / 40 == pytest.approx(file["metrics"][0]["value"])
    assert "Score on final" in (done.results / "report.md").read_text()
    with Journal(done.journal, read_only=True) as journal:
        assert f"Score on final: mean@4 {file['metrics'][0]['value']:.3f}" in status_text(journal, done, ROUNDS)
        scored = {row["question_id"] for row in rows}
        looked_at = {attempt.question_id for attempt in journal.trajectories("heldout", 0)}
        trained_on = {question_id for round_ in range(1, ROUNDS + 2) for question_id in journal.pool_ids(round_)}
        before = journal.stage(ROUNDS, EVAL_FILES)
        assert [journal.stage(r, ROUND_GATE) is not None for r in range(1, ROUNDS + 1)] == [False, True, True, True]
    assert (len(scored), len(looked_at)) == (10, HELD_OUT)
    assert not scored & looked_at
    assert not scored & trained_on
    assert not looked_at & trained_on
    run(settings, ScriptedTrainer)
    with Journal(done.journal, read_only=True) as journal:
        assert journal.stage(ROUNDS, EVAL_FILES) == before
