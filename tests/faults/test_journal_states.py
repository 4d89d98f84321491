"""Any order of events on a real journal, with kills and failed transactions in between, keeps what it promises."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from prosetting.core.journal import Journal
from prosetting.core.journal_rows import TeacherCall
from prosetting.datasets.dpo_data_converter import pairs_of_question
from prosetting.records import Grade, PoolEntry, Question, QuestionId, Stage, Trajectory, Verdict, question_id_of

QUESTIONS = [Question(question_id_of(text), text, reference="1") for text in ("a", "b", "c", "d")]
ROUNDS, ATTEMPTS = (1, 2, 3), 3

rounds = st.sampled_from(ROUNDS)
questions = st.sampled_from(QUESTIONS)
ids = questions.map(lambda question: question.question_id)
numbers = st.integers(0, ATTEMPTS - 1)
verdicts = st.sampled_from(Verdict)
texts = st.sampled_from(["x", "y", "z"])
Key = tuple[int, QuestionId, int]


def zone_of(went: Counter[Verdict]) -> str:
    correct, incorrect = bool(went[Verdict.CORRECT]), bool(went[Verdict.INCORRECT])
    return {(1, 0): "mastered", (1, 1): "learning", (0, 1): "too_hard", (0, 0): "undecided"}[correct, incorrect]


class Torn(Exception):
    """Raised inside a transaction: nothing of it may stay."""


class JournalMachine(RuleBasedStateMachine):
    """`drawn`, `decided`, `pools`, `replies`, `written`, `done` are what was committed, as the promises have it."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "j.db"
        self.journal = Journal(self.path)
        self.drawn: dict[Key, str] = {}
        self.verdict: dict[Key, Verdict] = {}
        self.pools: dict[int, dict[QuestionId, str]] = {}
        self.replies: dict[str, str] = {}
        self.paid: dict[str, int] = {}
        self.written: dict[tuple[int, QuestionId], str] = {}
        self.done: dict[tuple[int, str], int] = {}

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()
            self.folder.cleanup()

    def torn(self, write: Callable[[], None]) -> None:
        def write_and_fail() -> None:
            with self.journal.transaction():
                write()
                raise Torn

        with pytest.raises((Torn, sqlite3.IntegrityError)):
            write_and_fail()

    # Events of a run

    @rule(round_=rounds, entries=st.dictionaries(questions, st.sampled_from(["seed", "enhanced", "failed_replay"])))
    def set_pool(self, round_: int, entries: dict[Question, str]) -> None:
        self.journal.set_pool(round_, [PoolEntry(question, reason) for question, reason in entries.items()])
        self.pools[round_] = {question.question_id: reason for question, reason in entries.items()}

    @rule(round_=rounds, keys=st.lists(st.tuples(ids, numbers, texts), max_size=4))
    def sample(self, round_: int, keys: list[tuple[QuestionId, int, str]]) -> None:
        self.journal.add_trajectories("train", [Trajectory(round_, q, n, text, "stop", 1) for q, n, text in keys])
        for q, n, text in keys:
            self.drawn.setdefault((round_, q, n), text)

    @rule(round_=rounds, keys=st.lists(st.tuples(ids, numbers, verdicts), max_size=4))
    def grade(self, round_: int, keys: list[tuple[QuestionId, int, Verdict]]) -> None:
        grades = [Grade(round_, q, n, verdict, "rules") for q, n, verdict in keys]
        if any((round_, q, n) not in self.drawn for q, n, _ in keys):
            with pytest.raises(sqlite3.IntegrityError):
                self.journal.add_grades("train", grades)
            return
        self.journal.add_grades("train", grades)
        for q, n, verdict in keys:
            if verdict is not Verdict.UNKNOWN or (round_, q, n) not in self.verdict:
                self.verdict[round_, q, n] = verdict

    @precondition(lambda self: bool(self.drawn))
    @rule(data=st.data(), verdict=verdicts)
    def grade_what_is_drawn(self, data: st.DataObject, verdict: Verdict) -> None:
        round_, question_id, number = data.draw(st.sampled_from(sorted(self.drawn)))
        self.grade(round_, [(question_id, number, verdict)])

    @rule(request=texts, reply=st.none() | texts)
    def call_teacher(self, request: str, reply: str | None) -> None:
        self.journal.record(TeacherCall(request, "grade", "e", "m", reply, "", 1, 7, 3, 0.1, None))
        self.paid[request] = self.paid.get(request, 0) + 10
        if reply is not None:
            self.replies[request] = reply

    @rule(round_=rounds, question_id=ids, text=texts)
    def enhance(self, round_: int, question_id: QuestionId, text: str) -> None:
        self.journal.add_enhancement(round_, question_id, {"analysis": text})
        self.written[round_, question_id] = text

    @rule(round_=rounds, stage=st.sampled_from(Stage), output=st.integers(0, 9))
    def finish(self, round_: int, stage: Stage, output: int) -> None:
        self.journal.finish_stage(round_, stage, {"n": output}, {"out": output}, 0.5)
        self.done[round_, stage] = output

    # What comes between them

    @rule()
    def kill_and_start_again(self) -> None:
        self.journal.close()
        self.journal = Journal(self.path)

    @rule(round_=rounds, question_id=ids, number=numbers, verdict=verdicts)
    def kill_inside_a_transaction(self, round_: int, question_id: QuestionId, number: int, verdict: Verdict) -> None:
        with_open = self.journal.transaction()
        with_open.__enter__()
        self.journal.add_trajectories("train", [Trajectory(round_, question_id, number, "lost", "stop", 1)])
        self.journal.add_grades("train", [Grade(round_, question_id, number, verdict, "rules")])
        self.journal.set_pool(round_, [])
        self.journal.close()
        with pytest.raises(sqlite3.ProgrammingError):
            with_open.__exit__(None, None, None)
        self.journal = Journal(self.path)

    @rule(round_=rounds, question_id=ids, number=numbers, verdict=verdicts)
    def fail_inside_a_transaction(self, round_: int, question_id: QuestionId, number: int, verdict: Verdict) -> None:
        self.torn(
            lambda: self.journal.add_trajectories("train", [Trajectory(round_, question_id, number, "l", "stop", 1)])
        )
        self.torn(lambda: self.journal.add_grades("train", [Grade(round_, question_id, number, verdict, "rules")]))
        self.torn(lambda: self.journal.set_pool(round_, []))
        self.torn(lambda: self.journal.record(TeacherCall("x", "grade", "e", "m", "lost", "", 1, 1, 1, 0.1, None)))

    # Promises

    @invariant()
    def each_attempt_is_there_once_and_never_changed(self) -> None:
        found = [
            ((t.round, t.question_id, t.attempt), t.response)
            for r in ROUNDS
            for t in self.journal.trajectories("train", r)
        ]
        assert len(found) == len(dict(found))
        assert dict(found) == self.drawn

    @invariant()
    def every_grade_is_of_an_attempt_and_a_decided_one_stays_decided(self) -> None:
        found = {
            (r, t.question_id, t.attempt): grade.verdict
            for r in ROUNDS
            for t, grade in self.journal.graded_attempts("train", r)
        }
        assert found == self.verdict

    @invariant()
    def a_pair_is_of_one_correct_and_one_incorrect_attempt_at_one_question(self) -> None:
        for round_ in ROUNDS:
            for question in QUESTIONS:
                graded = [(t, g) for t, g in self.journal.attempts_of("train", round_, question.question_id) if g]
                pairs = pairs_of_question(question.text, graded, run_seed=1, most=None, shuffle_labels=False)
                for chosen, rejected in pairs.attempt_pairs if pairs else ():
                    assert self.verdict[round_, question.question_id, chosen] is Verdict.CORRECT
                    assert self.verdict[round_, question.question_id, rejected] is Verdict.INCORRECT

    @invariant()
    def attempts_are_counted_by_verdict_and_questions_by_how_they_went(self) -> None:
        for round_ in ROUNDS:
            verdicts = Counter(
                self.verdict[key].value if key in self.verdict else "" for key in self.drawn if key[0] == round_
            )
            counts = self.journal.verdict_counts("train", round_)
            assert {verdict: count for (verdict, _), count in counts.items()} == verdicts
            went: dict[QuestionId, Counter[Verdict]] = {}
            for (r, question_id, _), verdict in self.verdict.items():
                if r == round_:
                    went.setdefault(question_id, Counter())[verdict] += 1
            played = {
                one.question_id: (one.correct, one.incorrect, one.unknown)
                for one in self.journal.played(round_, most=99)
            }
            assert played == {q: tuple(went.get(q, Counter())[v] for v in Verdict) for q in self.pools.get(round_, {})}
            assert self.journal.zone_counts(round_) == Counter(map(zone_of, went.values()))
            assert self.journal.pool_counts(round_) == Counter(self.pools.get(round_, {}).values())

    @invariant()
    def pools_are_conserved(self) -> None:
        for round_ in ROUNDS:
            found = {entry.question.question_id: entry.reason for entry in self.journal.pool(round_)}
            assert found == self.pools.get(round_, {})

    @invariant()
    def what_was_paid_for_is_there_and_counted_once(self) -> None:
        for request in ("x", "y", "z"):
            assert self.journal.recall([request]) == ([self.replies[request]] if request in self.replies else [])
        totals = self.journal.teacher_totals()
        assert (totals.calls, totals.prompt_tokens + totals.completion_tokens) == (
            len(self.paid),
            sum(self.paid.values()),
        )
        for round_ in ROUNDS:
            found = {(round_, q): outcome["analysis"] for q, outcome in self.journal.enhancements(round_)}
            assert found == {key: text for key, text in self.written.items() if key[0] == round_}

    @invariant()
    def the_stages_done_are_those_finished(self) -> None:
        for round_ in ROUNDS:
            records = {stage: self.journal.stage(round_, stage) for stage in self.journal.stages_done(round_)}
            found = {(round_, stage): record.output["out"] for stage, record in records.items() if record}
            assert found == {key: out for key, out in self.done.items() if key[0] == round_}


JournalMachine.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestJournal = JournalMachine.TestCase
