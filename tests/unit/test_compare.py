"""`prosetting compare`: two small runs, scored on the same held-out questions. Scripted Solver and Trainer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prosetting.cli.main import app
from prosetting.core.journal import Journal
from prosetting.core.workspace import Workspace
from prosetting.errors import ConfigError, WorkspaceError
from prosetting.evaluation.benchmark import pass_rates
from prosetting.managers.compare import Run, RunsCompared, compare_runs
from prosetting.managers.toy_loop import run_toy, toy_settings, write_toy_inputs
from prosetting.teachers import arithmetic

ROUNDS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `a` and `b` of one question file with other seeds, and `c`, which is scored on other questions."""
    made = tmp_path_factory.mktemp("runs")
    write_toy_inputs(made / "inputs")
    for name, numbers in (("heldout", range(30, 50)), ("other", range(60, 62))):
        problems = [arithmetic.Problem("Max", "cards", n, (arithmetic.Step("buys", 7),)) for n in numbers]
        rows = [{"question": arithmetic.render(p), "answer": str(arithmetic.solve(p))} for p in problems]
        (made / "inputs" / f"{name}.json").write_text(json.dumps(rows))
    for name, seed, heldout in (("a", 1, "heldout"), ("b", 2, "heldout"), ("c", 1, "other")):
        settings = toy_settings(made / "inputs", made / name, rounds=ROUNDS, seed=seed)
        changed = {"validation_data_file": made / "inputs" / f"{heldout}.json", "eval_attempts": 3}
        assert run_toy(settings.model_copy(update=changed)) == 0
    return made


def compared(folder: Path, a: str, b: str, round_a: int | None = None, round_b: int | None = None) -> RunsCompared:
    runs = [Workspace(folder / name, folder / name / "logs") for name in (a, b)]
    with Journal(runs[0].journal, read_only=True) as first, Journal(runs[1].journal, read_only=True) as second:
        return compare_runs(Run(runs[0], first, round_a), Run(runs[1], second, round_b))


def test_the_rates_are_those_of_the_questions_that_both_were_scored_on(folder: Path) -> None:
    found = compared(folder, "a", "b")
    assert found.heldout is not None
    assert found.reported is None
    means = []
    for name in ("a", "b"):
        with Journal(folder / name / "prosetting.db", read_only=True) as journal:
            rates = pass_rates(grade for _, grade in journal.graded_attempts("heldout", ROUNDS))
            means.append(sum(rates.values()) / len(rates))
    assert [found.heldout.a, found.heldout.b] == pytest.approx(means)
    assert found.heldout.low <= found.heldout.change <= found.heldout.high
    assert found.heldout.questions == 20
    assert found.settings == {"seed": (1, 2)}
    assert len(found.a.curve) == len(found.b.curve) == ROUNDS + 1


def test_one_run_can_be_compared_with_itself_at_another_round(folder: Path) -> None:
    found = compared(folder, "a", "a", 0, None)
    assert found.heldout is not None
    assert (found.a.round, found.a.made_in, found.b.made_in) == (0, 0, ROUNDS)
    assert found.heldout.b > found.heldout.a
    assert found.settings == {}
    same = compared(folder, "a", "a")
    assert same.heldout is not None
    assert (same.heldout.change, same.heldout.low, same.heldout.high) == (0, 0, 0)


def test_runs_without_a_common_question_and_rounds_that_are_not_over_are_refused(folder: Path) -> None:
    with pytest.raises(WorkspaceError, match="not scored on any same question"):
        compared(folder, "a", "c")
    with pytest.raises(ConfigError, match=r"round 9 of .* is not over") as caught:
        compared(folder, "a", "b", 9)
    assert "1, 2, 3" in caught.value.next_step


def test_the_command_tells_both_sides_in_words_and_as_json(folder: Path) -> None:
    given = ["compare", str(folder / "a"), str(folder / "b")]
    shown = CliRunner().invoke(app, given)
    assert shown.exit_code == 0
    assert "VALIDATION_DATA_FILE" in shown.output
    assert "SEED" in shown.output
    assert any(word in shown.output for word in ("B is better", "B is worse", "no sure difference"))
    told = json.loads(CliRunner().invoke(app, [*given, "--json"]).output)
    assert told["heldout"]["questions"] == 20
