"""The families of strategies: each name is told where it is set, one that is not there is refused, and one's own is an
entry of the dict, as docs/strategies.md says."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import pytest

from prosetting.config import Settings, env_name
from prosetting.core.journal import Journal
from prosetting.core.workspace import Workspace
from prosetting.datasets.all_correct import ALL_CORRECT
from prosetting.errors import ConfigError, WorkspaceError
from prosetting.managers.pool_policy import POOL_POLICIES, Candidates, Entries, PoolPolicy
from prosetting.managers.strategies import FAMILIES, check_strategies
from prosetting.managers.toy_loop import run_toy, toy_settings, write_toy_inputs
from prosetting.managers.training_rounds import TRAIN_ON
from prosetting.processors.curriculum import CURRICULA, Band
from prosetting.records import QuestionKind, Stage, Trajectory
from prosetting.trainers.losses import PRESETS, Loss

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("setting", FAMILIES)
def test_every_name_is_in_the_help_and_in_the_document(setting: str) -> None:
    meaning = Settings.model_fields[setting].description or ""
    section = DOCS.partition(f": `{env_name(setting)}`\n")[2].partition("\n## ")[0]
    for name in FAMILIES[setting]:
        assert name in meaning
        assert f"| `{name}` |" in section


@pytest.mark.parametrize("setting", FAMILIES)
def test_a_name_that_is_not_there_is_refused_with_the_choices(setting: str) -> None:
    check_strategies(Settings(solver_model_path="m"))
    with pytest.raises(ConfigError, match=f"{env_name(setting)}='other' is not known") as caught:
        check_strategies(Settings.model_validate({"solver_model_path": "m", setting: "other"}))
    assert caught.value.next_step == f"choose from {', '.join(FAMILIES[setting])}"


def asks_for_nothing(pass_rate: float, band: Band) -> QuestionKind | None:
    return None


def only_failed(found: Candidates) -> Entries:
    return [(question_id, "failed_replay") for question_id in found.failed]


def last_two(round_: int, used: AbstractSet[int]) -> list[int]:
    return [earlier for earlier in (round_ - 1, round_) if earlier > 0]


def shortest(attempts: Sequence[Trajectory], run_seed: int) -> Trajectory:
    return min(attempts, key=lambda attempt: (len(attempt.response), attempt.attempt))


OWN: dict[str, Any] = {
    "train_on": last_two,
    "pool_policy": PoolPolicy(only_failed, asks_teacher2=False),
    "curriculum": asks_for_nothing,
    "all_correct_questions": shortest,
    "trl_loss": Loss(("hinge", "sft"), (1.0, 5.0), 0.5),
}


def test_strategies_of_ones_own_are_entries_of_the_dicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rounds, the last in a second session: the workspace is bound to what it was begun with."""
    assert OWN.keys() == FAMILIES.keys()
    for family, entry in zip((TRAIN_ON, POOL_POLICIES, CURRICULA, ALL_CORRECT, PRESETS), OWN.values(), strict=True):
        monkeypatch.setitem(family, "own", entry)
    losses: dict[str, Any] = {"trl_loss_type": (), "trl_loss_weights": ()}
    settings = _toy(tmp_path, rounds=2, **dict.fromkeys(OWN, "own"), **losses)
    assert run_toy(settings) == 0
    assert run_toy(settings.model_copy(update={"total_rounds": 3})) == 0
    with Journal(Workspace.of(settings).journal) as journal:
        trained = journal.stage(3, Stage.TRL_TRAINING)
        assert trained is not None
        assert trained.inputs["loss"] == "hinge + 5 · sft, β 0.5"
        assert trained.output["rounds_used"] == [2, 3]
        assert list(journal.enhancements(1)) == []
        assert {entry.reason for entry in journal.pool(2)} == {"failed_replay"}
    with pytest.raises(WorkspaceError, match="TRAIN_ON: 'own' there, 'all' now"):
        run_toy(settings.model_copy(update={"train_on": "all"}))


def test_the_example_of_the_document_plays_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CURRICULA, "halves", asks_for_nothing)  # taken out again afterwards
    example = runpy.run_path(str(ROOT / "examples" / "own_curriculum.py"))
    assert CURRICULA["halves"] is example["halves"]
    settings = _toy(tmp_path, rounds=2, curriculum="halves")
    assert run_toy(settings) == 0
    with Journal(Workspace.of(settings).journal) as journal:
        asked = [outcome for round_ in (1, 2) for _, outcome in journal.enhancements(round_)]
        prepared = journal.stage(2, Stage.NEXT_ROUND_PREP)
    assert asked
    assert all(outcome["kind"] == ("harder" if outcome["pass_rate"] >= 0.5 else "easier") for outcome in asked)
    assert prepared is not None
    assert prepared.inputs["curriculum"] == "halves"


def test_a_fixed_pool_is_played_again_and_again_and_teacher2_is_not_asked(tmp_path: Path) -> None:
    settings = _toy(tmp_path, rounds=3, pool_policy="fixed")
    assert run_toy(settings) == 0
    with Journal(Workspace.of(settings).journal) as journal:
        assert journal.pool_ids(1) == journal.pool_ids(2) == journal.pool_ids(3) == journal.pool_ids(4)
        assert not [outcome for round_ in (1, 2, 3) for outcome in journal.enhancements(round_)]


def _toy(folder: Path, *, rounds: int, **changes: Any) -> Settings:
    write_toy_inputs(folder)
    return toy_settings(folder, folder / "run", rounds=rounds).model_copy(update=changes)
