"""The figures of a round: counted from the journal, one line a round, never doubled."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
from recorded_run import record_run

from prosetting.core.journal import Journal
from prosetting.core.journal_rows import QuestionTally, Span, TeacherCall
from prosetting.core.state_manager import CONCLUSION, EVALUATION
from prosetting.core.workspace import Workspace
from prosetting.evaluation.scores import mean_with_interval, share_with_interval
from prosetting.managers.metrics import pass_rates, read_metrics, write_metrics
from prosetting.managers.resources import GpuUse, ResourceSampler, samples_since


def recorded(root: Path) -> Workspace:
    """Two rounds that are over, with their spans and a teacher's calls in each."""
    workspace = record_run(root, rounds_done=2)
    with Journal(workspace.journal) as journal:
        for round_ in (0, 1, 2):
            name = EVALUATION if round_ == 0 else "data_collection"
            journal.add_span(Span(round_, name, 1000.0 + 100 * round_, 1090.0 + 100 * round_, "done"))
        for round_ in (1, 2):
            journal.finish_stage(round_, CONCLUSION, {}, {}, 0.1)
        for number in range(10):
            call = TeacherCall(f"h{number}", "grade", "e", "m", "{}", "", 1, 100, 10, float(number), 0.5)
            journal.record(call)
            journal._db.execute(
                "UPDATE teacher_calls SET at = ? WHERE request_hash = ?",
                (1101.0 if number < 4 else 1201.0, f"h{number}"),
            )
    return workspace


def metrics_of(workspace: Workspace) -> dict[int, dict]:
    with Journal(workspace.journal, read_only=True) as journal:
        write_metrics(workspace, journal)
    return read_metrics(workspace.metrics)


def test_each_round_has_its_own_figures(tmp_path: Path) -> None:
    found = metrics_of(recorded(tmp_path))
    assert sorted(found) == [0, 1, 2]
    first, second = found[1], found[2]
    assert first["train"]["questions_by_correct"] == [0, 2, 0]
    assert (first["train"]["average_reward"]["value"], first["train"]["unknown_share"]) == (0.5, 0.0)
    assert (first["train"]["pass_at_1"]["value"], first["train"]["k"]) == (0.5, 2)
    assert first["train"]["pass_at_k"]["value"] == 1.0
    assert first["pool"] == {"questions": 2, "by_reason": {"seed": 2}, "next_questions": 2, "growth": 1.0}
    assert (first["pairs"], first["training"]["trained"], second["training"]["trained"]) == (2, False, True)
    assert (first["teacher"]["calls"], second["teacher"]["calls"]) == (4, 6)
    assert (first["teacher"]["prompt_tokens"], first["teacher"]["cost"]) == (400, 2.0)
    assert [task["latency_s_p50"] for task in second["teacher"]["by_task"]] == [7.0]
    assert first["spans"][0]["began_at"] == first["began_at"] == 1100.0
    assert found[0]["train"] is None
    assert found[0]["pool"] is None


def test_a_line_stays_when_the_run_goes_on_and_a_lost_file_is_made_again(tmp_path: Path) -> None:
    workspace = recorded(tmp_path)
    before = metrics_of(workspace)
    text = workspace.metrics.read_text()
    assert metrics_of(workspace) == before
    assert workspace.metrics.read_text() == text
    lines = text.splitlines()
    workspace.metrics.write_text("\n".join([lines[0], lines[1], lines[1], lines[2][:40]]) + "\nno json\n")
    assert [line["round"] for line in metrics_of(workspace).values()] == [0, 1, 2]
    assert len(workspace.metrics.read_text().splitlines()) == 3


def test_a_round_that_is_not_over_has_no_line(tmp_path: Path) -> None:
    workspace = record_run(tmp_path, rounds_done=1)
    assert metrics_of(workspace) == {}


def test_what_cannot_be_written_does_not_end_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workspace = recorded(tmp_path)
    workspace.metrics.mkdir()
    with Journal(workspace.journal, read_only=True) as journal:
        write_metrics(workspace, journal)
    assert "could not be written" in caplog.text


def test_unknown_attempts_are_in_no_rate() -> None:
    found = pass_rates([QuestionTally(2, 2, 4), QuestionTally(0, 0, 8), QuestionTally(8, 0, 0)], seed=1)
    assert found is not None
    assert (found.attempts, found.unknown, found.unknown_share) == (24, 12, 0.5)
    assert found.average_reward is not None
    assert found.average_reward.value == pytest.approx(10 / 12)
    assert found.pass_at_1 is not None
    assert (found.pass_at_1.value, found.pass_at_1.n) == (0.75, 2)
    assert found.pass_at_k is not None
    assert (found.k, found.pass_at_k.n, found.pass_at_k.value) == (8, 1, 1.0)
    assert found.questions_by_correct == [1, 0, 1, 0, 0, 0, 0, 0, 1]
    assert pass_rates([], seed=1) is None


@pytest.mark.parametrize("questions", [60, 600])
def test_the_intervals_hold_the_true_mean_about_95_times_in_100(questions: int) -> None:
    rng = random.Random(3)
    held = {"mean": 0, "share": 0}
    draws = 60 if questions < 500 else 300
    for draw in range(draws):
        rates = [rng.betavariate(1, 1) for _ in range(questions)]
        correct = [sum(rng.random() < rate for _ in range(8)) for rate in rates]
        for name, found in (
            ("mean", mean_with_interval([c / 8 for c in correct], draw)),
            ("share", share_with_interval(correct, [8] * questions)),
        ):
            assert found is not None
            held[name] += found.low <= 0.5 <= found.high
    slack = 4 * math.sqrt(0.95 * 0.05 / draws)
    assert all(0.95 - slack <= count / draws for count in held.values()), held


def test_samples_are_read_from_the_end_and_only_as_far_back_as_asked(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, tmp_path)
    gpu = GpuUse(0, 0.5, 10, 20)
    sampler = ResourceSampler(workspace, lambda: [gpu])
    seen = [sampler.sample() for _ in range(300)]
    assert seen[0].run_memory_bytes > 2**20
    assert seen[0].gpus == (gpu,)
    with workspace.resources.open("a") as stream:
        stream.write('{"at": 1')  # cut short
    assert samples_since(workspace.resources, seen[5].at) == seen[5:]
    assert samples_since(workspace.resources, 0) == seen
    assert samples_since(tmp_path / "none", 0) == []


def test_a_sampler_looks_at_once_and_then_at_its_pace(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, tmp_path)
    with ResourceSampler(workspace, list, interval_s=0.01):
        while not workspace.resources.exists() or len(workspace.resources.read_text().splitlines()) < 3:
            pass
    assert json.loads(workspace.resources.read_text().splitlines()[0])["gpus"] == []
