"""The experiment's stories, and the wall between those that teach and those that measure.

As in the demo, the chain of numbers and operations decides the side by its hash, whatever the seed: no chain of the
held-out file occurs in a warm start or a first pool, under any names and verbs.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

from prosetting.demo.ledgers.recipe import WARM_START_LEVELS, LedgerRecipe
from prosetting.teachers.ledger import Ledger, chain, random_ledger, render, solution_text, solve

HELDOUT_ONE_IN = 5


def is_heldout(story: Ledger) -> bool:
    """Whether this story's chain may be used for measuring only."""
    return hashlib.sha256(chain(story).encode()).digest()[0] % HELDOUT_ONE_IN == 0


def draw(rng: random.Random, level: int, *, heldout: bool) -> Ledger:
    while is_heldout(story := random_ledger(rng, level)) != heldout:
        pass
    return story


def warm_start_examples(rng: random.Random) -> Iterator[tuple[str, str]]:
    """Question and worked solution without end, levels 1 to 3 with equal chance."""
    while True:
        story = draw(rng, rng.choice(WARM_START_LEVELS), heldout=False)
        yield render(story), solution_text(story)


def seed_pool(seed: int, recipe: LedgerRecipe) -> list[dict[str, str]]:
    """Rows of the first round's question file, of the warm start's levels."""
    return _rows(random.Random(f"{seed} seed pool"), recipe.pool, heldout=False)


def heldout_rows(seed: int, recipe: LedgerRecipe) -> list[dict[str, str]]:
    """Rows of the held-out file."""
    return _rows(random.Random(f"{seed} held out"), recipe.heldout, heldout=True)


def _rows(rng: random.Random, counts: tuple[tuple[int, int], ...], *, heldout: bool) -> list[dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    for level, count in counts:
        wanted = len(rows) + count
        while len(rows) < wanted:
            story = draw(rng, level, heldout=heldout)
            rows[render(story)] = {"question": render(story), "answer": str(solve(story))}
    return list(rows.values())
