"""New questions from questions whose solution carries its chain of calculations (see `calculations`).

`annotated_variant` changes given numbers, people and things of the question and recomputes the chain exactly.
`annotated_extension` goes on from the question's answer with two or four more steps, as in compositional GSM
(Hosseini et al. 2024, arXiv 2410.01748). `annotated_hint` tells all steps but the last. All prefer no question
to a doubtful one: in a variant every literal of the chain must have one plain origin (a number of the question,
an earlier result, or a constant that a word such as "half" implies), and every number of the question must be
used. None gives a text that reads as its parent does.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction

from prosetting.core.text import NEAR_DUPLICATE, likeness
from prosetting.records import QuestionKind
from prosetting.teachers.calculations import (
    MOST_STEPS,
    Chain,
    Expression,
    Numeral,
    Token,
    WrongCalculation,
    decimal,
    evaluate,
    implied_numbers,
    numerals,
    read_chain,
)
from prosetting.teachers.renaming import free_name, renamed

LONGEST_TEXT = 3_000  # characters of a question
TRIES = 200
DRAWS = 4
SMALLEST_GIVEN, LARGEST_GIVEN, LARGEST_RESULT = 2, 100_000, 10_000_000
LARGEST_EXTENDED = 100_000

_FINAL = re.compile(r"#### *\$?([0-9][0-9,]{0,15}(?:\.[0-9]{1,6})?) *$")
_PLAIN_EQUALS = re.compile(r"=(?![ $]*<<)")
_ANNOTATED = re.compile(r"<<[^<>]*>>")
# Numbers that stand for something other than a free amount: percentages, times of the day, spans of time.
_BOUND_AFTER = re.compile(
    r"[0-9A-Za-z%/:,.]*[0-9A-Za-z%/:]| ?%| ?percent| [0-9]+/| ?o'clock| ?[ap]\.?m\b"
    r"|[ -](?:second|minute|hour|day|week|month|year|decade|centur|times? (?:a|per))",
    re.IGNORECASE,
)
_BOUND_BEFORE = re.compile(r"[0-9A-Za-z_./:,#-]$|\b(?:the|all|these|those) $", re.IGNORECASE)
# A small number of people or kinds counts those whom the text lists.
_LISTED_AFTER = re.compile(
    r" (?:\w+ )?(?:friend|sibling|brother|sister|child|kid|son|daughter|cousin|people|person|boy|girl|kind|type|team)"
)
MOST_LISTED = 6
_HINTED = "has made a start and checked it"

Rewritten = tuple[str, str, str]
"""A question, its solution (the chain alone) and its answer."""


def annotated_variant(text: str, solution: str, rng: random.Random) -> Rewritten | None:
    """The same question with other numbers, people and things; None where no safe one is found."""
    if len(text) > LONGEST_TEXT or (chain := _whole_chain(solution)) is None:
        return None
    givens, constants = numerals(text), implied_numbers(text)
    literals = chain.literals()
    known = constants.union(chain.results, *(given.uses for given in givens))
    if not known.issuperset(literals) or any(given.uses.isdisjoint(literals) for given in givens):
        return None
    changeable = [given for given in givens if _is_changeable(text, given, givens, constants, chain)]
    drawn: list[tuple[float, str, Chain]] = []
    for _ in range(TRIES if changeable else 0):
        chosen = rng.sample(changeable, rng.randint(1, len(changeable)))
        changes = {given.value: _other_number(given.value, rng) for given in chosen}
        if not _keeps_order(givens, changes):
            continue
        new = _recompute(chain, changes, constants.union(*(given.uses for given in givens)))
        if new and _is_sensible(chain.results, new.results):
            changed = renamed(_replace(text, chosen, changes), rng)
            drawn.append((likeness(text, changed), changed, new))
        if len(drawn) == DRAWS:
            break
    return _unlike(drawn)


def annotated_extension(text: str, solution: str, rng: random.Random) -> Rewritten | None:
    """The question, under other names where it has any, and what people then do with its answer; None where
    the text is not one plain question with a whole number for an answer."""
    chain = _whole_chain(solution)
    if chain is None or len(chain.results) > MOST_STEPS - 4 or len(text) > LONGEST_TEXT or not _asks_once(text):
        return None
    if chain.results[-1].denominator != 1 or not 1 < chain.results[-1] <= LARGEST_EXTENDED:
        return None
    for people in (1, 2):  # a long question reads like its parent until more follows
        drawn = []
        for _ in range(DRAWS):
            follow_on, longer = _follow_on(text, chain, people, rng)
            changed = f"{renamed(text.rstrip(), rng)} {follow_on}"
            drawn.append((likeness(text, changed), changed, longer))
        if found := _unlike(drawn):
            return found
    return None


def annotated_hint(text: str, solution: str, rng: random.Random) -> Rewritten | None:
    """The question, under other names where it has any, with the results of all steps but the last; None for
    a single step."""
    chain = _whole_chain(solution)
    if chain is None or len(chain.results) < 2 or len(text) > LONGEST_TEXT or _HINTED in text:
        return None
    drawn = []
    for _ in range(DRAWS):
        steps = ", then ".join(f"{_shown(left)} is {decimal(right)}" for left, right in chain.steps()[:-1])
        name = free_name(text, rng)
        hint = f"{name} {_HINTED}: {steps}. Finish what {name} has begun: only the last step is missing."
        changed = f"{renamed(text.rstrip(), rng)} {hint}"
        drawn.append((likeness(text, changed), changed, chain))
    return _unlike(drawn)


REWRITES: dict[QuestionKind, tuple[tuple[QuestionKind, Callable[[str, str, random.Random], Rewritten | None]], ...]] = {
    "easier": (("easier", annotated_hint), ("variant", annotated_variant)),
    "variant": (("variant", annotated_variant), ("harder", annotated_extension)),
    "harder": (("harder", annotated_extension), ("variant", annotated_variant)),
}


def annotated_question(
    kind: QuestionKind, text: str, solution: str, rng: random.Random
) -> tuple[Rewritten, QuestionKind] | None:
    """A new question of the kind that was asked for, or of the nearest kind that is safe, and its true kind."""
    for written, rewrite in REWRITES.get(kind, ()):
        if new := rewrite(text, solution, rng):
            return new, written
    return None


def _asks_once(text: str) -> bool:
    """One question, at the end, and no answer spoken of already."""
    last = text.rstrip().rstrip(".?").rpartition(". ")[2]
    asked = text.count("?") == 1 and text.rstrip().endswith("?")
    told = "?" not in text and re.search(r"\b(?:calculate|find|determine) ", last, re.IGNORECASE)
    return bool(asked or told) and " the answer" not in text.lower()


def _follow_on(text: str, chain: Chain, people: int, rng: random.Random) -> tuple[str, Chain]:
    """What one person does with the answer, another with that one's number, and the chain with these steps."""
    said = ""
    for begin in ("{} works out the answer", "{} takes this number")[:people]:
        name = free_name(text + said, rng)
        deed, steps = _deed(int(chain.results[-1]), rng)
        said += f"{begin.format(name)}, {deed}. "
        chain = _with_steps(chain, steps)
    question = rng.choice(("Which number does {} get in the end?", "What is {}'s final result?"))
    return said + question.format(name), chain


