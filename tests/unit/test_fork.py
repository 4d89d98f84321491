"""A fork of a small run: what it holds, how it goes on, and what is refused. Scripted Solver and Trainer."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from prosetting.config import Settings
from prosetting.core import storage
from prosetting.core.journal import Journal
from prosetting.core.workspace import Workspace, WorkspaceLock
from prosetting.errors import ConfigError, DataError, ProSettingError, RunPaused, WorkspaceError
from prosetting.managers.binding import Fork, bound_to, check_versions, fork_lines, forks
from prosetting.managers.fork import fork_workspace
from prosetting.managers.run_status import run_status
from prosetting.managers.toy_loop import run_toy, toy_settings, write_toy_inputs
from prosetting.settings_sources import LoadedSettings

ROUNDS = 3


@dataclass(frozen=True)
class Source:
    inputs: Path
    settings: Settings

    @property
    def workspace(self) -> Workspace:
        return Workspace.of(self.settings)

    def settings_for(self, root: Path, **changed: object) -> Settings:
        return self.settings.model_copy(update={"workspace_dir": root, **changed})

    def fork(self, target: Path, round_: int, said: list[str] | None = None, **changed: object) -> Fork:
        """As the command line makes it: only what is changed is given."""
        settings = Settings.model_validate({"total_rounds": ROUNDS, **changed})
        with Journal(self.workspace.journal, read_only=True) as journal:
            return fork_workspace(
                self.workspace,
                journal,
                target,
                round_=round_,
                loaded=LoadedSettings(settings, frozenset(changed)),
                total_rounds=ROUNDS,
                say=(said if said is not None else []).append,
            )


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Source:
    folder = tmp_path_factory.mktemp("toy")
    write_toy_inputs(folder / "inputs")
    settings = toy_settings(folder / "inputs", folder / "run", rounds=ROUNDS, generator_share=0.5)
    assert run_toy(settings) == 0
    return Source(folder / "inputs", settings)


def content(root: Path, *patterns: str) -> dict[str, object]:
    """The files, without `meta`, and with the workspace's own path masked."""
    found: dict[str, object] = {}
    for file in sorted(file for pattern in patterns for file in root.glob(pattern) if file.is_file()):
        if file.suffix == ".json":
            parsed = json.loads(file.read_text().replace(str(root), "ROOT"))
            parsed.pop("meta", None)
            found[str(file.relative_to(root))] = parsed
        else:
            found[str(file.relative_to(root))] = file.read_bytes()
    return found


def of_rounds(*rounds: int) -> list[str]:
    return [
        pattern
        for r in rounds
        for pattern in (
            f"data/round_0{r}_*.json",
            f"datasets/round_0{r}/*",
            f"checkpoints/*_r{r}/*",
            f"training_results/*_r{r}_*.json",
            f"checkpoint_round_{r}.json",
            f"round_0{r}_progress.json",
        )
    ]


def mtimes(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in (root, *root.rglob("*"))}


def test_a_fork_without_changes_ends_as_its_source_and_asks_no_teacher_again(source, tmp_path):
    target = tmp_path / "fork"
    made = source.fork(target, 2)
    assert made.changed == {}
    assert content(target, *of_rounds(1, 2))["round_02_progress.json"]
    with Journal(target / "prosetting.db") as journal:
        paid = journal.teacher_totals()
    assert run_toy(source.settings_for(target)) == 0
    everything = of_rounds(0, 1, 2, 3)
    assert content(target, *everything) == content(source.workspace.root, *everything)
    with Journal(target / "prosetting.db") as journal:
        assert journal.teacher_totals() == paid
        assert {n for (n,) in journal._db.execute("PRAGMA foreign_key_check")} == set()


