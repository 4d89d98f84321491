"""Variants of questions whose solution carries its chain of calculations, as GSM8K's do:

    Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.
    #### 72

`annotated_variant` changes given numbers of the question and recomputes the chain exactly. It prefers no
variant to a doubtful one: every literal of the chain must have one plain origin (a number of the question,
an earlier result, or a constant that a word such as "half" implies), and every number of the question must
be used. Annotations: Cobbe et al. 2021, arXiv 2110.14168.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

LONGEST_TEXT = 4_000  # characters of a question or a solution
LONGEST_EXPRESSION = 80  # characters
MOST_STEPS = 20
TRIES = 60
SMALLEST_GIVEN, LARGEST_GIVEN, LARGEST_RESULT = 2, 100_000, 10_000_000

Token = Fraction | str
Expression = tuple[Token, ...]

_ANNOTATION = re.compile(r"<<([^<>=]{1,80})=([^<>=]{1,30})>>")
_FINAL = re.compile(r"#### *\$?([0-9][0-9,]{0,15}(?:\.[0-9]{1,6})?) *$")
_PLAIN_EQUALS = re.compile(r"=(?![ $]*<<)")
_TOKEN = re.compile(r" *([0-9]{1,12}(?:\.[0-9]{0,6})?|\.[0-9]{1,6}|[-+*/()])")
_NUMERAL = re.compile(r"[0-9]{1,3}(?:,[0-9]{3}){1,2}|[0-9]{1,12}(?:\.[0-9]{1,6})?")
_FRACTION = re.compile(r"([0-9]{1,4})/([0-9]{1,4})")
# Numbers that stand for something other than a free amount: percentages, times of the day, spans of time.
_BOUND_AFTER = re.compile(
    r"[0-9A-Za-z%/:,.]*[0-9A-Za-z%/:]| ?%| ?percent| [0-9]+/| ?o'clock| ?[ap]\.?m\b"
    r"|[ -](?:second|minute|hour|day|week|month|year|decade|centur|times? (?:a|per))",
    re.IGNORECASE,
)
_BOUND_BEFORE = re.compile(r"[0-9A-Za-z_./:,#-]$")

# Values that a word brings into a chain without a numeral. Their digits are never changed.
_IMPLIED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("half|halv|twice|doubl|pair|both|couple|two|twin|second|average|mean|weekend|other|each of", ("2", "0.5")),
    ("thrice|tripl|three|third|yard", ("3",)),
    ("four|quarter|quadrupl|gallon|quart|season", ("4", "0.25", "0.75", "25")),
    ("five|fifth|nickel", ("5",)),
    ("six|sixth", ("6",)),
    ("seven|week|daily|every day|each day", ("7",)),
    ("eight", ("8",)),
    ("nine|ninth", ("9",)),
    ("ten|tenth|dime|decade", ("10",)),
    ("eleven", ("11",)),
    ("twelve|twelfth|dozen|year|annual|month|foot|feet|inch", ("12",)),
    ("thirteen", ("13",)),
    ("fourteen|fortnight", ("14",)),
    ("fifteen", ("15",)),
    ("sixteen|pound|ounce", ("16",)),
    ("eighteen", ("18",)),
    ("twenty|score", ("20",)),
    ("day|hour", ("24",)),
    ("thirty|month|april|june|september|november", ("30",)),
    ("month|january|march|may|july|august|october|december", ("31",)),
    ("forty", ("40",)),
    ("fifty", ("50",)),
    ("year|week", ("52",)),
    ("hour|minute|second|sixty", ("60",)),
    ("hundred|%|percent|cent|dollar|centur|penn|meter|\\$", ("100",)),
    ("year|leap", ("365",)),
    ("thousand|kilo|milli|liter|km|kg|gram", ("1000",)),
)


@dataclass(frozen=True, slots=True)
class _Given:
    """A numeral of the question: where it stands, its value, the values by which a chain may use it."""

    start: int
    end: int
    value: Fraction
    uses: frozenset[Fraction]
    free: bool


@dataclass(frozen=True, slots=True)
class _Chain:
    """The calculations in order: (steps) expressions and their results."""

    expressions: tuple[Expression, ...]
    results: tuple[Fraction, ...]

    def literals(self) -> list[Fraction]:
        return [t for expression in self.expressions for t in expression if isinstance(t, Fraction)]


def annotated_variant(text: str, solution: str, rng: random.Random) -> tuple[str, str, str] | None:
    """New question, new solution (its chain alone) and new answer; None where no safe variant exists."""
    if len(text) > LONGEST_TEXT or (chain := _read_chain(solution)) is None:
        return None
    givens = _givens(text)
    constants = _constants(text)
    known = constants.union(chain.results, *(given.uses for given in givens))
    literals = chain.literals()
    if not known.issuperset(literals) or any(given.uses.isdisjoint(literals) for given in givens):
        return None
    changeable = [given for given in givens if _is_changeable(given, givens, constants, chain)]
    for _ in range(TRIES if changeable else 0):
        chosen = rng.sample(changeable, rng.randint(1, len(changeable)))
        changes = {given.value: _other_number(given.value, rng) for given in chosen}
        if not _keeps_order(givens, changes):
            continue
        new = _recompute(chain, changes, constants.union(*(given.uses for given in givens)))
        if new and _is_sensible(chain.results, new.results):
            return _replace(text, chosen, changes), _solution_of(new), _decimal(new.results[-1])
    return None


def evaluate(expression: Expression) -> Fraction | None:
    """The exact value under the usual precedence; None for what is no expression or divides by zero."""
    reader = _Reader(expression)
    try:
        value = reader.sum()
    except (SyntaxError, ZeroDivisionError, RecursionError):
        return None
    return value if reader.at_end() else None


def tokenize(text: str) -> Expression | None:
    """Numbers and the signs + - * / ( ) of `text`; None where it has anything else or is too long."""
    if len(text) > LONGEST_EXPRESSION:
        return None
    tokens: list[Token] = []
    position, text = 0, text.rstrip(" ")
    while position < len(text):
        if not (match := _TOKEN.match(text, position)):
            return None
        tokens.append(match[1] if match[1] in "+-*/()" else Fraction(match[1]))
        position = match.end()
    return tuple(tokens)


class _Reader:
    """Recursive descent over sum → product → factor. Raises SyntaxError."""

    def __init__(self, tokens: Expression) -> None:
        self._tokens = tokens
        self._next = 0

    def at_end(self) -> bool:
        return self._next == len(self._tokens)

    def _take(self, signs: str) -> str | None:
        token = None if self.at_end() else self._tokens[self._next]
        if not isinstance(token, str) or token not in signs:
            return None
        self._next += 1
        return token

    def sum(self) -> Fraction:
        value = self._product()
        while sign := self._take("+-"):
            value += self._product() if sign == "+" else -self._product()
        return value

    def _product(self) -> Fraction:
        value = self._factor()
        while sign := self._take("*/"):
            value = value * self._factor() if sign == "*" else value / self._factor()
        return value

    def _factor(self) -> Fraction:
        if sign := self._take("+-"):
            return self._factor() if sign == "+" else -self._factor()
        if self._take("("):
            value = self.sum()
            if not self._take(")"):
                raise SyntaxError("a bracket is not closed")
            return value
        if self.at_end() or isinstance(token := self._tokens[self._next], str):
            raise SyntaxError("a number is missing")
        self._next += 1
        return token


def _read_chain(solution: str) -> _Chain | None:
    """The chain, if it is complete: each calculation holds, nothing is equated beside it, and its last
    result is the final answer."""
    final = _FINAL.search(solution.rstrip()) if len(solution) <= LONGEST_TEXT else None
    annotations = _ANNOTATION.findall(solution)
    if not final or not 1 <= len(annotations) <= MOST_STEPS or _PLAIN_EQUALS.search(_ANNOTATION.sub("<<", solution)):
        return None
    expressions, results = [], []
    for left, right in annotations:
        expression, result = tokenize(left), tokenize(right)
        if not expression or not result or len(result) != 1 or evaluate(expression) != result[0]:
            return None
        expressions.append(expression)
        results.append(evaluate(expression))
    chain = _Chain(tuple(expressions), tuple(result for result in results if result is not None))
    return chain if chain.results[-1] == Fraction(final[1].replace(",", "")) else None


def _givens(text: str) -> list[_Given]:
    return [_given(text, match) for match in _NUMERAL.finditer(text)]


def _given(text: str, match: re.Match[str]) -> _Given:
    value = Fraction(match[0].replace(",", ""))
    after = text[match.end() : match.end() + 20]
    bound = bool(_BOUND_AFTER.match(after) or _BOUND_BEFORE.search(text[: match.start()]))
    uses = {value}
    if re.match(r" ?(?:%|percent)", after):
        uses |= {value / 100, 1 - value / 100, 1 + value / 100, 100 - value, 100 + value}
    for fraction in _FRACTION.finditer(text[max(0, match.start() - 5) : match.end() + 5]):
        over, under = int(fraction[1]), int(fraction[2])
        if under:
            uses |= {Fraction(over, under), 1 - Fraction(over, under), Fraction(over), Fraction(under)}
    size_fits = value.denominator == 1 and SMALLEST_GIVEN <= value <= LARGEST_GIVEN
    looks_like_a_year = 1900 <= value <= 2100
    free = size_fits and "." not in match[0] and not bound and not looks_like_a_year
    return _Given(match.start(), match.end(), value, frozenset(uses), free)


def _constants(text: str) -> frozenset[Fraction]:
    lowered = text.lower()
    implied = (values for words, values in _IMPLIED if re.search(rf"(?<![a-z])(?:{words})", lowered))
    return frozenset({Fraction(1)}.union(*({Fraction(v) for v in values} for values in implied)))


def _is_changeable(given: _Given, givens: Sequence[_Given], constants: frozenset[Fraction], chain: _Chain) -> bool:
    value = given.value
    once_in_text = sum(value in other.uses for other in givens) == 1
    once_in_chain = chain.literals().count(value) == 1
    return given.free and once_in_text and once_in_chain and value not in constants.union(chain.results)


def _other_number(value: Fraction, rng: random.Random) -> Fraction:
    """Another number of the same size and roundness."""
    number = int(value)
    unit = next(u for u in (1000, 100, 10, 5, 1) if number % u == 0 and number >= 2 * u)
    low = max(SMALLEST_GIVEN, min(number - 2 * unit, number * 6 // 10))
    high = max(number + 3 * unit, number * 16 // 10)
    choices = [n for n in range(-(-low // unit) * unit, high + 1, unit) if n != number and n >= SMALLEST_GIVEN]
    return Fraction(rng.choice(choices))


def _keeps_order(givens: Sequence[_Given], changes: Mapping[Fraction, Fraction]) -> bool:
    """Whether smaller numbers of the question stay smaller: a limit stays a limit, a part stays a part."""
    old = sorted({given.value for given in givens})
    new = [changes.get(value, value) for value in old]
    return all(a < b for a, b in itertools.pairwise(new))


def _recompute(chain: _Chain, changes: Mapping[Fraction, Fraction], sources: frozenset[Fraction]) -> _Chain | None:
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
    return _Chain(tuple(expressions), tuple(results))


def _is_sensible(old: Sequence[Fraction], new: Sequence[Fraction]) -> bool:
    def one(before: Fraction, after: Fraction) -> bool:
        whole = after.denominator == 1 if before.denominator == 1 else 100 % after.denominator == 0
        return whole and 0 < after <= LARGEST_RESULT

    return all(one(before, after) for before, after in zip(old, new, strict=True))


def _replace(text: str, chosen: Sequence[_Given], changes: Mapping[Fraction, Fraction]) -> str:
    for given in sorted(chosen, key=lambda g: g.start, reverse=True):
        grouped = "," if "," in text[given.start : given.end] else ""
        text = f"{text[: given.start]}{int(changes[given.value]):{grouped}}{text[given.end :]}"
    return text


def _solution_of(chain: _Chain) -> str:
    def lines() -> Iterator[str]:
        for expression, result in zip(chain.expressions, chain.results, strict=True):
            shown = "".join(t if isinstance(t, str) else _decimal(t) for t in expression)
            yield f"{shown} = <<{shown}={_decimal(result)}>>{_decimal(result)}"
        yield f"#### {_decimal(chain.results[-1])}"

    return "\n".join(lines())


def _decimal(value: Fraction) -> str:
    """The value in digits; exact, because a chain only holds terminating decimals."""
    if value.denominator == 1:
        return str(value.numerator)
    return f"{float(value):.6f}".rstrip("0")