def _deed(number: int, rng: random.Random) -> tuple[str, Sequence[tuple[str, int]]]:
    """Two operations on a whole number with a whole, positive result: in words, and as signs with operands."""
    factor, more = rng.randint(2, 9), rng.randint(2, 99)
    less = rng.randint(1, min(99, number * factor - 1))
    ways: list[tuple[str, Sequence[tuple[str, int]]]] = [
        (f"multiplies it by {factor} and then adds {more}", (("*", factor), ("+", more))),
        (f"adds {more} to it and then multiplies the sum by {factor}", (("+", more), ("*", factor))),
        (f"multiplies it by {factor} and then subtracts {less}", (("*", factor), ("-", less))),
    ]
    if number % factor == 0:
        ways.append((f"divides it by {factor} and then adds {more}", (("/", factor), ("+", more))))
    return rng.choice(ways)


def _with_steps(chain: Chain, steps: Sequence[tuple[str, int]]) -> Chain:
    expressions, results = list(chain.expressions), list(chain.results)
    for sign, operand in steps:
        expression: tuple[Token, ...] = (results[-1], sign, Fraction(operand))
        value = evaluate(expression)
        assert value is not None, "a follow-on neither divides by zero nor breaks the grammar"
        expressions.append(expression)
        results.append(value)
    return Chain(tuple(expressions), tuple(results))


def _unlike(drawn: Sequence[tuple[float, str, Chain]]) -> Rewritten | None:
    """The draw that reads least like the parent, if it is far enough from it."""
    alike, text, chain = min(drawn, default=(1.0, "", None))
    if chain is None or alike >= NEAR_DUPLICATE:
        return None
    return text, _solution_of(chain), decimal(chain.results[-1])


