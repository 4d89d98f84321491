"""The family of word problems that the offline teacher understands completely.

A story has one to four steps, and its worked solution is the chain of their results:

    Max starts with 5 cards. Max buys 4 more. Max gives 3 away. How many cards does Max have now?
    5+4=9, 9-3=6 \\boxed{6}

`render` and `parse` are exact inverses: a text that is not precisely of this form parses to None, so
the teacher never claims to know what it does not. Everything here is pure; randomness comes in as a
`random.Random`.
"""

from __future__ import annotations

import itertools
import random
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal, NamedTuple

Operator = Literal["+", "-"]

MAX_STEPS = 4
LARGEST = 99
DRAWN_START = 12  # new problems start at 2 … this
DRAWN_OPERAND = 9
LONGEST_TEXT = 600  # characters; the longest text of the family has fewer
LONGEST_RESPONSE = 20_000  # characters; a longer response is not read at all

NAMES = ("Max", "Ana", "Ben", "Eva", "Tom", "Mia", "Leo", "Zoe")
ITEMS = ("cards", "coins", "books", "pens", "balls", "cups", "nuts", "eggs")


class Verb(NamedTuple):
    """What a verb does to the number of things, and the word that follows the number."""

    operator: Operator
    tail: str


VERBS: dict[str, Verb] = {
    "buys": Verb("+", " more"),
    "finds": Verb("+", " more"),
    "wins": Verb("+", " more"),
    "gives": Verb("-", " away"),
    "loses": Verb("-", ""),
    "uses": Verb("-", " up"),
}

_NAME = re.compile(r"[A-Z][a-z]{1,15}")
_ITEM = re.compile(r"[a-z]{2,16}")
_NUMBER = r"([1-9][0-9]?)"
_STORY = re.compile(
    rf"({_NAME.pattern}) starts with {_NUMBER} ({_ITEM.pattern})\."
    rf"((?: [A-Za-z]{{2,16}} [a-z]{{2,16}} [1-9][0-9]?[a-z ]{{0,16}}\.){{1,{MAX_STEPS}}})"
    r" How many [a-z]{2,16} does [A-Za-z]{2,16} have now\?"
)
_STEP = re.compile(rf"[A-Za-z]+ ([a-z]+) {_NUMBER}[a-z ]*\.")
_BOX = re.compile(r"\\boxed\s*\{([^{}]*)\}")
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,8}")
_EQUATION = re.compile(r"(?<![0-9])([0-9]{1,4}) ?([+-]) ?([0-9]{1,4}) ?= ?(-?[0-9]{1,4})(?![0-9])")


class Diagnosis(StrEnum):
    """The first mistake on the way to a wrong answer; `none` belongs to right answers."""

    NONE = "none"
    WRONG_OPERATION = "wrong_operation"
    CARRY = "carry"
    SLIP = "slip"
    COPIED_WRONGLY = "copied_wrongly"
    MISSING_STEP = "missing_step"
    NO_ANSWER = "no_answer"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Step:
    """One event of the story. Raises ValueError for an unknown verb or an operand outside 1 … 99."""

    verb: str
    operand: int

    def __post_init__(self) -> None:
        if self.verb not in VERBS:
            raise ValueError(f"unknown verb {self.verb!r}")
        if not 1 <= self.operand <= LARGEST:
            raise ValueError(f"operand {self.operand} is not within 1 and {LARGEST}")

    @property
    def operator(self) -> Operator:
        return VERBS[self.verb].operator


@dataclass(frozen=True, slots=True)
class Problem:
    """One story. Raises ValueError unless every number on the way is within 0 … 99 (start: 1 … 99)."""

    name: str
    item: str
    start: int
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or not _ITEM.fullmatch(self.item):
            raise ValueError(f"not a name and a thing: {self.name!r}, {self.item!r}")
        if not 1 <= len(self.steps) <= MAX_STEPS:
            raise ValueError(f"{len(self.steps)} steps; the family has 1 to {MAX_STEPS}")
        values = _values(self.start, self.steps)
        if self.start < 1 or min(values) < 0 or max(values) > LARGEST:
            raise ValueError(f"{chain(self)} leaves 0 to {LARGEST}")


def _apply(value: int, operator: str, operand: int) -> int:
    return value + operand if operator == "+" else value - operand


def _values(start: int, steps: tuple[Step, ...]) -> list[int]:
    """The number of things before the first step and after each: (1 + steps)."""
    values = [start]
    for step in steps:
        values.append(_apply(values[-1], step.operator, step.operand))
    return values


def chain(problem: Problem) -> str:
    """The numbers and operations alone, such as "5+4-3": equal for stories that differ in words only."""
    return str(problem.start) + "".join(f"{step.operator}{step.operand}" for step in problem.steps)


def solve(problem: Problem) -> int:
    """The final number of things, 0 … 99."""
    return _values(problem.start, problem.steps)[-1]


def solution_text(problem: Problem) -> str:
    r"""The worked solution, such as `5+4=9, 9-3=6 \boxed{6}`."""
    values = _values(problem.start, problem.steps)
    equations = (
        f"{before}{step.operator}{step.operand}={after}"
        for step, (before, after) in zip(problem.steps, itertools.pairwise(values), strict=True)
    )
    return f"{', '.join(equations)} \\boxed{{{values[-1]}}}"


def render(problem: Problem) -> str:
    """The question's text."""
    name, item = problem.name, problem.item
    events = "".join(f" {name} {s.verb} {s.operand}{VERBS[s.verb].tail}." for s in problem.steps)
    return f"{name} starts with {problem.start} {item}.{events} How many {item} does {name} have now?"


