"""The story of a question, from a journal that the test fills: three generations in three rounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from prosetting.cli.lineage import lineage
from prosetting.cli.settings_flags import WorkspaceCommand
from prosetting.config import Settings
from prosetting.core.journal import Journal
from prosetting.errors import DataError, WorkspaceError
from prosetting.managers.lineage import lineage_of
from prosetting.records import Grade, PoolEntry, PoolReason, Question, Trajectory, Verdict, question_id_of

GOOD, BAD, OPEN = Verdict.CORRECT, Verdict.INCORRECT, Verdict.UNKNOWN
SEED = Question(question_id_of("seed"), "seed", "5", "Ann has 2 and 3 more.\n2+3=5, so 5.")
CHILD = Question(question_id_of("child"), "child", "6", None, "variant", SEED.question_id)
GRANDCHILD = Question(question_id_of("grandchild"), "grandchild", "7", None, "harder", CHILD.question_id)
ANALYSIS = "adds \x1b[31minstead of\u202e taking away"


def play(journal: Journal, round_: int, played: dict[Question, tuple[PoolReason, list[Verdict | None]]]) -> None:
    """A round in which every attempt a of a question reads `<question> a`; None: not graded."""
    journal.set_pool(round_, [PoolEntry(question, reason) for question, (reason, _) in played.items()])
    for question, (_, verdicts) in played.items():
        q = question.question_id
        attempts = range(len(verdicts))
        journal.add_trajectories(
            "train", [Trajectory(round_, q, a, f"{question.text} {a}", "stop", 3) for a in attempts]
        )
        grades = [Grade(round_, q, a, v, "rules", f"why {a}") for a, v in enumerate(verdicts) if v]
        journal.add_grades("train", grades)


def write(journal: Journal, round_: int, parent: Question, child: Question, gate: str, **more: Any) -> None:
    new = {"text": child.text, "reference": child.reference, "solution": None, "kind": child.kind}
    outcome = {"status": "written", "kind": child.kind, "attempt": 1, "analysis": ANALYSIS, "new": new, "gate": gate}
    admitted_id = child.question_id if gate == "admitted" else None
    journal.add_enhancement(round_, parent.question_id, outcome | more, admitted_id)


def fill(path: Path, **settings: Any) -> None:
    """Round 1 plays SEED; 2 plays CHILD and SEED again; 3 plays GRANDCHILD and CHILD, which is not all graded."""
    with Journal(path) as journal:
        fixed = Settings(solver_model_path="m", attempts_per_question=4, **settings).fixed_values()
        journal.set_fact("fixed_settings", fixed)
        play(journal, 1, {SEED: ("seed", [GOOD, BAD, BAD, OPEN])})
        write(journal, 1, SEED, CHILD, "admitted", gate_detail="")
        play(journal, 2, {CHILD: ("enhanced", [GOOD, GOOD, GOOD, GOOD]), SEED: ("failed_replay", [BAD, BAD, BAD, BAD])})
        write(journal, 2, CHILD, GRANDCHILD, "admitted", analysis="")
        journal.add_enhancement(2, SEED.question_id, {"status": "declined", "kind": "easier", "attempt": 0})
        play(
            journal,
            3,
            {GRANDCHILD: ("enhanced", [GOOD, BAD, GOOD, BAD]), CHILD: ("other_replay", [GOOD, None, BAD, None])},
        )
        other = Question(question_id_of("other"), "other", "1", None, "variant")
        write(journal, 3, CHILD, other, "near_duplicate", gate_detail="of grandchild")
        journal.add_enhancement(
            3, GRANDCHILD.question_id, {"status": "failed", "kind": "variant", "reason": "no reply"}
        )


@pytest.fixture
def journal(tmp_path: Path) -> Any:
    fill(tmp_path / "prosetting.db")
    with Journal(tmp_path / "prosetting.db", read_only=True) as journal:
        yield journal


def test_the_chain_leads_from_the_seed_question_down(journal: Journal) -> None:
    found = lineage_of(journal, GRANDCHILD.question_id)
    assert [ancestor.story.question for ancestor in found.ancestors] == [SEED, CHILD]
    assert [ancestor.story.born_in_round for ancestor in found.ancestors] == [1, 1]
    assert (found.story.question, found.story.born_in_round) == (GRANDCHILD, 2)


def test_each_link_names_the_attempt_the_analysis_and_the_decision(journal: Journal) -> None:
    first, second = (ancestor.led_to for ancestor in lineage_of(journal, GRANDCHILD.question_id).ancestors)
    assert first is not None
    assert first.shown is not None
    assert (first.round, first.kind, first.analysis, first.gate) == (1, "variant", ANALYSIS, "admitted")
    assert (first.shown.attempt, first.shown.response, first.shown.verdict) == (1, "seed 1", "incorrect")
    assert (first.shown.decided_by, first.shown.diagnosis) == ("rules", "why 1")
    assert second is not None
    assert second.shown is not None
    assert (second.round, second.admitted_id, second.shown.verdict) == (2, GRANDCHILD.question_id, "correct")


def test_every_round_of_a_question_is_told_with_its_attempts_and_pairs(journal: Journal) -> None:
    first, second = lineage_of(journal, SEED.question_id).story.rounds
    assert (first.round, first.reason, first.pass_rate) == (1, "seed", 1 / 3)
    assert (first.correct, first.incorrect, first.unknown, first.ungraded) == ([0], [1, 2], [3], [])
    assert first.pairs == [(0, 1), (0, 2)]
    assert (second.reason, second.pass_rate, second.pairs) == ("failed_replay", 0.0, [])
    (_, replayed) = lineage_of(journal, CHILD.question_id).story.rounds
    assert (replayed.ungraded, replayed.pass_rate, replayed.pairs) == ([1, 3], 0.5, [(0, 2)])


def test_pairs_follow_the_settings_of_the_workspace(tmp_path: Path) -> None:
    fill(tmp_path / "prosetting.db", reference_as_chosen=True, max_pairs_per_question=3)
    with Journal(tmp_path / "prosetting.db", read_only=True) as journal:
        assert len(lineage_of(journal, GRANDCHILD.question_id).story.rounds[0].pairs) == 3
        assert {chosen for chosen, _ in lineage_of(journal, SEED.question_id).story.rounds[1].pairs} == {-2}


def test_children_are_told_with_what_became_of_them(journal: Journal) -> None:
    admitted, declined = lineage_of(journal, SEED.question_id).children
    assert (admitted.round, admitted.gate, admitted.admitted_id) == (1, "admitted", CHILD.question_id)
    assert (declined.round, declined.status, declined.gate) == (2, "declined", "")
    _, rejected = lineage_of(journal, CHILD.question_id).children
    assert (rejected.gate, rejected.gate_detail, rejected.admitted_id) == ("near_duplicate", "of grandchild", None)
    assert rejected.new_text == "other"
    (failed,) = lineage_of(journal, GRANDCHILD.question_id).children
    assert (failed.status, failed.failure) == ("failed", "no reply")


def test_an_admitted_question_that_no_pool_had_room_for_has_its_story_too(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.db") as journal:
        journal.set_fact("fixed_settings", Settings(solver_model_path="m").fixed_values())
        play(journal, 1, {SEED: ("seed", [GOOD, BAD])})
        write(journal, 1, SEED, CHILD, "admitted")
        found = lineage_of(journal, CHILD.question_id)
    assert (found.story.question, found.story.rounds) == (CHILD, [])


def test_a_unique_beginning_of_an_id_is_enough(journal: Journal) -> None:
    assert lineage_of(journal, f" {GRANDCHILD.question_id[:6].upper()} ").story.question == GRANDCHILD


def test_a_beginning_of_several_ids_lists_them(tmp_path: Path) -> None:
    texts = [f"question {n}" for n in range(40)]
    with Journal(tmp_path / "j.db") as journal:
        journal.set_fact("fixed_settings", {})
        journal.set_pool(1, [PoolEntry(Question(question_id_of(text), text), "seed") for text in texts])
        first = min(question_id_of(text) for text in texts)
        with pytest.raises(DataError, match=f"several questions begin with '{first[0]}': {first}, "):
            lineage_of(journal, first[0])


def test_an_unknown_id_is_answered_with_those_near_it(journal: Journal) -> None:
    mistyped = SEED.question_id[:4] + "x"
    with pytest.raises(DataError, match=f"has the id '{mistyped}'; near it: {SEED.question_id}") as refused:
        lineage_of(journal, mistyped)
    assert "round_01_questions.json" in refused.value.next_step
    with pytest.raises(DataError, match=r"has the id ''\n"):
        lineage_of(journal, "")


def test_a_workspace_in_which_nothing_was_started_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.db") as journal, pytest.raises(WorkspaceError, match="no run has been started"):
        lineage_of(journal, "a")


# The command


def show(workspace: Path, *args: str) -> None:
    app = typer.Typer()
    app.command("lineage", cls=WorkspaceCommand)(lineage)
    app([*args, "--workspace-dir", str(workspace)], standalone_mode=False)


def test_the_command_tells_the_whole_story(
    journal: Journal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(tmp_path, CHILD.question_id)
    out = capsys.readouterr().out
    assert out.splitlines() == [
        f"{SEED.question_id} · seed · read in round 1",
        "  question:  seed",
        "  reference: 5",
        "  round 1 (seed): pass rate 0.33, 1 of 3 correct",
        "  round 2 (failed replay): pass rate 0.00, 0 of 4 correct",
        "",
        "  ↓ round 1: Teacher2 was asked for a question of kind variant",
        "    attempt 1, incorrect by rules (why 1): seed 1",
        "    analysis:  adds \\x1b[31minstead of\\u202e taking away",
        "    gate:      admitted",
        "",
        f"{CHILD.question_id} · variant · written in round 1",
        "  question:  child",
        "  reference: 6",
        "  round 2 (enhanced): pass rate 1.00, 4 of 4 correct",
        "    correct:   attempts 0, 1, 2, 3",
        "    pairs:     none",
        "  round 3 (other replay): pass rate 0.50, 1 of 2 correct",
        "    correct:   attempts 0",
        "    incorrect: attempts 2",
        "    ungraded:  attempts 1, 3",
        "    pairs:     1, chosen 0 × rejected 2",
        "",
        "  ↓ round 2: Teacher2 was asked for a question of kind harder",
        "    attempt 1, correct by rules (why 1): child 1",
        "    gate:      admitted",
        f"    → {GRANDCHILD.question_id} grandchild",
        "      reference: 7",
        "",
        "  ↓ round 3: Teacher2 was asked for a question of kind variant",
        "    attempt 1, ungraded: child 1",
        "    analysis:  adds \\x1b[31minstead of\\u202e taking away",
        "    gate:      near duplicate (of grandchild)",
        "    → other",
        "      reference: 1",
    ]


def test_long_texts_are_shown_by_their_beginning_and_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "begin " + "x\n" * 100_000 + "the end"
    with Journal(tmp_path / "prosetting.db") as journal:
        journal.set_fact("fixed_settings", Settings(solver_model_path="m").fixed_values())
        play(journal, 1, {Question(question_id_of(text), text): ("seed", [GOOD])})
    show(tmp_path, question_id_of(text))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("  question:  begin x x")
    assert lines[1].endswith("x the end")
    assert max(map(len, lines)) < 260


def test_a_program_gets_the_same_as_one_document_that_no_terminal_obeys(
    journal: Journal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(tmp_path, GRANDCHILD.question_id, "--json")
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    found = json.loads(out)
    assert [ancestor["story"]["question"]["text"] for ancestor in found["ancestors"]] == ["seed", "child"]
    assert found["ancestors"][0]["led_to"]["analysis"] == ANALYSIS
    assert found["story"]["rounds"][0]["pairs"] == [[0, 1], [0, 3], [2, 1], [2, 3]]
