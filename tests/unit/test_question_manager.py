"""Stage 5: which questions the next round plays."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Sequence

import pytest

from prosetting.config import Settings
from prosetting.core.group_commit import GroupCommit
from prosetting.core.journal import Journal
from prosetting.errors import DataError, TeacherReplyError
from prosetting.managers.question_manager import NewQuestions, QuestionManager, load_pool_and_heldout
from prosetting.records import Grade, PoolEntry, Question, Trajectory, Verdict, question_id_of
from prosetting.teachers.base import GradeReply, NewQuestion, ShownAttempt

CORRECT, INCORRECT, UNKNOWN = Verdict.CORRECT, Verdict.INCORRECT, Verdict.UNKNOWN


def successor(text: str) -> str:
    """A question of words that no other question has."""
    letters = hashlib.sha256(text.encode()).hexdigest().translate(str.maketrans("0123456789", "ghijklmnop"))
    return " ".join(letters[start : start + 6] for start in range(0, 60, 6)) + "?"


class WritingTeacher:
    """Teacher2 that writes a question's successor after a random wait, and counts its calls."""

    def __init__(self, seed: int, *, broken: frozenset[str] = frozenset()) -> None:
        self._rng = random.Random(seed)
        self._broken = broken
        self.asked: list[str] = []

    async def grade(self, question: Question, response: str) -> GradeReply:
        raise NotImplementedError

    async def analyse(self, question: Question, attempt: ShownAttempt) -> str:
        await asyncio.sleep(self._rng.random() / 200)
        return f"why {attempt.response}"

    async def enhance(self, question: Question, attempt: ShownAttempt, analysis: str, kind) -> NewQuestion:
        self.asked.append(question.text)
        if question.text in self._broken:
            raise TeacherReplyError("no usable reply")
        return NewQuestion(successor(question.text), "1", None, kind)

    async def solve(self, question_text: str) -> str | None:
        return "1"

    async def close(self) -> None:
        return None


def manager_of(journal: Journal, heldout: Sequence[str] = (), **settings) -> QuestionManager:
    settings = {"solver_model_path": "m", "teacher_concurrent_workers": 4, **settings}
    held_out = [Question(question_id_of(text), text) for text in heldout]
    return QuestionManager(journal, GroupCommit(journal), Settings(**settings), held_out)


def write(manager: QuestionManager, teacher: WritingTeacher) -> NewQuestions:
    return asyncio.run(manager.write_questions(1, manager.outcomes(1), teacher))


def play(journal: Journal, verdicts: dict[str, Sequence[Verdict]]) -> None:
    """Round 1 with these questions, each with these verdicts."""
    entries = [PoolEntry(Question(question_id_of(text), text, "1"), "seed") for text in verdicts]
    journal.set_pool(1, entries)
    for text, found in verdicts.items():
        q = question_id_of(text)
        journal.add_trajectories("train", [Trajectory(1, q, n, f"r{n}", "stop", 1) for n in range(len(found))])
        journal.add_grades("train", [Grade(1, q, n, verdict, "rules") for n, verdict in enumerate(found)])


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "j.db") as journal:
        yield journal


def texts(questions: Sequence[Question]) -> list[str]:
    return sorted(question.text for question in questions)


def test_a_question_with_any_incorrect_attempt_is_failed_and_an_unknown_one_is_not(journal):
    play(journal, {"mixed": [CORRECT, INCORRECT], "solved": [CORRECT, CORRECT], "open": [CORRECT, UNKNOWN]})
    failed = {outcome.question.text for outcome in manager_of(journal).outcomes(1) if outcome.failed}
    assert failed == {"mixed"}


