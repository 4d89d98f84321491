"""The family of ledger stories, in which a question's level is the number of its operations.

One person after the other comes by, in the order of the alphabet, and changes a total that stays within 0 … 9 or
just idles. The worked solution is a ledger with an entry for each of them:

    Eva has 2. Fay eats 1. It rains. Gus waits. Hal finds 3. Total?
    Eva=2 Fay-1=1 Gus=1 Hal+3=4 \\boxed{4}

Nothing but its length makes a story hard, so a solver that keeps short ledgers can be taken to longer ones, a level
at a time. Like `arithmetic`: `render` and `parse` are exact inverses, and everything is pure.
"""

from __future__ import annotations

import itertools
import random
import re
from dataclasses import dataclass

from prosetting.teachers.arithmetic import Diagnosis, final_answer

MAX_LEVEL = 12
LARGEST = 9
IDLE_SHARE = 0.75  # of drawn stories have one who idles
MOST_ASIDES = 2
MOST_SENTENCES = 40  # of a story that is read

NAMES = (
    *("Ana", "Ben", "Cal", "Dan", "Eva", "Fay", "Gus", "Hal", "Ian", "Joe", "Kim", "Leo", "Mia"),
    *("Ned", "Oli", "Pam", "Quin", "Roy", "Sue", "Tom", "Uma", "Vic", "Wes", "Xia", "Yan", "Zoe"),
)
SIGN = {"finds": 1, "buys": 1, "wins": 1, "eats": -1, "loses": -1, "steals": -1}
IDLE = ("waits", "sleeps", "sings")
ASIDES = ("It rains", "It snows", "Dogs bark", "Cats sleep", "Birds sing", "Bells ring")

_BEGIN = re.compile(r"([A-Z][a-z]{2,3}) has ([1-9])")
_EVENT = re.compile(r"([A-Z][a-z]{2,3}) ([a-z]+)(?: ([1-9]))?")
_QUESTION = " Total?"
_ENTRY = re.compile(r"([A-Z][a-z]{2,3})(?:([+-])([0-9]+))?=([0-9]+)")


@dataclass(frozen=True, slots=True)
class Event:
    """What the next person does; `operand` 0 for one who idles. Raises ValueError for what the family does not have."""

    verb: str
    operand: int = 0

    def __post_init__(self) -> None:
        if self.operand == 0 and self.verb not in IDLE:
            raise ValueError(f"{self.verb!r} without a number")
        if self.operand and (self.verb not in SIGN or not 1 <= self.operand <= LARGEST):
            raise ValueError(f"{self.verb!r} {self.operand} is no operation of 1 to {LARGEST}")

    @property
    def change(self) -> int:
        return SIGN.get(self.verb, 0) * self.operand


@dataclass(frozen=True, slots=True)
class Ledger:
    """One story. `asides` are (place, text): before the event of that number, or after the last.

    Raises ValueError unless it has 1 … 12 operations and its total stays within 0 … 9 (at first 1 … 9).
    """

    first: int
    start: int
    events: tuple[Event, ...]
    asides: tuple[tuple[int, str], ...] = ()

    def __post_init__(self) -> None:
        totals = _totals(self)
        if not (1 <= level(self) <= MAX_LEVEL and len(self.events) < len(NAMES)):
            raise ValueError(f"{level(self)} operations of {len(self.events)} people; the family has 1 to {MAX_LEVEL}")
        if self.start < 1 or min(totals) < 0 or max(totals) > LARGEST:
            raise ValueError(f"{chain(self)} leaves 0 to {LARGEST}")

    def name(self, place: int) -> str:
        """Who stands at this place of the ledger (0: whoever has the first number); after Zoe comes Ana."""
        return NAMES[(self.first + place) % len(NAMES)]


def level(ledger: Ledger) -> int:
    """The number of operations."""
    return sum(event.operand > 0 for event in ledger.events)


def chain(ledger: Ledger) -> str:
    """The numbers and operations alone, such as "2-1+3": equal for stories that differ in words only."""
    return str(ledger.start) + "".join(f"{event.change:+d}" for event in ledger.events if event.operand)


def solve(ledger: Ledger) -> int:
    return _totals(ledger)[-1]


def solution_text(ledger: Ledger) -> str:
    r"""The ledger, such as `Eva=2 Fay-1=1 Gus=1 Hal+3=4 \boxed{4}`."""
    return f"{' '.join(_entries(ledger))} \\boxed{{{solve(ledger)}}}"


def _totals(ledger: Ledger) -> list[int]:
    """The total at first and after each event: (1 + events)."""
    return list(itertools.accumulate((event.change for event in ledger.events), initial=ledger.start))


def _entries(ledger: Ledger) -> list[str]:
    changes = ["", *(f"{event.change:+d}" if event.operand else "" for event in ledger.events)]
    return [
        f"{ledger.name(place)}{change}={total}"
        for place, (change, total) in enumerate(zip(changes, _totals(ledger), strict=True))
    ]


