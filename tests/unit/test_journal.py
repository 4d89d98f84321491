import sqlite3
from dataclasses import replace

import pytest

from prosetting.core import journal_file
from prosetting.core.journal import Journal
from prosetting.core.journal_rows import TeacherCall, TeacherTotals
from prosetting.errors import WorkspaceError
from prosetting.records import Grade, PoolEntry, Question, Stage, Trajectory, Verdict, question_id_of


def question(text: str) -> Question:
    return Question(question_id_of(text), text, reference="1")


def attempt(text: str, number: int, response: str = "r") -> Trajectory:
    return Trajectory(1, question_id_of(text), number, response, "stop", 3)


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "j.db") as journal:
        yield journal


def test_a_row_written_twice_is_there_once(journal):
    journal.add_trajectories("train", [attempt("q", 0, "first")])
    journal.add_trajectories("train", [attempt("q", 0, "second")])
    assert [t.response for t in journal.trajectories("train", 1)] == ["first"]


def test_the_pool_comes_back_in_question_id_order_with_reasons(journal):
    entries = [PoolEntry(question(text), "seed") for text in ("b", "a", "c")]
    journal.set_pool(1, entries)
    found = list(journal.pool(1))
    assert found == sorted(entries, key=lambda entry: entry.question.question_id)


def test_unknown_verdicts_are_asked_again_and_decided_ones_are_not(journal):
    journal.add_trajectories("train", [attempt("q", n) for n in range(3)])
    q = question_id_of("q")
    journal.add_grades("train", [Grade(1, q, 0, Verdict.CORRECT, "rules"), Grade(1, q, 1, Verdict.UNKNOWN, "teacher1")])
    found = [(t.attempt, grade.verdict if grade else None) for t, grade in journal.attempts_of("train", 1, q)]
    assert found == [(0, "correct"), (1, "unknown"), (2, None)]


def test_held_out_attempts_never_show_among_training_attempts(journal):
    journal.add_trajectories("heldout", [attempt("q", 0)])
    assert not journal.has_attempts("train", 1)
    assert journal.attempted("train", 1, question_id_of("q")) == set()


def test_a_failed_transaction_leaves_nothing(journal):
    journal.set_fact("a", 1)

    def write_half() -> None:
        with journal.transaction():
            journal.set_fact("a", 2)
            raise RuntimeError("torn")

    with pytest.raises(RuntimeError, match="torn"):
        write_half()
    assert journal.fact("a") == 1


def test_replies_are_recalled_in_the_order_in_which_they_are_asked_for(tmp_path):
    with Journal(tmp_path / "j.db") as journal:
        for name in "abc":
            journal.record(replace(call(name), request_hash=name))
        assert [journal.recall(names) for names in ("cab", "bc", "xa")] == [["c", "a", "b"], ["b", "c"], ["a"]]


def call(reply: str | None, failure: str = "") -> TeacherCall:
    return TeacherCall("hash", "grade", "http://host/v1", "m", reply, failure, 2, 10, 5, 0.1, 0.5)


def test_a_recorded_teacher_reply_is_recalled_in_another_process_and_costs_add_up(tmp_path):
    with Journal(tmp_path / "j.db") as journal:
        journal.record(call(None, "answers 500"))
        assert journal.recall(["hash"]) == []
        assert journal.teacher_totals().failed == 1
        journal.record(call("reply"))
    with Journal(tmp_path / "j.db") as again:
        assert again.recall(["none", "hash"]) == ["reply"]
        assert again.teacher_totals() == TeacherTotals(
            calls=1, attempts=4, failed=0, prompt_tokens=20, completion_tokens=10, cost=1.0
        )


def test_a_transaction_inside_another_is_part_of_it(journal):
    def write_both() -> None:
        with journal.transaction():
            journal.set_pool(1, [])
            journal.set_fact("a", 1)
            raise RuntimeError("torn")

    with pytest.raises(RuntimeError, match="torn"):
        write_both()
    assert journal.fact("a") is None


def test_a_journal_of_another_version_is_refused(tmp_path):
    Journal(tmp_path / "j.db").close()
    db = sqlite3.connect(tmp_path / "j.db")
    db.execute("UPDATE facts SET value = '99' WHERE name = 'journal_version'")
    db.commit()
    db.close()
    with pytest.raises(WorkspaceError, match="journal version 99"):
        Journal(tmp_path / "j.db")


def test_a_file_that_is_no_database_is_a_clear_error(tmp_path):
    (tmp_path / "j.db").write_text("not a database, " * 100)
    with pytest.raises(WorkspaceError, match="cannot be read"):
        Journal(tmp_path / "j.db")


def test_reading_a_run_that_was_never_started_says_how_to_start_one(tmp_path):
    with pytest.raises(WorkspaceError, match="no run has been started"):
        Journal(tmp_path / "none.db", read_only=True)


def test_readers_cannot_write(tmp_path):
    Journal(tmp_path / "j.db").close()
    with Journal(tmp_path / "j.db", read_only=True) as reader, pytest.raises(sqlite3.OperationalError):
        reader.set_fact("a", 1)


