"""Stage 5: which questions the next round plays."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Sequence

import pytest

from prosetting.config import Settings
from prosetting.core.concurrency import Frontier
from prosetting.core.group_commit import GroupCommit
from prosetting.core.journal import Journal
from prosetting.core.progress import Progress
from prosetting.errors import TeacherReplyError
from prosetting.managers.question_manager import NewQuestions, QuestionManager, generators_share
from prosetting.managers.question_sources import measured_by_source, written_by_source
from prosetting.records import Grade, PoolEntry, Question, QuestionId, Trajectory, Verdict, question_id_of
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
    graded, drafted = Frontier(), Frontier()
    graded.complete()
    drafted.complete()
    return asyncio.run(manager.write_questions(1, Frontier(), graded, teacher, drafted))


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


def texts(journal: Journal, questions: Sequence[QuestionId]) -> list[str]:
    return sorted(question.text for question in map(journal.question, questions) if question)


def test_a_question_with_any_incorrect_attempt_is_failed_and_an_unknown_one_is_not(journal):
    play(journal, {"mixed": [CORRECT, INCORRECT], "solved": [CORRECT, CORRECT], "open": [CORRECT, UNKNOWN]})
    pool = manager_of(journal).next_pool(1, [])
    assert [question_id for question_id, reason in pool if reason == "failed_replay"] == [question_id_of("mixed")]


def test_the_next_pool_has_all_failed_a_share_of_the_others_and_the_new(journal):
    verdicts = {f"f{n}": [INCORRECT] for n in range(3)} | {f"s{n}": [CORRECT] for n in range(10)}
    play(journal, verdicts)
    manager = manager_of(journal)
    new = write(manager, WritingTeacher(1))
    pool = manager.next_pool(1, new.admitted)
    reasons = [reason for _, reason in pool]
    assert {reason: reasons.count(reason) for reason in set(reasons)} == {
        "failed_replay": 3,
        "other_replay": 2,
        "enhanced": 13,
    }
    assert pool == sorted(pool)


def test_all_others_are_replayed_when_so_set(journal):
    play(journal, {f"s{n}": [CORRECT] for n in range(10)})
    manager = manager_of(journal, replay_other_share=1.0)
    assert len(manager.next_pool(1, [])) == 10


def test_fewer_failed_questions_are_replayed_when_so_set(journal):
    play(journal, {f"f{n}": [INCORRECT] for n in range(10)})
    manager = manager_of(journal, replay_failed_share=0.5)
    assert len(manager.next_pool(1, [])) == 5


def test_a_capped_pool_keeps_the_new_questions_first_and_then_the_failed_ones(journal):
    play(journal, {f"f{n}": [INCORRECT] for n in range(4)} | {f"s{n}": [CORRECT] for n in range(4)})
    manager = manager_of(journal, replay_other_share=1.0, max_pool_questions=6)
    new = [question_id_of(text) for text in ("n0", "n1", "n2")]
    reasons = [reason for _, reason in manager.next_pool(1, new)]
    assert sorted(reasons) == ["enhanced"] * 3 + ["failed_replay"] * 3


def test_who_answers_first_decides_nothing(tmp_path):
    pools = []
    for seed in range(3):
        with Journal(tmp_path / f"{seed}.db") as journal:
            play(journal, {f"f{n}": [INCORRECT] for n in range(20)})
            manager = manager_of(journal, new_questions_per_round=7)
            pools.append(texts(journal, write(manager, WritingTeacher(seed)).admitted))
    assert pools[0] == pools[1] == pools[2]
    assert len(pools[0]) == 7


def test_questions_that_the_gate_turns_down_are_made_up_for_until_the_cap(journal):
    play(journal, {f"f{n}": [INCORRECT] for n in range(6)})
    manager = manager_of(journal, heldout=[successor(f"f{n}") for n in range(3)], new_questions_per_round=3)
    new = write(manager, WritingTeacher(1))
    assert texts(journal, new.admitted) == sorted(successor(f"f{n}") for n in range(3, 6))
    assert new.counts["written"] == 3 + new.counts["held_out"]


def test_a_resumed_stage_asks_only_for_what_is_not_committed(journal):
    play(journal, {f"f{n}": [INCORRECT] for n in range(5)})
    manager = manager_of(journal)
    first = WritingTeacher(1)
    before = texts(journal, write(manager, first).admitted)
    again = WritingTeacher(2)
    assert texts(journal, write(manager, again).admitted) == before
    assert again.asked == []


def test_a_question_that_got_no_usable_reply_is_recorded_and_the_others_go_on(journal):
    play(journal, {f"f{n}": [INCORRECT] for n in range(3)})
    manager = manager_of(journal)
    new = write(manager, WritingTeacher(1, broken=frozenset({"f1"})))
    assert texts(journal, new.admitted) == sorted([successor("f0"), successor("f2")])
    assert dict(journal.enhancements(1))[question_id_of("f1")]["status"] == "failed"


def test_teacher2_is_asked_about_a_question_while_others_are_still_being_graded(journal):
    play(journal, {f"f{n}": [INCORRECT] for n in range(3)})
    teacher, graded = WritingTeacher(1), Frontier()

    async def run() -> None:
        writing = asyncio.create_task(manager_of(journal).write_questions(1, Frontier(), graded, teacher))
        graded.done(0)
        while not list(journal.enhancements(1)):
            await asyncio.sleep(0.001)
        first = journal.question(journal.pool_ids(1)[0])
        assert teacher.asked == [first.text if first else ""]
        graded.complete()
        assert len((await writing).admitted) == 3

    asyncio.run(run())


def test_teacher2_waits_while_grading_is_behind(journal):
    play(journal, {f"f{n}": [INCORRECT] for n in range(20)})
    teacher, sampled, graded = WritingTeacher(1), Frontier(), Frontier()

    async def run() -> None:
        sampled.complete()
        writing = asyncio.create_task(
            manager_of(journal, teacher_concurrent_workers=2).write_questions(1, sampled, graded, teacher)
        )
        for place in range(15):
            graded.done(place)
            await asyncio.sleep(0.01)
        assert teacher.asked == []
        graded.done(15)
        while not teacher.asked:
            await asyncio.sleep(0.001)
        graded.complete()
        assert len((await writing).admitted) == 20

    asyncio.run(run())


@pytest.mark.parametrize("cap", [None, 7])
def test_what_is_asked_early_is_what_would_be_asked_late(tmp_path, cap):
    """And neither more nor less."""
    asked = []
    for early in (True, False):
        with Journal(tmp_path / f"{early}.db") as journal:
            verdicts = {f"f{n}": [INCORRECT] for n in range(12)} | {f"u{n}": [UNKNOWN] for n in range(6)}
            play(journal, verdicts | {f"m{n}": [INCORRECT, UNKNOWN] for n in range(4)})
            teacher, graded = WritingTeacher(1), Frontier()

            async def run(journal=journal, teacher=teacher, graded=graded, early=early) -> None:
                manager = manager_of(journal, new_questions_per_round=cap)
                writing = asyncio.create_task(manager.write_questions(1, Frontier(), graded, teacher))
                for place in range(20 if early else 0):
                    graded.done(place)
                    await asyncio.sleep(0.002)
                graded.complete()
                await writing

            asyncio.run(run())
            asked.append(sorted(teacher.asked))
    assert asked[0] == asked[1]


def test_a_question_with_an_unknown_verdict_is_not_asked_about_before_the_round_is_graded(journal):
    """A resumed run may still decide it, and then something else is to be asked."""
    play(journal, {"mixed": [INCORRECT, UNKNOWN]})
    teacher, graded = WritingTeacher(1), Frontier()

    async def run() -> None:
        writing = asyncio.create_task(
            manager_of(journal)._ask_early(
                1, journal.pool_ids(1), frozenset(journal.pool_ids(1)), Frontier(), graded, teacher, Progress("", 1)
            )
        )
        graded.done(0)
        await writing

    asyncio.run(run())
    assert teacher.asked == []


def draft(journal: Journal, manager: QuestionManager, text: str = "{}\nAnswer: 1", finish="stop") -> list[QuestionId]:
    """What the Generator writes in its turn."""
    wanted = manager.to_draft(1)
    drafts = []
    for parent in wanted:
        question = journal.question(parent)
        assert question
        drafts.append(Trajectory(1, parent, 0, text.format(successor(question.text)), finish, 9))
    journal.add_trajectories("generator", drafts)
    return wanted


def with_generator(journal: Journal, share: float, **settings) -> QuestionManager:
    return manager_of(journal, generator_model_path="g", generator_share=share, **settings)


def test_the_generator_has_its_share_of_any_first_parents() -> None:
    parents = [QuestionId(str(n)) for n in range(1000)]
    for share in (0.0, 0.1, 0.5, 1.0):
        mine = generators_share(parents, share)
        assert all(abs(len(mine & set(parents[:first])) - share * first) < 1 for first in (1, 10, 77, 1000))


def test_half_of_the_parents_go_to_the_generator_and_teacher2_only_solves_what_it_wrote(journal):
    play(journal, {f"f{n}": [INCORRECT] for n in range(10)})
    manager, teacher = with_generator(journal, 0.5), WritingTeacher(1)
    drafted = draft(journal, manager)
    new = write(manager, teacher)
    assert (len(drafted), len(teacher.asked), len(new.admitted)) == (5, 5, 10)
    sources = {parent: outcome["source"] for parent, outcome in journal.enhancements(1)}
    assert {parent for parent, source in sources.items() if source == "generator"} == set(drafted)


def test_the_share_of_teacher2_is_what_it_would_be_asked_without_the_other(tmp_path):
    """The order of parents is the same, so two runs differ in who writes and not in what is built on."""
    asked = {}
    for share in (0.0, 0.5):
        with Journal(tmp_path / f"{share}.db") as journal:
            play(journal, {f"f{n}": [INCORRECT] for n in range(10)})
            manager, teacher = with_generator(journal, share), WritingTeacher(1)
            draft(journal, manager)
            write(manager, teacher)
            asked[share] = set(teacher.asked)
    assert asked[0.5] < asked[0.0]


@pytest.mark.parametrize(
    ("text", "finish", "came_to"),
    [
        ("{}\nAnswer: 1", "length", "failed"),
        ("\nAnswer: 1", "stop", "failed"),
        ("{}", "stop", "no_reference"),
        ("{}\nAnswer: 2", "stop", "reference_disagrees"),
        ("{}<|im_end|>\nAnswer: 1", "stop", "malformed"),
        ("{}" + "x" * 5_000 + "\nAnswer: 1", "stop", "too_long"),
    ],
)
def test_what_the_generator_writes_meets_the_same_gate(journal, text, finish, came_to):
    play(journal, {f"f{n}": [INCORRECT] for n in range(2)})
    manager = with_generator(journal, 1.0)
    draft(journal, manager, text, finish)
    new = write(manager, WritingTeacher(1))
    assert (new.admitted, new.counts[came_to]) == ([], 2)


def test_of_several_drafts_the_first_is_taken_with_whose_answer_the_teacher_agrees(journal):
    play(journal, {"f0": [INCORRECT]})
    manager = with_generator(journal, 1.0)
    (parent,) = manager.to_draft(1)
    texts = ["", "the first?\nAnswer: 2", "second one?\nAnswer: 1", "third one?\nAnswer: 1"]
    drafts = [Trajectory(1, parent, n, text, "stop", 9) for n, text in enumerate(texts)]
    journal.add_trajectories("generator", drafts)
    (admitted,) = write(manager, WritingTeacher(1)).admitted
    assert journal.question(admitted).text == "second one?"
    assert written_by_source(journal, 1)["generator"].teacher_calls == {"solve": 2}


def try_draft(journal: Journal, parent: QuestionId, number: int, correct: int, of: int = 4) -> None:
    """The Solver's attempts at one draft."""
    name = QuestionId(f"{parent}/{number}")
    journal.add_trajectories("trial", [Trajectory(1, name, n, "r", "stop", 1) for n in range(of)])
    verdicts = [CORRECT if n < correct else INCORRECT for n in range(of)]
    journal.add_grades("trial", [Grade(1, name, n, verdict, "rules") for n, verdict in enumerate(verdicts)])


