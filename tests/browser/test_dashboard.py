"""What a person sees and does in the dashboard."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard_process import Served, running_toy, serve
from recorded_run import questions, record_run

from prosetting.core.control import RunState, control_status
from prosetting.core.journal import Journal
from prosetting.core.state_manager import EVAL_FILES, ROUND_GATE
from prosetting.records import Grade, PoolEntry, Question, Trajectory, Verdict, question_id_of

HOSTILE = "<script>window.broken = 1</script><img src=x onerror='window.broken = 2'>\x1b[2J\u202egnp.exe</pre>{{ 7*7 }}"
SHOWN = "<script>window.broken = 1</script><img src=x onerror='window.broken = 2'>\\x1b[2J\\u202egnp.exe</pre>{{ 7*7 }}"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two finished rounds; a question of Teacher2's with its lineage, and hostile text wherever a model may write."""
    workspace = record_run(tmp_path_factory.mktemp("recorded") / "ws", rounds_done=2)
    parent = questions()[0].question_id
    child = Question(question_id_of("Cy has 9."), f"Cy has 9. {HOSTILE}", "9", kind="variant", parent_id=parent)
    outcome = {"kind": "variant", "attempt": 1, "status": "written", "analysis": HOSTILE, "gate": "admitted"}
    outcome |= {"new": {"text": child.text, "reference": "9", "solution": ""}, "gate_detail": HOSTILE}
    with Journal(workspace.journal) as journal:
        many = [Question(question_id_of(f"Many {n}"), f"Many {n}", "1") for n in range(120)]
        journal.set_pool(2, [PoolEntry(child, "enhanced"), *(PoolEntry(one, "seed") for one in many)])
        journal.add_enhancement(1, parent, outcome, child.question_id)
        journal.add_trajectories("train", [Trajectory(2, child.question_id, n, HOSTILE, "stop", 3) for n in (0, 1)])
        grades = [(0, Verdict.CORRECT), (1, Verdict.INCORRECT)]
        journal.add_grades("train", [Grade(2, child.question_id, n, v, "teacher1", HOSTILE) for n, v in grades])
        journal.add_failure(2, "trl_training", HOSTILE)
        gate = {"action": "warned", "kept": True, "evidence": f"held-out pass rate {HOSTILE}", "alarms": [HOSTILE]}
        journal.finish_stage(2, ROUND_GATE, {}, gate, 1.0)
        mean = {"name": "mean@4", "value": 0.625, "low": 0.5, "high": 0.75}
        scored = {"files": [{"task": f"gsm {HOSTILE}", "questions": 20, "metrics": [mean]}]}
        journal.finish_stage(2, EVAL_FILES, {}, scored, 1.0)
    (workspace.logs / "auto_trainer.log").write_text(f"12:00:00 {HOSTILE}\n", encoding="utf-8")
    with serve(workspace.root) as served:
        yield served


def test_the_overview_follows_a_run_by_itself_and_the_run_obeys_its_buttons(page: Any, tmp_path: Path) -> None:
    with running_toy(tmp_path) as workspace, serve(workspace.root) as served:
        page.goto(served.url)
        # A run that is being started may have no journal yet: the page turns into the run's by itself.
        attempts = page.locator(".tile", has=page.get_by_text("Attempts", exact=True)).locator("dd")
        before = attempts.inner_text()
        page.wait_for_function(
            "before => [...document.querySelectorAll('.tile')].find(t => t.innerText.startsWith('Attempts'))"
            ".querySelector('dd').innerText !== before",
            arg=before,
        )
        assert page.locator("#state").inner_text() == "running"
        page.get_by_text("At work").wait_for()  # between two stages there is nothing

        page.get_by_role("link", name="Unlock pause, resume, stop").click()
        page.get_by_label("Token").fill("not the token")
        page.get_by_role("button", name="Unlock").click()
        assert page.get_by_role("alert").inner_text().endswith("This is not the token.")
        page.get_by_label("Token").fill(served.token)
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Pause").click()
        page.locator("#state", has_text="paused").wait_for()
        assert control_status(workspace).state is RunState.PAUSED
        page.get_by_role("button", name="Resume").click()
        page.locator("#state", has_text="running").wait_for()
        page.locator("summary", has_text="Stop…").click()
        page.get_by_role("button", name="Stop the run").click()
        page.locator("#state", has_text="stopped").wait_for()
        assert control_status(workspace).state is RunState.NONE
        assert page.get_by_role("button", name="Pause").is_disabled()
        page.get_by_text("To go on:").wait_for()