def play(journal: Journal, questions: int, attempts: int) -> dict[str, list[Verdict]]:
    """A round of that many questions; every third has no attempts, every other attempt of the rest is graded."""
    pool = [question(str(number)) for number in range(questions)]
    journal.set_pool(1, [PoolEntry(q, "seed") for q in pool])
    expected: dict[str, list[Verdict]] = {}
    for place, q in enumerate(pool):
        numbers = range(attempts if place % 3 else 0)
        journal.add_trajectories("train", [Trajectory(1, q.question_id, n, "r", "stop", 1) for n in numbers])
        verdicts = {n: Verdict.CORRECT if n % 4 else Verdict.INCORRECT for n in numbers if n % 2 == 0}
        journal.add_grades("train", [Grade(1, q.question_id, n, verdict, "rules") for n, verdict in verdicts.items()])
        expected[q.question_id] = list(verdicts.values())
    return expected


def test_a_round_is_read_question_by_question_whatever_the_pages(journal, monkeypatch):
    expected = play(journal, questions=23, attempts=5)
    stray = Trajectory(1, question_id_of("in no pool"), 0, "r", "stop", 1)
    journal.add_trajectories("train", [stray])
    journal.add_grades("train", [Grade(1, stray.question_id, 0, Verdict.CORRECT, "rules")])
    for page in (1, 2, 7, 23, 500):
        monkeypatch.setattr(journal_file, "PAGE", page)
        found = {
            entry.question.question_id: [(t.attempt, grade.verdict) for t, grade in attempts]
            for entry, attempts in journal.pool_with_attempts(1)
        }
        assert list(found) == sorted(expected)
        assert {name: [verdict for _, verdict in graded] for name, graded in found.items()} == expected
        assert all([number for number, _ in graded] == sorted(dict(graded)) for graded in found.values())
        assert len(list(journal.trajectories("train", 1))) == 15 * 5 + 1
        assert len(list(journal.pool(1))) == 23


def test_a_round_can_be_written_while_it_is_read(journal, monkeypatch):
    monkeypatch.setattr(journal_file, "PAGE", 2)
    play(journal, questions=9, attempts=4)
    seen = []
    for trajectory in journal.trajectories("train", 1):
        journal.add_grades("train", [Grade(1, trajectory.question_id, trajectory.attempt, Verdict.CORRECT, "rules")])
        seen.append((trajectory.question_id, trajectory.attempt))
    assert seen == sorted(set(seen))
    assert {grade.verdict for _, grade in journal.graded_attempts("train", 1)} == {Verdict.CORRECT}


def test_a_pool_is_counted_by_reason(journal):
    journal.set_pool(1, [PoolEntry(question(t), "seed" if t < "c" else "enhanced") for t in ("a", "b", "c")])
    assert journal.pool_counts(1) == {"seed": 2, "enhanced": 1}
    assert journal.pool_counts(2) == {}


def test_teacher_totals_are_those_of_all_calls_also_when_one_was_torn_away(journal):
    def fail() -> None:
        with journal.transaction():
            journal.record(replace(call("lost"), request_hash="torn"))
            raise RuntimeError("torn")

    journal.record(replace(call(None, "answers 500"), request_hash="a", cost=None))
    journal.record(replace(call("reply"), request_hash="b"))
    with pytest.raises(RuntimeError, match="torn"):
        fail()
    assert journal.teacher_totals() == TeacherTotals(2, 4, 1, 20, 10, 0.5)
    journal.record(replace(call("reply"), request_hash="a"))
    assert journal.teacher_totals() == TeacherTotals(2, 6, 0, 30, 15, 1.0)


def test_teacher_totals_are_none_in_cost_without_a_price(journal):
    assert journal.teacher_totals() == TeacherTotals(0, 0, 0, 0, 0, None)
    journal.record(replace(call("reply"), cost=None))
    assert journal.teacher_totals().cost is None


def test_a_rounds_questions_are_paged_by_zone_and_source_forwards_and_backwards(journal):
    texts = "abcdef"
    journal.set_pool(1, [PoolEntry(question(t), "seed" if t < "e" else "enhanced") for t in texts])
    verdicts = dict(
        zip("abcde", [("correct",), ("correct", "incorrect"), ("incorrect",), ("unknown",), ("correct",)], strict=True)
    )
    for text, found in verdicts.items():
        name = question(text).question_id
        journal.add_trajectories("train", [Trajectory(1, name, n, "x", "stop", 1) for n in range(len(found))])
        journal.add_grades("train", [Grade(1, name, n, Verdict(v), "rules") for n, v in enumerate(found)])
    assert journal.zone_counts(1) == {"mastered": 2, "learning": 1, "too_hard": 1, "undecided": 1}
    everything = journal.played(1, most=9)
    assert [one.question_id for one in everything] == sorted(question(t).question_id for t in texts)
    assert {one.text: one.pass_rate for one in everything} == {"a": 1, "b": 0.5, "c": 0, "d": None, "e": 1, "f": None}
    middle = everything[2].question_id
    assert journal.played(1, after=middle, most=2) == everything[3:5]
    assert journal.played(1, before=middle, most=1) == everything[1:2]
    mastered = journal.played(1, zone="mastered", most=9)
    assert {one.text for one in mastered} == {"a", "e"}
    assert [one.text for one in journal.played(1, zone="mastered", reason="enhanced", most=9)] == ["e"]
    assert {one.text for one in journal.played(1, reason="enhanced", most=9)} == {"e", "f"}


def test_what_was_done_about_a_failure_stands_beside_it(journal):
    journal.add_failure(1, Stage.TRL_TRAINING, "lost")
    assert journal.failures()[0]["decision"] == ""
    journal.decide_failure("retry")
    assert [(f["message"], f["decision"]) for f in journal.failures()] == [("lost", "retry")]