def test_of_several_drafts_the_teacher_solves_first_what_the_solver_half_can(journal):
    play(journal, {"f0": [INCORRECT]})
    manager = with_generator(journal, 1.0)
    (parent,) = manager.to_draft(1)
    texts = ["too easy?\nAnswer: 1", "never tried?\nAnswer: 1", "half of it?\nAnswer: 2", "most of it?\nAnswer: 1"]
    journal.add_trajectories("generator", [Trajectory(1, parent, n, text, "stop", 9) for n, text in enumerate(texts)])
    for number, correct in ((0, 4), (2, 2), (3, 3)):
        try_draft(journal, parent, number, correct)
    (admitted,) = write(manager, WritingTeacher(1)).admitted
    assert journal.question(admitted).text == "most of it?", "the teacher does not agree with the answer of the first"
    assert written_by_source(journal, 1)["generator"].teacher_calls == {"solve": 2}


def test_a_draft_that_the_gate_turns_away_for_its_text_takes_no_call_and_the_next_one_has_its_turn(journal):
    play(journal, {"f0": [INCORRECT], "f1": [INCORRECT]})
    manager = manager_of(journal, ["Ann has 3 and 4 more?"], generator_model_path="g", generator_share=1.0)
    first, second = manager.to_draft(1)
    bad = ["Bob has 3 and 4 more?\nAnswer: 7", "<|im_end|> what?\nAnswer: 1", "no answer to it?"]
    journal.add_trajectories("generator", [Trajectory(1, first, n, text, "stop", 9) for n, text in enumerate(bad)])
    good = [*bad, "a good one?\nAnswer: 1"]
    journal.add_trajectories("generator", [Trajectory(1, second, n, text, "stop", 9) for n, text in enumerate(good)])
    assert [question.text for question in manager.to_try(1)] == ["a good one?"]
    (admitted,) = write(manager, WritingTeacher(1)).admitted
    assert journal.question(admitted).text == "a good one?"
    written = written_by_source(journal, 1)["generator"]
    assert (written.refused, written.teacher_calls) == ({"held_out_numbers": 1}, {"solve": 1})