def parse(text: str) -> Problem | None:
    """The problem whose `render` is exactly `text`, or None for every other text."""
    if len(text) > LONGEST_TEXT or not (story := _STORY.fullmatch(text)):
        return None
    name, start, item, events = story.groups()
    try:
        steps = tuple(Step(verb, int(operand)) for verb, operand in _STEP.findall(events))
        problem = Problem(name, item, int(start), steps)
    except ValueError:
        return None
    return problem if render(problem) == text else None


def final_answer(response: str) -> int | None:
    r"""The integer in the one `\boxed{}` that ends the response; None where anything is ambiguous:
    several boxes, text after the box, or content that is not a plain integer."""
    if len(response) > LONGEST_RESPONSE or response.count("\\boxed") != 1:
        return None
    box = _BOX.search(response)
    if box is None or response[box.end() :].strip(" \t\r\n.$") or not _INTEGER.fullmatch(box[1].strip()):
        return None
    return int(box[1])


def diagnose(problem: Problem, response: str) -> tuple[bool, Diagnosis]:
    """Whether the final answer is right, and if not, the first mistake that the written steps show."""
    answer = final_answer(response)
    if answer is None:
        return False, Diagnosis.NO_ANSWER
    if answer == solve(problem):
        return True, Diagnosis.NONE
    written = [(int(a), op, int(b), int(c)) for a, op, b, c in _EQUATION.findall(response)]
    return False, _first_mistake(problem, written, answer)


def _first_mistake(problem: Problem, written: list[tuple[int, str, int, int]], answer: int) -> Diagnosis:
    steps_are_missing = len(written) < len(problem.steps)
    value = problem.start
    for step, (left, operator, right, result) in zip(problem.steps, written, strict=False):
        if left != value or right != step.operand:
            return Diagnosis.MISSING_STEP if steps_are_missing else Diagnosis.COPIED_WRONGLY
        if operator != step.operator:
            return Diagnosis.WRONG_OPERATION
        if result != (true := _apply(left, operator, right)):
            return _miscalculation(abs(result - true))
        value = result
    if steps_are_missing:
        return Diagnosis.MISSING_STEP
    if len(written) == len(problem.steps) and answer != value:
        return Diagnosis.COPIED_WRONGLY
    return Diagnosis.OTHER


def _miscalculation(distance: int) -> Diagnosis:
    if distance == 10:
        return Diagnosis.CARRY
    return Diagnosis.SLIP if distance <= 2 else Diagnosis.OTHER


def _draw_numbers(
    verbs: tuple[str, ...],
    rng: random.Random,
    *,
    largest_start: int,
    largest_operand: int,
    largest: int = LARGEST,
) -> tuple[int, tuple[Step, ...]] | None:
    """A start and operands for these verbs whose results stay within 0 … `largest`; None after 200 tries."""
    for _ in range(200):
        start = rng.randint(2, largest_start)
        steps = tuple(Step(verb, rng.randint(1, largest_operand)) for verb in verbs)
        values = _values(start, steps)
        if min(values) >= 0 and max(values) <= largest:
            return start, steps
    return None


def _redraw(problem: Problem, verbs: tuple[str, ...], rng: random.Random) -> Problem | None:
    """The same story with these verbs and other numbers of the same size."""
    largest_operand = max(DRAWN_OPERAND, *(step.operand for step in problem.steps))
    for _ in range(20):
        drawn = _draw_numbers(
            verbs, rng, largest_start=max(DRAWN_START, problem.start), largest_operand=largest_operand
        )
        if drawn and (new := replace(problem, start=drawn[0], steps=drawn[1])) != problem:
            return new
    return None


def random_problem(rng: random.Random, n_steps: int) -> Problem:
    """A problem of small numbers. Raises ValueError unless 1 ≤ n_steps ≤ 4."""
    if not 1 <= n_steps <= MAX_STEPS:
        raise ValueError(f"{n_steps} steps; the family has 1 to {MAX_STEPS}")
    name, item = rng.choice(NAMES), rng.choice(ITEMS)
    while True:
        verbs = tuple(rng.choice(list(VERBS)) for _ in range(n_steps))
        if drawn := _draw_numbers(verbs, rng, largest_start=DRAWN_START, largest_operand=DRAWN_OPERAND):
            return Problem(name, item, *drawn)


def easier(problem: Problem, rng: random.Random) -> Problem | None:
    """One step fewer; of one step, numbers below ten. None where the problem is that easy already."""
    verbs = tuple(step.verb for step in problem.steps)
    if len(verbs) > 1:
        dropped = rng.randrange(len(verbs))
        return _redraw(problem, verbs[:dropped] + verbs[dropped + 1 :], rng)
    if max(_values(problem.start, problem.steps)) <= 9:
        return None
    drawn = _draw_numbers(verbs, rng, largest_start=9, largest_operand=9, largest=9)
    return replace(problem, start=drawn[0], steps=drawn[1]) if drawn else None


def variant(problem: Problem, rng: random.Random) -> Problem | None:
    """The same operations with other numbers."""
    return _redraw(problem, tuple(step.verb for step in problem.steps), rng)


def harder(problem: Problem, rng: random.Random) -> Problem | None:
    """One step more, at a random place, with other numbers. None for a problem of four steps."""
    if len(problem.steps) == MAX_STEPS:
        return None
    verbs = [step.verb for step in problem.steps]
    verbs.insert(rng.randint(0, len(verbs)), rng.choice(list(VERBS)))
    return _redraw(problem, tuple(verbs), rng)