def test_the_next_pool_has_all_failed_a_share_of_the_others_and_the_new(journal):
    verdicts = {f"f{n}": [INCORRECT] for n in range(3)} | {f"s{n}": [CORRECT] for n in range(10)}
    play(journal, verdicts)
    manager = manager_of(journal)
    new = write(manager, WritingTeacher(1))
    pool = manager.next_pool(1, manager.outcomes(1), new.admitted)
    reasons = [entry.reason for entry in pool]
    assert {reason: reasons.count(reason) for reason in set(reasons)} == {
        "failed_replay": 3,
        "other_replay": 2,
        "enhanced": 13,
    }
    assert [e.question.question_id for e in pool] == sorted(e.question.question_id for e in pool)


def test_all_others_are_replayed_when_so_set(journal):
    play(journal, {f"s{n}": [CORRECT] for n in range(10)})
    manager = manager_of(journal, replay_other_share=1.0)
    assert len(manager.next_pool(1, manager.outcomes(1), [])) == 10


def test_fewer_failed_questions_are_replayed_when_so_set(journal):
    play(journal, {f"f{n}": [INCORRECT] for n in range(10)})
    manager = manager_of(journal, replay_failed_share=0.5)
    assert len(manager.next_pool(1, manager.outcomes(1), [])) == 5


def test_a_capped_pool_keeps_the_new_questions_first_and_then_the_failed_ones(journal):
    play(journal, {f"f{n}": [INCORRECT] for n in range(4)} | {f"s{n}": [CORRECT] for n in range(4)})
    manager = manager_of(journal, replay_other_share=1.0, max_pool_questions=6)
    new = [Question(question_id_of(text), text) for text in ("n0", "n1", "n2")]
    reasons = [entry.reason for entry in manager.next_pool(1, manager.outcomes(1), new)]
    assert sorted(reasons) == ["enhanced"] * 3 + ["failed_replay"] * 3


def test_who_answers_first_decides_nothing(tmp_path):
    pools = []
    for seed in range(3):
        with Journal(tmp_path / f"{seed}.db") as journal:
            play(journal, {f"f{n}": [INCORRECT] for n in range(20)})
            manager = manager_of(journal, new_questions_per_round=7)
            pools.append(texts(write(manager, WritingTeacher(seed)).admitted))
    assert pools[0] == pools[1] == pools[2]
    assert len(pools[0]) == 7


def test_questions_that_the_gate_turns_down_are_made_up_for_until_the_cap(journal):
    play(journal, {f"f{n}": [INCORRECT] for n in range(6)})
    manager = manager_of(journal, heldout=[successor(f"f{n}") for n in range(3)], new_questions_per_round=3)
    new = write(manager, WritingTeacher(1))
    assert texts(new.admitted) == sorted(successor(f"f{n}") for n in range(3, 6))
    assert new.counts["written"] == 3 + new.counts["held_out"]


def test_a_resumed_stage_asks_only_for_what_is_not_committed(journal):
    play(journal, {f"f{n}": [INCORRECT] for n in range(5)})
    manager = manager_of(journal)
    first = WritingTeacher(1)
    before = texts(write(manager, first).admitted)
    again = WritingTeacher(2)
    assert texts(write(manager, again).admitted) == before
    assert again.asked == []


def test_a_question_that_got_no_usable_reply_is_recorded_and_the_others_go_on(journal):
    play(journal, {f"f{n}": [INCORRECT] for n in range(3)})
    manager = manager_of(journal)
    new = write(manager, WritingTeacher(1, broken=frozenset({"f1"})))
    assert texts(new.admitted) == sorted([successor("f0"), successor("f2")])
    assert journal.enhancements(1)[question_id_of("f1")]["status"] == "failed"


def test_a_pool_file_that_shares_a_question_with_the_held_out_file_is_refused(tmp_path):
    (tmp_path / "pool.jsonl").write_text('{"question": "a  b?", "answer": "1"}\n')
    (tmp_path / "held.jsonl").write_text('{"question": "a b?", "answer": "1"}\n')
    settings = Settings(
        solver_model_path="m", questions_file=tmp_path / "pool.jsonl", validation_data_file=tmp_path / "held.jsonl"
    )
    with pytest.raises(DataError, match="would not be held out"):
        load_pool_and_heldout(settings)
