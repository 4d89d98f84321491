"""A verifier for another domain than mathematics: words in alphabetical order.

    REWARD_FUNCTION=examples/reward_words.py:words_in_order

A question it can judge: "Put these words in alphabetical order: pear, apple, fig." The last line of the response
is the answer: "apple, fig, pear" or "Answer: apple fig pear". No reference is needed.
"""

from __future__ import annotations

import re

ASKED = re.compile(r"alphabetical order: *(.+)", re.IGNORECASE)


def words_in_order(question: str, response: str, reference: str | None) -> bool | None:
    """True or False for such a question; None, no opinion, for any other."""
    asked = ASKED.search(question)
    if asked is None:
        return None
    lines = response.strip().splitlines()
    answer = lines[-1].rpartition(":")[2] if lines else ""
    return words(answer) == sorted(words(asked[1]))


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())