def test_questions_are_filtered_opened_and_their_lineage_followed_by_keyboard_alone(
    page: Any, recorded: Served
) -> None:
    page.goto(recorded.url + "questions")
    assert page.locator("#rows tbody tr").count() == 50
    for key, rows in (("n", 50), ("n", 21), ("p", 50)):
        with page.expect_navigation():
            page.keyboard.press(key)
        assert page.locator("#rows tbody tr").count() == rows
    page.get_by_label("Source").select_option("enhanced")
    page.wait_for_url("**source=enhanced*")
    assert page.locator("#rows tbody tr").count() == 1
    page.get_by_label("Zone").select_option("learning")
    page.wait_for_url("**zone=learning*")
    page.locator("h1").click()
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.closest('#rows') !== null")
    page.keyboard.press("Enter")
    page.wait_for_url("**/questions/*")
    page.get_by_role("heading", name="Where it comes from").wait_for()
    assert page.locator(".attempt").count() == 2
    assert "1 pair, chosen × rejected: 0×1" not in page.content()  # equal texts make no pair
    page.keyboard.press("u")
    page.get_by_role("heading", name="What was made of it").wait_for()
    page.get_by_role("heading", name="Round 1").wait_for()
    page.keyboard.press("/")
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none" or page.evaluate("document.activeElement === document.body")


def test_what_the_round_gate_saw_and_the_scores_on_eval_files_are_shown(page: Any, recorded: Served) -> None:
    page.goto(recorded.url)
    gate = page.get_by_role("region", name="The round gate")
    assert gate.inner_text().split("\n")[-1] == f"Round 2: warned. held-out pass rate {SHOWN}"
    scores = page.get_by_role("region", name="Scores on EVAL_FILES").locator("tr")
    assert scores.inner_text().split("\t") == [f"gsm {SHOWN}", "mean@4 0.625 [0.500, 0.750] (20 questions)"]
    page.goto(recorded.url + "rounds")
    gate = page.get_by_role("region", name="What the round gate saw")
    assert f"Round 2: warned. held-out pass rate {SHOWN}" in gate.inner_text()


def test_the_first_key_skips_to_the_content_and_every_control_shows_its_focus(page: Any, recorded: Served) -> None:
    page.goto(recorded.url + "questions")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "Skip to content"
    for _ in range(14):
        page.keyboard.press("Tab")
        told = page.evaluate("[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]")
        assert told[1] != "none", told


def test_what_a_model_wrote_is_text_on_every_page(page: Any, recorded: Served) -> None:
    page.goto(recorded.url + "questions?source=enhanced")
    page.locator("#rows a").click()
    assert page.locator(".attempt pre").first.inner_text() == SHOWN
    assert page.locator(".attempt .why").first.inner_text().count("<script>") == 1
    for path in ("", "rounds", "questions?source=enhanced", "teachers", "log"):
        page.goto(recorded.url + path)
        assert page.evaluate("window.broken") is None
        assert page.locator("main img, main script").count() == 0
        assert "49" not in page.locator("main").inner_text().split()
    assert SHOWN in page.locator("pre.log").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_their_width_in_light_and_dark(page: Any, recorded: Served, scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    for path in ("", "rounds", "questions", "teachers", "machine", "log"):
        page.goto(recorded.url + path)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgba(0, 0, 0, 0)"


def test_the_policy_stops_what_the_page_did_not_bring(page: Any, recorded: Served) -> None:
    page.goto(recorded.url)
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<b onclick=\"window.broken = 3\" id=bad>x</b>')")
    stopped = page.evaluate(
        """() => new Promise(done => {
            document.addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));
            document.getElementById('bad').click();
            const script = document.createElement('script'); script.text = 'window.broken = 4';
            document.body.append(script);
        })"""
    )
    assert stopped.startswith("script-src")
    assert page.evaluate("window.broken") is None
    assert page.complaints
    page.complaints.clear()


def test_a_page_of_a_workspace_without_a_run_says_how_to_start_one(page: Any, tmp_path: Path) -> None:
    with serve(tmp_path) as served:
        page.goto(served.url)
        assert "no run has been started" in page.locator("h1").inner_text()
        assert "prosetting run" in page.locator("main").inner_text()
    assert list(tmp_path.iterdir()) == []


def test_the_report_shows_its_charts_and_asks_for_nothing(page: Any, tmp_path: Path) -> None:
    from prosetting.managers.report import write_report
    from prosetting.managers.run_summary import run_summary

    workspace = record_run(tmp_path / "ws", rounds_done=2)
    with sqlite3.connect(workspace.journal) as db:
        db.execute("UPDATE trajectories SET response = ?", (HOSTILE,))
    db.close()
    with Journal(workspace.journal, read_only=True) as journal:
        write_report(workspace, journal, run_summary(journal, 2, "completed", 60.0))
    page.goto(workspace.report.as_uri())
    assert page.locator("svg[role=img]").count() >= 3
    assert page.evaluate("window.broken") is None
    assert page.locator(".attempt pre").first.inner_text() == SHOWN
