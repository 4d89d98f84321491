"""Both teachers as the settings name them, over the real embedded server and a real journal."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from prosetting.config import Settings
from prosetting.core.group_commit import GroupCommit
from prosetting.core.journal import Journal
from prosetting.errors import RunPaused
from prosetting.managers.open_teachers import open_teachers
from prosetting.records import Question, QuestionId

QUESTION = Question(QuestionId("q"), "What is 2 + 3?", reference="5")


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "prosetting.db") as journal:
        yield journal


def test_each_teacher_costs_what_its_prices_say(tmp_path: Path, runner: asyncio.Runner, journal: Journal) -> None:
    settings = Settings(teacher_price_prompt=1e6, teacher_price_completion=0, teacher2_price_completion=1e6)
    log_file = tmp_path / "teacher.log"
    with open_teachers(settings, runner, log_file=log_file, commits=GroupCommit(journal)) as (teacher1, teacher2):
        assert runner.run(teacher1.grade(QUESTION, "5")).final_answer == "5"
        first = journal.teacher_totals()
        assert first.cost == first.prompt_tokens
        runner.run(teacher2.solve("What is 4 + 5?"))
        both = journal.teacher_totals()
        assert both.cost == both.prompt_tokens + both.completion_tokens - first.completion_tokens


def test_both_teachers_share_a_budget_that_knows_earlier_sessions(
    tmp_path: Path, runner: asyncio.Runner, journal: Journal
) -> None:
    settings = Settings(teacher_max_tokens_total=1)
    log_file = tmp_path / "teacher.log"
    with open_teachers(settings, runner, log_file=log_file, commits=GroupCommit(journal)) as (teacher1, teacher2):
        runner.run(teacher1.grade(QUESTION, "5"))
        with pytest.raises(RunPaused, match="TEACHER_MAX_TOKENS_TOTAL"):
            runner.run(teacher2.solve("What is 4 + 5?"))
    with open_teachers(settings, runner, log_file=log_file, commits=GroupCommit(journal)) as (teacher1, _):
        assert runner.run(teacher1.grade(QUESTION, "5")).final_answer == "5"
        with pytest.raises(RunPaused):
            runner.run(teacher1.grade(QUESTION, "6"))


def test_without_a_journal_nothing_is_kept(tmp_path: Path, runner: asyncio.Runner) -> None:
    with open_teachers(Settings(), runner, log_file=tmp_path / "teacher.log", commits=None) as (teacher1, _):
        assert runner.run(teacher1.grade(QUESTION, "5")).final_answer == "5"


def test_doctor_probes_each_teacher_and_says_which_one_does_not_answer(tmp_path, capsys, monkeypatch):
    import socket

    from prosetting.cli.main import main
    from prosetting.teachers.embedded_teacher import EmbeddedTeacher

    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken, EmbeddedTeacher(port=0, log_file=tmp_path / "log") as teacher:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        flags = ["--teacher-base-url", teacher.endpoint.base_url, "--workspace-dir", str(tmp_path / "ws")]
        flags += ["--teacher2-base-url", f"http://127.0.0.1:{taken.getsockname()[1]}/v1", "--teacher-timeout", "5"]
        monkeypatch.setattr("prosetting.cli.checks.all_checks", _only_the_teachers)
        assert main(["doctor", *flags]) == 1
    out = capsys.readouterr().out
    assert "✅ Teacher1: http://127.0.0.1:" in out
    assert "answers after" in out
    assert "❌ Teacher2: " in out
    assert not (tmp_path / "ws").exists()


def _only_the_teachers(loaded, problem, *, quick):
    from prosetting.cli import checks

    return checks._teachers(loaded.settings, quick=quick)
