"""The families of strategies: each name is told where it is set, and a name that is not there is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from prosetting.config import Settings, env_name
from prosetting.core.journal import Journal
from prosetting.core.workspace import Workspace
from prosetting.errors import ConfigError, WorkspaceError
from prosetting.managers.strategies import FAMILIES, check_strategies
from prosetting.managers.toy_loop import run_toy, toy_settings, write_toy_inputs
from prosetting.processors.curriculum import CURRICULA, Band
from prosetting.records import QuestionKind, Stage

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "strategies.md").read_text(encoding="utf-8")


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


def always_easier(pass_rate: float, band: Band) -> QuestionKind:
    return "easier"


def test_a_curriculum_of_ones_own_is_an_entry_of_the_dict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/strategies.md says it; the run is stopped after a round and goes on, bound to what it was begun with."""
    monkeypatch.setitem(CURRICULA, "descend", always_easier)
    write_toy_inputs(tmp_path)
    settings = toy_settings(tmp_path, tmp_path / "run", rounds=1).model_copy(update={"curriculum": "descend"})
    assert run_toy(settings) == 0
    assert run_toy(settings.model_copy(update={"total_rounds": 2})) == 0
    with Journal(Workspace.of(settings).journal) as journal:
        kinds = {outcome["kind"] for round_ in (1, 2) for _, outcome in journal.enhancements(round_)}
        prepared = journal.stage(2, Stage.NEXT_ROUND_PREP)
    assert kinds == {"easier"}
    assert prepared is not None
    assert prepared.inputs["curriculum"] == "descend"
    with pytest.raises(WorkspaceError, match="CURRICULUM: 'descend' there, 'zones' now"):
        run_toy(settings.model_copy(update={"curriculum": "zones"}))
