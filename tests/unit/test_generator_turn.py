"""The Generator in a round: real loop, journal and gate, scripted engines (managers/toy_loop.py)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prosetting.cli.main import main
from prosetting.collectors.solver import Sample, SampleRequest, SamplingParams
from prosetting.config import Settings
from prosetting.core.journal import Journal
from prosetting.core.state_manager import GENERATOR_DRAFTS, GENERATOR_TRAINING, GENERATOR_TRIALS
from prosetting.datasets.generator_text import read_draft
from prosetting.errors import TrainingError
from prosetting.managers.run import start_run
from prosetting.managers.toy_loop import ScriptedSolver, ScriptedTrainer, run_toy, toy_settings, write_toy_inputs
from prosetting.trainers.base import TrainingJob, TrainingResult
from prosetting.trainers.generator_job import read_rows

ROUNDS = 3


@dataclass
class Ran:
    inputs: Path
    root: Path
    settings: Settings

    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.root / "auto_training_summary.json").read_text()))

    def stage(self, round_: int, stage: str) -> dict[str, Any]:
        with Journal(self.root / "prosetting.db", read_only=True) as journal:
            record = journal.stage(round_, stage)
        assert record
        return record.output


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("toy")
    write_toy_inputs(folder / "in")
    settings = toy_settings(folder / "in", folder / "run", rounds=ROUNDS, generator_share=0.5)
    assert run_toy(settings) == 0
    return Ran(folder / "in", folder / "run", settings)


def test_the_first_round_has_nothing_to_learn_from_and_says_so(ran: Ran) -> None:
    told = ran.stage(1, GENERATOR_TRAINING)
    assert (told["trained"], told["reason"]) == (False, "no new question is measured before the second round")
    assert not (ran.root / "checkpoints" / "generator_r1").exists()


def test_later_rounds_train_on_what_they_have_measured_from_the_weights_before(ran: Ran) -> None:
    configs = []
    for round_ in (2, 3):
        told = ran.stage(round_, GENERATOR_TRAINING)
        rows = read_rows([ran.root / "data" / f"round_0{round_ - 1}_generator_training.json"])
        assert (told["trained"], told["rows"]) == (True, len(rows))
        assert json.loads((ran.root / "training_results" / f"generator_r{round_}_result.json").read_text())["trained"]
        configs.append(json.loads((ran.root / "checkpoints" / f"generator_r{round_}" / "config.json").read_text()))
    assert [config["trainings"] for config in configs] == [1, 2]


def test_its_drafts_are_no_attempts_of_the_solver(ran: Ran) -> None:
    with Journal(ran.root / "prosetting.db", read_only=True) as journal:
        for round_ in range(1, ROUNDS + 1):
            drafts = list(journal.trajectories("generator", round_))
            assert len(drafts) == ran.stage(round_, GENERATOR_DRAFTS)["drafts"] > 0
            asked = [outcome for _, outcome in journal.enhancements(round_) if outcome["source"] == "generator"]
            assert 0 < len(asked) <= len(drafts)


def drafts_with_answer(root: Path, round_: int) -> list[str]:
    with Journal(root / "prosetting.db", read_only=True) as journal:
        written = [read_draft(draft.response) for draft in journal.trajectories("generator", round_)]
    return [draft.text for draft in written if draft and draft.reference]


def test_each_draft_with_an_answer_is_tried_and_graded_without_teacher1(ran: Ran) -> None:
    with Journal(ran.root / "prosetting.db", read_only=True) as journal:
        for round_ in range(1, ROUNDS + 1):
            tried = list(journal.graded_attempts("trial", round_))
            assert {grade.decided_by for _, grade in tried} == {"rules"}
            told = ran.stage(round_, GENERATOR_TRIALS)
            assert len(tried) == told["attempts"] == 4 * len(drafts_with_answer(ran.root, round_)) > 0
            assert told["measured"]["played"] == len(tried) // 4


def test_drafts_are_tried_with_the_weights_that_will_play_them(tmp_path: Path, ran: Ran) -> None:
    asked: dict[str, set[str]] = {}

    class Watched(ScriptedSolver):
        def load(self, model: str | None) -> bool:
            if model is not None:
                self.prompts = asked.setdefault(Path(model).name, set())
            return super().load(model)

        def sample(self, requests: Iterable[SampleRequest], params: SamplingParams) -> Iterator[Sample]:
            for request in requests:
                self.prompts.add(request.prompt)
                yield from super().sample([request], params)

    settings = toy_settings(ran.inputs, tmp_path / "run", rounds=2, generator_share=0.5)
    code = start_run(
        settings,
        (),
        "auto",
        open_solver=lambda settings, workspace, model: Watched(model),
        open_trainer=lambda settings: ScriptedTrainer(),
    )
    assert code == 0
    trained = Path(json.loads((tmp_path / "run" / "checkpoint_round_2.json").read_text())["path"]).name
    assert trained not in ("base", "generator_r2")
    assert set(drafts_with_answer(tmp_path / "run", 2)) <= asked[trained]


def test_without_trials_nothing_is_tried(tmp_path: Path, ran: Ran) -> None:
    settings = toy_settings(ran.inputs, tmp_path / "run", rounds=1, generator_share=0.5)
    assert run_toy(settings.model_copy(update={"generator_trials": 0})) == 0
    with Journal(tmp_path / "run" / "prosetting.db", read_only=True) as journal:
        assert journal.stage(1, GENERATOR_TRIALS) is None
        assert not journal.has_attempts("trial", 1)
        assert any(outcome["source"] == "generator" for _, outcome in journal.enhancements(1))


def test_reports_tell_both_sources_side_by_side(ran: Ran) -> None:
    rounds = ran.summary()["rounds"]
    assert all({"teacher2", "generator"} <= r["sources"].keys() for r in rounds)
    assert all(set(r["sources"]["generator"]["teacher_calls"]) == {"solve"} for r in rounds)
    assert rounds[0]["measured"] == {}
    assert rounds[1]["measured"]
    lines = [json.loads(line) for line in (ran.root / "metrics.jsonl").read_text().splitlines()]
    assert [line["sources"] for line in lines if line["round"]] == [r["sources"] for r in rounds]
    page = (ran.root / "report.html").read_text()
    assert "New questions: Teacher2 and the Generator" in page
    assert "no new question is measured before the second round" in page


def test_a_run_without_a_generator_tells_of_none(tmp_path: Path, ran: Ran) -> None:
    assert run_toy(toy_settings(ran.inputs, tmp_path / "run", rounds=1)) == 0
    assert "the Generator" not in (tmp_path / "run" / "report.html").read_text()
    (told,) = json.loads((tmp_path / "run" / "auto_training_summary.json").read_text())["rounds"]
    assert (set(told["sources"]), told["generator"]) == ({"teacher2"}, None)


def test_a_lost_result_file_is_written_again(ran: Ran) -> None:
    file = ran.root / "training_results" / "generator_r2_result.json"
    before = json.loads(file.read_text())
    file.unlink()
    assert run_toy(ran.settings) == 0
    after = json.loads(file.read_text())
    assert {**before, "meta": 0} == {**after, "meta": 0}


class FailingGenerator(ScriptedTrainer):
    def train(self, job: TrainingJob) -> TrainingResult:
        if job.training_files:
            raise TrainingError("it fails", next_step="nothing")
        return super().train(job)


def test_a_generator_that_cannot_be_trained_is_given_up_and_the_solver_is_trained_all_the_same(
    tmp_path: Path, ran: Ran
) -> None:
    settings = toy_settings(ran.inputs, tmp_path / "run", rounds=2, generator_share=0.5)
    settings = settings.model_copy(update={"auto_continue_on_failure": True, "auto_max_retries": 0})
    assert run_toy(settings, lambda settings: FailingGenerator()) == 0
    told = json.loads((tmp_path / "run" / "auto_training_summary.json").read_text())["rounds"][1]
    assert (told["trained"], told["generator"]["trained"]) == (True, False)
    assert "given up" in told["generator"]["reason"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--out", "new"], "GENERATOR_MODEL_PATH is not set"),
        (["--out", ".", "--generator-model-path", "g/g"], "exists"),
        (["--out", "new", "--generator-model-path", "g/g"], "no new question whose pass rate was measured"),
        (["--out", "new", "--generator-model-path", "/nowhere/g"], "there is no model at /nowhere/g"),
    ],
)
def test_training_on_demand_refuses_what_cannot_be_trained(
    args: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train-generator", "--workspace-dir", str(tmp_path / "ws"), *args]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_servers_that_nothing_makes_serve_the_generator_are_refused(
    tmp_path: Path, ran: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["run", "--dry-run", "--solver-model-path", str(ran.inputs / "base"), "--generator-share", "0.5"]
    args += ["--generator-model-path", str(ran.inputs / "base"), "--workspace-dir", str(tmp_path / "ws")]
    assert main([*args, "--trl-launcher", "ray"]) == 2
    assert "this machine only" in capsys.readouterr().err