def _whole_chain(solution: str) -> Chain | None:
    """The chain, if it is complete: nothing is equated beside it, and its last result is the final answer."""
    try:
        chain = read_chain(solution)
    except WrongCalculation:
        return None
    final = _FINAL.search(solution.rstrip())
    if chain is None or final is None or _PLAIN_EQUALS.search(_ANNOTATED.sub("<<", solution)):
        return None
    return chain if chain.results[-1] == Fraction(final[1].replace(",", "")) else None


def _is_changeable(
    text: str, given: Numeral, givens: Sequence[Numeral], constants: frozenset[Fraction], chain: Chain
) -> bool:
    once_in_text = sum(given.value in other.uses for other in givens) == 1
    elsewhere = constants.union(chain.results)
    return once_in_text and given.value in chain.literals() and given.value not in elsewhere and _is_free(text, given)


def _is_free(text: str, given: Numeral) -> bool:
    """A whole amount of something, not a percentage, a date, a span of time or a part of a word."""
    value, before, after = given.value, text[: given.start], text[given.end : given.end + 20]
    size_fits = value.denominator == 1 and SMALLEST_GIVEN <= value <= LARGEST_GIVEN
    looks_like_a_year = 1900 <= value <= 2100
    bound = _BOUND_AFTER.match(after) or _BOUND_BEFORE.search(before)
    counts_a_list = value <= MOST_LISTED and _LISTED_AFTER.match(after)
    return (
        size_fits
        and not looks_like_a_year
        and not bound
        and not counts_a_list
        and "." not in text[given.start : given.end]
    )


def _other_number(value: Fraction, rng: random.Random) -> Fraction:
    """Another number of the same size and roundness."""
    number = int(value)
    unit = next(u for u in (1000, 100, 10, 5, 1) if number % u == 0 and number >= 2 * u)
    low = max(SMALLEST_GIVEN, min(number - 2 * unit, number * 6 // 10))
    high = max(number + 3 * unit, number * 16 // 10)
    choices = [n for n in range(-(-low // unit) * unit, high + 1, unit) if n != number and n >= SMALLEST_GIVEN]
    return Fraction(rng.choice(choices))


def _keeps_order(givens: Sequence[Numeral], changes: Mapping[Fraction, Fraction]) -> bool:
    """Whether smaller numbers of the question stay smaller: a limit stays a limit, a part stays a part."""
    old = sorted({given.value for given in givens})
    new = [changes.get(value, value) for value in old]
    return all(a < b for a, b in itertools.pairwise(new))


def _recompute(chain: Chain, changes: Mapping[Fraction, Fraction], sources: frozenset[Fraction]) -> Chain | None:
    """The chain with the changed numbers; None where a literal may have come from two unequal places."""
    expressions: list[Expression] = []
    results: list[Fraction] = []
    for expression in chain.expressions:
        tokens: list[Token] = []
        for token in expression:
            if isinstance(token, str):
                tokens.append(token)
                continue
            origins = {new for old, new in zip(chain.results, results, strict=False) if old == token}
            if token in sources:
                origins.add(changes.get(token, token))
            if len(origins) != 1:
                return None
            tokens.append(origins.pop())
        if (result := evaluate(tuple(tokens))) is None:
            return None
        expressions.append(tuple(tokens))
        results.append(result)
    return Chain(tuple(expressions), tuple(results))


def _is_sensible(old: Sequence[Fraction], new: Sequence[Fraction]) -> bool:
    def one(before: Fraction, after: Fraction) -> bool:
        whole = after.denominator == 1 if before.denominator == 1 else 100 % after.denominator == 0
        return whole and 0 < after <= LARGEST_RESULT

    return all(one(before, after) for before, after in zip(old, new, strict=True))


def _replace(text: str, chosen: Sequence[Numeral], changes: Mapping[Fraction, Fraction]) -> str:
    for given in sorted(chosen, key=lambda g: g.start, reverse=True):
        grouped = "," if "," in text[given.start : given.end] else ""
        text = f"{text[: given.start]}{int(changes[given.value]):{grouped}}{text[given.end :]}"
    return text


def _solution_of(chain: Chain) -> str:
    def lines() -> Iterator[str]:
        for expression, result in chain.steps():
            shown = _shown(expression)
            yield f"{shown} = <<{shown}={decimal(result)}>>{decimal(result)}"
        yield f"#### {decimal(chain.results[-1])}"

    return "\n".join(lines())


def _shown(expression: Expression) -> str:
    return "".join(token if isinstance(token, str) else decimal(token) for token in expression)
