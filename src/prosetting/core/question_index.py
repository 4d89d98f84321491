"""Which questions are known so far, and which of them reads almost like a new one: an inverted index in the journal.

Every question's word trigrams are stored under themselves. Two questions of Jaccard similarity t or more share at
least t/(1+t) of their trigrams together, so that leaving out all but n − ⌈t·n⌉ + 1 of a text's n trigrams leaves one
they share (prefix filtering: Chaudhuri 2006, Bayardo 2007). The rarest are looked up, how many of them a question must
have follows from its size (Xiao 2008), and the few that have so many are compared exactly: nothing is ever missed.

What a look-up costs is the length of these rarest lists and does not grow with the questions known, unless thousands
share more than two thirds of a text: then it grows by a scan of their entries, while those compared stay few.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from fractions import Fraction
from zlib import crc32

from prosetting.core.artifacts import draw_seed
from prosetting.core.text import NEAR_DUPLICATE, jaccard, ngrams, words
from prosetting.records import Question, QuestionId

TRIGRAM = 3
# The threshold as a fraction, so that no candidate is lost to rounding.
_SHARED, _OF = Fraction(str(NEAR_DUPLICATE)).as_integer_ratio()
_LONG_LIST = 200
"""Lists of this length or more count as equally long when the shortest are chosen."""


class QuestionIndex:
    """The index of one journal. Its writes belong to whatever transaction is open."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def add(self, round_: int, questions: Iterable[Question], template: str | None = None) -> None:
        """Make questions known as those of a round's pool; one that is known stays as it is.

        `template` is that of a question which was just admitted (see `admitted_like`).
        """
        entries: list[tuple[int, QuestionId, int]] = []
        for question in questions:
            grams = _trigrams(question.text)
            entries += ((gram, question.question_id, len(grams)) for gram in _hashes(grams))
            self._db.execute(
                "INSERT OR IGNORE INTO question_index VALUES (?, ?, ?)",
                (question.question_id, round_, None if template is None else draw_seed(template)),
            )
        # In key order the pages of a large table are written once each.
        self._db.executemany("INSERT OR IGNORE INTO question_grams VALUES (?, ?, ?)", sorted(entries))

    def holds(self, question_id: QuestionId) -> bool:
        return bool(self._db.execute("SELECT 1 FROM question_index WHERE question_id = ?", (question_id,)).fetchone())

    def admitted_like(self, round_: int, template: str) -> int:
        """How many questions with this template were admitted to a round's pool."""
        row = self._db.execute(
            "SELECT count(*) FROM question_index WHERE round = ? AND template = ?", (round_, draw_seed(template))
        ).fetchone()
        return int(row[0])

    def nearest(self, text: str) -> tuple[QuestionId, float] | None:
        """The most similar known question and its similarity (0.7 … 1), None where none is that close."""
        grams = _trigrams(text)
        candidates = self._candidates(len(grams), _hashes(grams))
        found = [(jaccard(grams, _trigrams(known)), name) for name, known in candidates]
        similarity, name = max(found, default=(0.0, QuestionId("")))
        return (name, similarity) if similarity >= NEAR_DUPLICATE else None

    def _candidates(self, size: int, hashes: Iterable[int]) -> list[tuple[QuestionId, str]]:
        """Id and text of each known question that has enough of the rarest of `size` trigrams to be similar."""
        probes = self._rarest_first(hashes)[: size * (_OF - _SHARED) // _OF + 1]
        unseen = size - len(probes)
        return self._db.execute(
            "SELECT question_id, text FROM question_index JOIN questions USING (question_id) WHERE question_id IN"
            f" (SELECT question_id FROM question_grams WHERE gram IN ({', '.join('?' * len(probes))})"
            f" GROUP BY question_id HAVING {_SHARED + _OF} * (count(*) + ?) >= {_SHARED} * (? + max(size)))",
            (*probes, unseen, size),
        ).fetchall()

    def _rarest_first(self, hashes: Iterable[int]) -> list[int]:
        length = "(SELECT count(*) FROM (SELECT 1 FROM question_grams WHERE gram = value LIMIT ?))"
        rows = self._db.execute(
            f"SELECT value FROM json_each(?) ORDER BY {length}, value", (json.dumps(list(hashes)), _LONG_LIST)
        )
        return [row[0] for row in rows]


def _trigrams(text: str) -> frozenset[str]:
    return ngrams(words(text), TRIGRAM)


def _hashes(grams: Iterable[str]) -> set[int]:
    """Two trigrams of one hash make a candidate too many, never one too few."""
    return {crc32(gram.encode("utf-8", "surrogatepass")) for gram in grams}