def test_a_changed_setting_holds_from_the_next_round_on_and_is_told(source, tmp_path):
    target, attempts = tmp_path / "fork", source.settings.attempts_per_question
    made = source.fork(target, 1, attempts_per_question=2)
    assert made.changed == {"attempts_per_question": (attempts, 2)}
    assert run_toy(source.settings_for(target, attempts_per_question=2)) == 0
    before, after = (content(root, "data/round_0*_trajectories.json") for root in (source.workspace.root, target))
    assert before["data/round_01_trajectories.json"] == after["data/round_01_trajectories.json"]
    drawn = [row["attempt"] for row in after["data/round_02_trajectories.json"]["rows"]]
    assert max(drawn) == 1
    line = f"{source.workspace.root} at round 1; changed: ATTEMPTS_PER_QUESTION {attempts} → 2"
    with Journal(target / "prosetting.db", read_only=True) as journal:
        assert fork_lines(journal) == [line]
        assert run_status(journal, ROUNDS).forked_from == [line]
        assert [bound_to(journal, r)["attempts_per_question"] for r in (1, 2)] == [attempts, 2]
    assert json.loads((target / "auto_training_summary.json").read_text())["forked_from"] == [line]
    assert line in (target / "results" / "report.md").read_text().replace("\\", "")


def test_a_fork_stands_alone_and_leaves_its_source_as_it_was(source, tmp_path):
    copied = tmp_path / "source"
    shutil.copytree(source.workspace.root, copied)
    copy = Source(source.inputs, source.settings_for(copied))
    before = mtimes(copied)
    copy.fork(tmp_path / "fork", 2)
    assert mtimes(copied) == before
    shutil.rmtree(copied)
    with Journal(tmp_path / "fork" / "prosetting.db", read_only=True) as journal:
        checkpoint = Path(journal.stage(2, "trl_training").output["checkpoint"])
    assert checkpoint.is_relative_to(tmp_path / "fork")
    assert (checkpoint / "model.safetensors").stat().st_size
    assert run_toy(source.settings_for(tmp_path / "fork")) == 0