def test_the_generators_share_is_filled_with_what_the_solver_half_can(journal):
    play(journal, {f"f{n}": [INCORRECT] for n in range(20)})
    manager = with_generator(journal, 1.0, new_questions_per_round=5)
    parents = draft(journal, manager)
    for place, parent in enumerate(parents):
        try_draft(journal, parent, 0, 2 if place % 2 else 4)
    new = write(manager, WritingTeacher(1))
    assert {journal.question(question_id).parent_id for question_id in new.admitted} == set(parents[1::2])


def test_each_writer_has_its_share_of_the_cap_and_neither_makes_up_for_the_other(journal):
    play(journal, {f"f{n}": [INCORRECT] for n in range(20)})
    manager, teacher = with_generator(journal, 0.5, new_questions_per_round=6), WritingTeacher(1)
    draft(journal, manager, "{}")
    new = write(manager, teacher)
    assert (len(teacher.asked), len(new.admitted), new.counts["no_reference"]) == (3, 3, 6)


def test_beyond_what_the_generator_drafted_nothing_is_built_on_its_share(journal):
    play(journal, {f"f{n}": [INCORRECT] for n in range(20)})
    manager, teacher = with_generator(journal, 1.0, new_questions_per_round=2), WritingTeacher(1)
    assert len(draft(journal, manager, "{}")) == 4
    assert (write(manager, teacher).admitted, teacher.asked) == ([], [])


