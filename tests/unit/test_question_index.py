"""The index of known questions gives what comparing with every one of them gives, and is kept in the journal."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from prosetting.core import journal_questions
from prosetting.core.journal import Journal
from prosetting.core.text import NEAR_DUPLICATE, likeness
from prosetting.records import PoolEntry, Question, QuestionId, question_id_of


def question(text: str) -> Question:
    return Question(question_id_of(text), text)


def entries(*texts: str) -> list[PoolEntry]:
    return [PoolEntry(question(text), "seed") for text in texts]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "j.db") as found:
        yield found


def changed_texts(rng: random.Random, base: list[list[str]]) -> Iterator[str]:
    """Each text with 0 to 7 words replaced, dropped or doubled: similarities on both sides of the threshold."""
    for number, text in enumerate(base * 4):
        words = list(text)
        for _ in range(min(number % 8, len(words) - 1)):
            place = rng.randrange(len(words))
            words[place : place + 1] = rng.choice([["x"], [], [words[place], words[place]]])
        yield " ".join(words)


def random_words(rng: random.Random) -> list[list[str]]:
    return [[str(rng.randrange(10**6)) for _ in range(rng.randrange(1, 60))] for _ in range(60)]


def one_family(rng: random.Random) -> list[list[str]]:
    """Most of the text is the same in all of them, as with questions from a template."""
    names = ["Ana", "Bob", "Cem", "Dora"]
    story = (
        "{} has {} red apples and {} green pears in {} big boxes and sells {} of them on the way to the market today"
    )
    return [story.format(rng.choice(names), *(rng.randrange(30) for _ in range(4))).split() for _ in range(60)]


@pytest.mark.parametrize("texts", [random_words, one_family])
def test_near_duplicates_are_those_of_the_exact_similarity(journal: Journal, texts) -> None:
    rng = random.Random(0)
    base = texts(rng)
    known = {q.question_id: q.text for q in (question(" ".join(words)) for words in base)}
    journal.set_pool(1, entries(*known.values()))
    journal.index_pools(1)
    found = 0
    for new in changed_texts(rng, base):
        best = max((likeness(new, old), name) for name, old in known.items())
        expected = (best[1], best[0]) if best[0] >= NEAR_DUPLICATE else None
        assert journal.question_index.nearest(new) == expected
        found += expected is not None
    assert 40 < found < 240, "both sides of the threshold were met"


def test_few_of_a_large_family_are_compared(journal: Journal) -> None:
    """Questions that share most of a text are told apart in the index, not by reading each."""
    story = "{} has {} apples and {} pears in the old blue kitchen of the house near the river and eats {} of them"
    family = [story.format(f"name{n}", n, n + 1, n + 2) for n in range(400)]
    journal.set_pool(1, entries(*family))
    journal.index_pools(1)
    read: list[str] = []
    journal._db.set_trace_callback(read.append)
    journal.question_index.nearest(story.format("Zoe", 1001, 2002, 3003))
    journal._db.set_trace_callback(None)
    lookup = next(statement for statement in read if statement.startswith("SELECT question_id, text"))
    assert len(journal._db.execute(lookup).fetchall()) == 0


def test_a_text_without_words_is_like_nothing(journal: Journal) -> None:
    journal.set_pool(1, entries("… !", "one two three"))
    journal.index_pools(1)
    assert journal.question_index.holds(question_id_of("… !"))
    assert journal.question_index.nearest("?") is None


def index_of(journal: Journal) -> list[list[tuple[object, ...]]]:
    statements = (
        "SELECT question_id, round FROM question_index ORDER BY 1",
        "SELECT * FROM question_grams ORDER BY 1, 2",
    )
    return [journal._db.execute(statement).fetchall() for statement in statements]


def test_an_index_made_round_by_round_is_that_of_a_fresh_build(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(journal_questions, "INDEXED_AT_ONCE", 2)
    pools = [["a b c d", "e f g h", "i j k l"], ["a b c d", "m n o p"], ["m n o p", "q r s t", "e f g h"]]
    with Journal(tmp_path / "slow.db") as slow, Journal(tmp_path / "fresh.db") as fresh:
        for number, texts in enumerate(pools, start=1):
            slow.set_pool(number, entries(*texts))
            slow.index_pools(number)
            slow.index_pools(number)
            fresh.set_pool(number, entries(*texts))
        fresh.index_pools(3)
        assert index_of(slow) == index_of(fresh)
        assert len(index_of(slow)[0]) == 5


def test_building_goes_on_where_it_was_broken_off(journal: Journal, monkeypatch) -> None:
    monkeypatch.setattr(journal_questions, "INDEXED_AT_ONCE", 1)
    journal.set_pool(1, entries("a b c d", "e f g h"))
    add, calls = journal.question_index.add, []

    def add_once(round_: int, questions: list[Question]) -> None:
        if calls:
            raise RuntimeError("killed")
        calls.append(add(round_, questions))

    monkeypatch.setattr(journal.question_index, "add", add_once)
    with pytest.raises(RuntimeError, match="killed"):
        journal.index_pools(1)
    monkeypatch.undo()
    journal.index_pools(1)
    assert [journal.question_index.holds(question_id_of(text)) for text in ("a b c d", "e f g h")] == [True, True]


def test_an_admitted_question_is_known_at_once_and_forgotten_where_the_pool_had_no_room(journal: Journal) -> None:
    journal.set_pool(1, entries("a b c d"))
    journal.index_pools(1)
    kept, dropped = question("one two three four"), question("five six seven eight")
    journal.add_questions([kept, dropped])
    journal.question_index.add(2, [kept, dropped], "a template")
    assert journal.question_index.admitted_like(2, "a template") == 2
    assert journal.question_index.nearest(dropped.text) == (dropped.question_id, 1.0)
    journal.set_pool(2, [PoolEntry(kept, "enhanced")])
    journal.index_pools(2)
    assert journal.question_index.holds(kept.question_id)
    assert not journal.question_index.holds(dropped.question_id)
    assert journal.question_index.nearest(dropped.text) is None
    assert journal.question_index.admitted_like(3, "a template") == 0


def test_a_question_that_is_there_stays_as_it_is(journal: Journal) -> None:
    journal.set_pool(1, entries("one two three four five six"))
    journal.index_pools(1)
    before = index_of(journal)
    journal.question_index.add(2, [question("one two three four five six")], "t")
    assert index_of(journal) == before
    assert journal.question_index.nearest("one two three four five six") == (
        QuestionId(question_id_of("one two three four five six")),
        1.0,
    )