def test_where_no_hard_link_can_be_made_checkpoints_are_copied_and_that_is_said(source, tmp_path, monkeypatch):
    def refuse(*args: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    said: list[str] = []
    source.fork(tmp_path / "fork", 2, said)
    assert any(line.startswith("merged_solver_r2: ") for line in said)
    files = content(source.workspace.root, "checkpoints/merged_solver_r2/*")
    assert content(tmp_path / "fork", "checkpoints/merged_solver_r2/*") == files != {}


def test_round_zero_keeps_only_the_first_questions_and_the_replies(source, tmp_path):
    source.fork(tmp_path / "fork", 0, seed=99)
    with Journal(tmp_path / "fork" / "prosetting.db") as journal, Journal(source.workspace.journal) as before:
        assert list(journal.pool(1)) == list(before.pool(1))
        assert journal.teacher_totals() == before.teacher_totals()
        assert (journal.pool_counts(2), journal.stages_done(1), journal.has_attempts("train", 1)) == ({}, [], False)
    assert run_toy(source.settings_for(tmp_path / "fork", seed=99)) == 0


def test_round_zero_can_begin_with_other_questions(source, tmp_path):
    rows = json.loads((source.inputs / "questions.json").read_text())
    file = tmp_path / "other.json"
    file.write_text(json.dumps(rows[:1]))
    source.fork(tmp_path / "fork", 0, questions_file=file)
    with Journal(tmp_path / "fork" / "prosetting.db") as journal:
        assert [entry.question.text for entry in journal.pool(1)] == [rows[0]["question"]]
    with pytest.raises(ConfigError, match="only round 1 reads it"):
        source.fork(tmp_path / "later", 1, questions_file=file)
    with pytest.raises(DataError, match="would not be held out"):
        source.fork(tmp_path / "later", 1, validation_data_file=file)


def test_a_fork_of_a_fork_remembers_both(source, tmp_path):
    source.fork(tmp_path / "one", 2, seed=8)
    one = Source(source.inputs, source.settings_for(tmp_path / "one"))
    one.fork(tmp_path / "two", 1, seed=9)
    with Journal(tmp_path / "two" / "prosetting.db") as journal:
        assert [(fork.round, fork.changed) for fork in forks(journal)] == [(1, {"seed": (7, 8)}), (1, {"seed": (8, 9)})]
        assert [bound_to(journal, r)["seed"] for r in (1, 2)] == [7, 9]


def test_a_change_that_does_not_go_with_the_settings_kept_is_refused(source, tmp_path):
    source.fork(tmp_path / "one", 2, trl_loss_type="sigmoid,sft", trl_loss_weights="1,5")
    one = Source(source.inputs, source.settings_for(tmp_path / "one"))
    with pytest.raises(ConfigError, match="TRL_LOSS_TYPE names 1 losses, TRL_LOSS_WEIGHTS 2"):
        one.fork(tmp_path / "two", 2, trl_loss_type="sft")


def test_a_strategy_that_is_not_there_is_refused_before_anything_is_copied(source, tmp_path):
    with pytest.raises(ConfigError, match="CURRICULUM='steep' is not known"):
        source.fork(tmp_path / "fork", 2, curriculum="steep")
    assert not (tmp_path / "fork").exists()


def test_a_fork_continued_with_other_settings_than_its_own_is_refused_with_the_way_out(source, tmp_path):
    source.fork(tmp_path / "fork", 2, seed=8)
    with pytest.raises(WorkspaceError) as refused:
        run_toy(source.settings_for(tmp_path / "fork"))
    assert "SEED: 8 there, 7 now" in refused.value.what
    assert "prosetting fork --from-round 2 --to DIR" in refused.value.next_step


def test_another_version_of_the_verifier_is_refused_by_name(source, tmp_path, monkeypatch):
    source.fork(tmp_path / "fork", 1)
    monkeypatch.setattr("prosetting.managers.binding.VERIFIER_VERSION", "another")
    with pytest.raises(WorkspaceError, match=r"verifier version: '.*' there, 'another' now"):
        run_toy(source.settings_for(tmp_path / "fork"))


def test_what_cannot_be_forked_is_refused_and_nothing_is_left(source, tmp_path, monkeypatch):
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    target = tmp_path / "fork"
    with pytest.raises(WorkspaceError, match=r"round 4 .* is not over: done are 1, 2, 3"):
        source.fork(target, 4)
    with pytest.raises(WorkspaceError, match="is not an empty folder"):
        source.fork(full, 2)
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(RunPaused, match="needs about"):
        source.fork(target, 2)
    assert list(tmp_path.iterdir()) == [full]


def test_a_fork_that_fails_halfway_leaves_nothing_and_one_that_was_killed_is_made_anew(source, tmp_path, monkeypatch):
    target = tmp_path / "fork"
    with monkeypatch.context() as patch:
        patch.setattr("shutil.copy2", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            source.fork(target, 2)
    assert list(tmp_path.iterdir()) == []
    leftover = tmp_path / ".fork.fork"
    (leftover / "data").mkdir(parents=True)
    (leftover / "data" / "round_01_rubbish.json").touch()
    (leftover / "prosetting.db").write_bytes(b"half")
    source.fork(target, 2)
    assert not (target / "data" / "round_01_rubbish.json").exists()
    assert list(tmp_path.iterdir()) == [target]


def test_two_forks_into_one_folder_do_not_mix(source, tmp_path):
    partial = tmp_path / ".fork.fork"
    partial.mkdir()
    with WorkspaceLock(Workspace(partial, partial / "logs")), pytest.raises(ProSettingError, match="another run holds"):
        source.fork(tmp_path / "fork", 2)


@pytest.mark.parametrize("what", ["journal", "file"])
def test_a_workspace_of_another_version_is_refused_and_left_untouched(source, tmp_path, what):
    source.fork(tmp_path / "old", 2)
    old = Workspace(tmp_path / "old", tmp_path / "old" / "logs")
    if what == "journal":
        with Journal(old.journal) as journal:
            journal.set_fact("journal_version", 1)
    else:
        old.state.write_text(old.state.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    before = mtimes(old.root)
    with pytest.raises(WorkspaceError, match=r"version (1|99), this program reads"):
        run_toy(source.settings_for(old.root))
    assert mtimes(old.root) == before


def test_a_damaged_file_is_no_other_version(source, tmp_path):
    (tmp_path / "training_state.json").write_text("{")
    check_versions(Workspace(tmp_path, tmp_path))
