"""The families of questions that the offline teacher understands completely, behind one form."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from prosetting.teachers import arithmetic, ledger
from prosetting.teachers.arithmetic import Diagnosis

P = TypeVar("P")
Rewrite = Callable[[P, random.Random], P | None]


@dataclass(frozen=True, slots=True)
class Family(Generic[P]):
    """`parse` gives None for a text that is not precisely of the family, `rewrites` None where there is no such story.

    `diagnose` says whether the final answer of a response is right, and the first mistake that it shows.
    """

    parse: Callable[[str], P | None]
    render: Callable[[P], str]
    solve: Callable[[P], int]
    solution_text: Callable[[P], str]
    diagnose: Callable[[P, str], tuple[bool, Diagnosis]]
    rewrites: Mapping[str, Rewrite[P]]


@dataclass(frozen=True, slots=True)
class Understood(Generic[P]):
    """A question of one of the families."""

    family: Family[P]
    problem: P

    @property
    def answer(self) -> int:
        return self.family.solve(self.problem)

    def diagnose(self, response: str) -> tuple[bool, Diagnosis]:
        return self.family.diagnose(self.problem, response)

    def rewritten(self, kind: str, rng: random.Random) -> Understood[P] | None:
        new = self.family.rewrites[kind](self.problem, rng)
        return None if new is None else Understood(self.family, new)

    @property
    def text(self) -> str:
        return self.family.render(self.problem)

    @property
    def solution_text(self) -> str:
        return self.family.solution_text(self.problem)


FAMILIES: tuple[Family[Any], ...] = (
    Family(
        arithmetic.parse,
        arithmetic.render,
        arithmetic.solve,
        arithmetic.solution_text,
        arithmetic.diagnose,
        {"easier": arithmetic.easier, "variant": arithmetic.variant, "harder": arithmetic.harder},
    ),
    Family(
        ledger.parse,
        ledger.render,
        ledger.solve,
        ledger.solution_text,
        ledger.diagnose,
        {"easier": ledger.easier, "variant": ledger.variant, "harder": ledger.harder},
    ),
)


def understand(text: str) -> Understood[Any] | None:
    """The question as one of a family, or None."""
    for family in FAMILIES:
        problem = family.parse(text)
        if problem is not None:
            return Understood(family, problem)
    return None
