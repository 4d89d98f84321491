"""The ledger family: exact inverses, whole ledgers only, levels one apart."""

from __future__ import annotations

import random

import pytest

from prosetting.teachers import ledger
from prosetting.teachers.arithmetic import Diagnosis
from prosetting.teachers.ledger import Event, Ledger

EVA = Ledger(4, 2, (Event("eats", 1), Event("waits"), Event("finds", 3)), ((2, "It rains"),))
TEXT = "Eva has 2. Fay eats 1. It rains. Gus waits. Hal finds 3. Total?"


def drawn(seed: int, count: int) -> list[Ledger]:
    rng = random.Random(seed)
    return [ledger.random_ledger(rng, rng.randint(1, ledger.MAX_LEVEL)) for _ in range(count)]


def test_a_story_reads_as_it_is_told() -> None:
    assert ledger.render(EVA) == TEXT
    assert ledger.solution_text(EVA) == r"Eva=2 Fay-1=1 Gus=1 Hal+3=4 \boxed{4}"
    assert (ledger.level(EVA), ledger.chain(EVA), ledger.solve(EVA)) == (2, "2-1+3", 4)


def test_parse_and_render_are_inverses() -> None:
    for story in drawn(1, 500):
        assert ledger.parse(ledger.render(story)) == story


@pytest.mark.parametrize(
    "text",
    [
        "",
        " Total?",
        "It rains. Total?",
        "Eva has 2. Total?",
        f"{TEXT} ",
        TEXT.replace("Gus", "Hal"),
        TEXT.replace("eats 1", "eats 3"),
        TEXT.replace("eats", "hides"),
        TEXT.replace("waits", "waits 2"),
        "Eva has 2. " * 50 + "Total?",
    ],
)
def test_any_other_text_is_no_story(text: str) -> None:
    assert ledger.parse(text) is None


@pytest.mark.parametrize(
    ("response", "whole", "right", "mistake"),
    [
        (r"Eva=2 Fay-1=1 Gus=1 Hal+3=4 \boxed{4}", True, True, Diagnosis.NONE),
        (r"\boxed{4}", False, True, Diagnosis.MISSING_STEP),
        (r"Eva=2 Fay+1=3 Gus=3 Hal+3=4 \boxed{4}", False, True, Diagnosis.WRONG_OPERATION),
        (r"Eva=2 Fay-1=1 Hal+3=4 \boxed{4}", False, True, Diagnosis.MISSING_STEP),
        (r"Eva=2 Fay-2=0 Gus=0 Hal+3=3 \boxed{3}", False, False, Diagnosis.COPIED_WRONGLY),
        (r"Eva=2 Fay-1=1 Gus=1 Hal+3=5 \boxed{5}", False, False, Diagnosis.SLIP),
        (r"Eva=2 Fay-1=1 Gus=1 Hal+3=4 Ian=4 \boxed{4}", False, True, Diagnosis.OTHER),
        (r"Eva=2 Fay-1=1 Gus=1 Hal+3=4 \boxed{5}", False, False, Diagnosis.COPIED_WRONGLY),
        ("Eva=2 Fay-1=1", False, False, Diagnosis.NO_ANSWER),
    ],
)
def test_a_right_number_alone_is_no_ledger(response: str, whole: bool, right: bool, mistake: Diagnosis) -> None:
    assert ledger.is_whole(EVA, response) is whole
    assert ledger.diagnose(EVA, response) == (right, mistake)


def test_rewrites_move_the_level_by_one_within_the_family() -> None:
    rng = random.Random(3)
    for story in drawn(2, 100):
        of = ledger.level(story)
        for rewrite, wanted in ((ledger.easier, of - 1), (ledger.variant, of), (ledger.harder, of + 1)):
            new = rewrite(story, rng)
            assert (ledger.level(new) == wanted) if new else wanted in (0, ledger.MAX_LEVEL + 1)
            assert new != story
