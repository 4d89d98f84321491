"""The easy-to-hard experiment's files: a wall between what teaches and what measures, and the levels that are meant."""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict

import pytest

from prosetting.demo.ledgers import recipe
from prosetting.demo.ledgers.prepare import _env_text
from prosetting.demo.ledgers.questions import heldout_rows, seed_pool, warm_start_examples
from prosetting.demo.ledgers.recipe import EVERY_ARM, RUN_SETTINGS, LedgerRecipe
from prosetting.demo.ledgers.reward import whole_ledger
from prosetting.processors.question_gate import numbers_of
from prosetting.settings_sources import load_settings
from prosetting.teachers import ledger
from prosetting.teachers.families import understand


def stories(texts: list[str]) -> list[ledger.Ledger]:
    found = [ledger.parse(text) for text in texts]
    return [story for story in found if story]


@pytest.mark.parametrize("seed", [1, 2])
def test_no_heldout_chain_teaches_the_solver(seed: int) -> None:
    heldout = {
        ledger.chain(story) for story in stories([row["question"] for row in heldout_rows(seed, LedgerRecipe())])
    }
    # Whatever the seed: the side of a chain does not depend on it.
    examples = itertools.islice(warm_start_examples(random.Random(3)), 2_000)
    taught = {ledger.chain(story) for story in stories([question for question, _ in examples])}
    taught |= {ledger.chain(story) for story in stories([row["question"] for row in seed_pool(3, LedgerRecipe())])}
    assert heldout
    assert heldout.isdisjoint(taught)


def test_equal_chains_have_equal_numbers_so_that_the_gate_keeps_held_out_ones_out_of_later_pools() -> None:
    numbers: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for question, _ in itertools.islice(warm_start_examples(random.Random(4)), 2_000):
        numbers[ledger.chain(stories([question])[0])].add(numbers_of(question))
    assert len(numbers) < 2_000
    assert all(len(found) == 1 for found in numbers.values())


def test_what_teaches_at_the_start_is_easy_and_what_measures_is_of_every_level() -> None:
    examples = itertools.islice(warm_start_examples(random.Random(1)), 500)
    warm = {ledger.level(story) for story in stories([question for question, _ in examples])}
    pool = Counter(ledger.level(story) for story in stories([row["question"] for row in seed_pool(1, LedgerRecipe())]))
    held = Counter(ledger.level(s) for s in stories([row["question"] for row in heldout_rows(1, LedgerRecipe())]))
    assert warm == set(recipe.WARM_START_LEVELS)
    assert max(pool) == max(warm) == recipe.TARGET_LEVEL - 2
    assert dict(held) == dict(LedgerRecipe().heldout)


def test_only_a_whole_ledger_is_right() -> None:
    question, solution = next(warm_start_examples(random.Random(2)))
    assert whole_ledger(question, solution, None) is True
    assert whole_ledger(question, solution[solution.index("\\boxed") :], None) is False
    assert whole_ledger("What is 2 + 2?", solution, "4") is None


def test_the_teacher_understands_every_question() -> None:
    for row in [*seed_pool(1, LedgerRecipe()), *heldout_rows(1, LedgerRecipe())]:
        known = understand(row["question"])
        assert known is not None
        assert str(known.answer) == row["answer"]


@pytest.mark.parametrize("arm", EVERY_ARM)
def test_the_settings_of_every_arm_are_valid(arm: str, tmp_path) -> None:
    (tmp_path / ".env").write_text(_env_text(tmp_path, 7, arm), encoding="utf-8")
    loaded = load_settings(flags={}, environ={}, env_file=tmp_path / ".env").settings
    assert loaded.shuffle_labels is (arm == "shuffled labels")
    assert loaded.total_rounds == int(RUN_SETTINGS["TOTAL_ROUNDS"])