def render(ledger: Ledger) -> str:
    """The question's text."""
    told = [f"{ledger.name(0)} has {ledger.start}"]
    told += [
        f"{ledger.name(place)} {event.verb}" + (f" {event.operand}" if event.operand else "")
        for place, event in enumerate(ledger.events, start=1)
    ]
    sentences: list[str] = []
    for place in range(len(told) + 1):
        sentences += [text for at, text in ledger.asides if at == place]
        sentences += told[place : place + 1]
    return "".join(f"{sentence}. " for sentence in sentences).rstrip() + _QUESTION


def parse(text: str) -> Ledger | None:
    """The story whose `render` is exactly `text`, or None for every other text."""
    sentences = text.removesuffix(f".{_QUESTION}").split(". ", MOST_SENTENCES)
    if not text.endswith(f".{_QUESTION}") or len(sentences) > MOST_SENTENCES:
        return None
    asides: list[tuple[int, str]] = []
    told: list[str] = []
    for sentence in sentences:
        if sentence in ASIDES:
            asides.append((len(told), sentence))
        else:
            told.append(sentence)
    begin = _BEGIN.fullmatch(told[0]) if told else None
    if begin is None or begin[1] not in NAMES:
        return None
    try:
        events = tuple(_event(sentence) for sentence in told[1:])
        ledger = Ledger(NAMES.index(begin[1]), int(begin[2]), events, tuple(asides))
    except ValueError:
        return None
    return ledger if render(ledger) == text else None


def _event(sentence: str) -> Event:
    found = _EVENT.fullmatch(sentence)
    if found is None:
        raise ValueError(f"{sentence!r} is no event")
    return Event(found[2], int(found[3] or 0))


def is_whole(ledger: Ledger, response: str) -> bool:
    """Whether the response is this ledger, entry by entry, and nothing else: with totals below ten, one final number in
    ten is right by luck."""
    return response.split() == solution_text(ledger).split()


def diagnose(ledger: Ledger, response: str) -> tuple[bool, Diagnosis]:
    """Whether the final answer is right, and the first mistake of the ledger, which a right answer may have as well."""
    answer = final_answer(response)
    if answer is None:
        return False, Diagnosis.NO_ANSWER
    return answer == solve(ledger), _first_mistake(ledger, response, answer)


def _first_mistake(ledger: Ledger, response: str, answer: int) -> Diagnosis:
    written = [match.groups(default="") for match in _ENTRY.finditer(response)]
    wanted = [match.groups(default="") for match in _ENTRY.finditer(solution_text(ledger))]
    for mine, right in zip(written, wanted, strict=False):
        if mine[0] != right[0]:
            return Diagnosis.MISSING_STEP
        if mine[1] != right[1]:
            return Diagnosis.WRONG_OPERATION
        if mine[2] != right[2]:
            return Diagnosis.COPIED_WRONGLY
        if mine[3] != right[3]:
            return Diagnosis.SLIP
    if len(written) < len(wanted):
        return Diagnosis.MISSING_STEP
    if len(written) > len(wanted):
        return Diagnosis.OTHER
    return Diagnosis.NONE if answer == solve(ledger) else Diagnosis.COPIED_WRONGLY


def random_ledger(rng: random.Random, operations: int) -> Ledger:
    """A story of this level. Raises ValueError unless 1 ≤ operations ≤ 12."""
    if not 1 <= operations <= MAX_LEVEL:
        raise ValueError(f"level {operations}; the family has 1 to {MAX_LEVEL}")
    operates = [True] * operations + [False] * (rng.random() < IDLE_SHARE)
    rng.shuffle(operates)
    total = start = rng.randint(1, LARGEST)
    events: list[Event] = []
    for operating in operates:
        event = _random_operation(rng, total) if operating else Event(rng.choice(IDLE))
        events.append(event)
        total += event.change
    asides = sorted(rng.randint(0, len(events) + 1) for _ in range(rng.randint(0, MOST_ASIDES)))
    told = tuple((place, rng.choice(ASIDES)) for place in asides)
    return Ledger(rng.randrange(len(NAMES)), start, tuple(events), told)


def _random_operation(rng: random.Random, total: int) -> Event:
    """Up or down with equal chance where both are possible, then by any number that stays within 0 … 9."""
    sign = rng.choice([sign for sign in (1, -1) if 0 <= total + sign <= LARGEST])
    verb = rng.choice([verb for verb, of in SIGN.items() if of == sign])
    return Event(verb, rng.randint(1, LARGEST - total if sign > 0 else total))


def _another(ledger: Ledger, operations: int, rng: random.Random) -> Ledger | None:
    """Another story of that level. What is kept is the level: all else of a story is chance."""
    if not 1 <= operations <= MAX_LEVEL:
        return None
    while (new := random_ledger(rng, operations)) == ledger:
        pass
    return new


def easier(ledger: Ledger, rng: random.Random) -> Ledger | None:
    """A story of one operation fewer. None for one operation."""
    return _another(ledger, level(ledger) - 1, rng)


def variant(ledger: Ledger, rng: random.Random) -> Ledger | None:
    """Another story of as many operations."""
    return _another(ledger, level(ledger), rng)


def harder(ledger: Ledger, rng: random.Random) -> Ledger | None:
    """A story of one operation more. None at the highest level."""
    return _another(ledger, level(ledger) + 1, rng)