def test_questions_are_told_by_who_wrote_them(journal):
    play(journal, {f"f{n}": [INCORRECT] for n in range(10)})
    manager = with_generator(journal, 0.5)
    draft(journal, manager, "{}\nAnswer: 2")
    new = write(manager, WritingTeacher(1))
    written = written_by_source(journal, 1)
    assert (written["teacher2"].asked, written["teacher2"].admitted, written["teacher2"].refused) == (5, 5, {})
    assert (written["generator"].admitted, written["generator"].refused) == (0, {"reference_disagrees": 5})
    assert written["teacher2"].teacher_calls == {"analyse": 5, "enhance": 5, "solve": 5}
    assert written["generator"].teacher_calls == {"solve": 5}
    journal.fill_pool(2, manager.next_pool(1, new.admitted))
    for n, question_id in enumerate(new.admitted):
        tried = [Trajectory(2, question_id, attempt, "r", "stop", 1) for attempt in range(4)]
        journal.add_trajectories("train", tried)
        journal.add_grades(
            "train", [Grade(2, question_id, a, CORRECT if a < n else INCORRECT, "rules") for a in range(4)]
        )
    (measured,) = measured_by_source(journal, 1).values()
    assert (measured.played, measured.in_band, measured.mean_pass_rate) == (5, 3, 0.5)
    assert measured.pass_rates == [1, 0, 1, 0, 1, 0, 1, 1]
