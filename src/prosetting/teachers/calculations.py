"""Worked solutions that carry their chain of calculations, as GSM8K's do, recomputed exactly. Pure.

    Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.
    #### 72

Numbers are read and computed by a small parser of our own, never by `eval`. Annotations: Cobbe et al. 2021,
arXiv 2110.14168.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

LONGEST_SOLUTION = 4_000  # characters
LONGEST_EXPRESSION = 80  # characters
MOST_STEPS = 20

Token = Fraction | str
Expression = tuple[Token, ...]

_ANNOTATION = re.compile(r"<<([^<>=]{1,80})=([^<>=]{1,30})>>")
_MARK = re.compile(r"<<|>>")
_TOKEN = re.compile(r" *([0-9]{1,12}(?:\.[0-9]{0,6})?|\.[0-9]{1,6}|[-+*/()])")
_NUMERAL = re.compile(r"[0-9]{1,3}(?:,[0-9]{3}){1,2}(?:\.[0-9]{1,6})?|[0-9]{0,12}\.[0-9]{1,6}|[0-9]{1,12}", re.ASCII)
_FRACTION = re.compile(r"([0-9]{1,4})/([0-9]{1,4})")

# Values that a word brings into a chain without a numeral. Their digits are never changed.
_IMPLIED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("half|halv|twice|doubl|pair|both|couple|two|twin|second|average|mean|weekend|other|each of", ("2", "0.5")),
    ("rectang|perimeter|square|around|box", ("2", "4")),
    ("thrice|tripl|three|third|yard", ("3",)),
    ("four|quarter|quadrupl|gallon|quart|season|week|month", ("4", "0.25", "0.75", "25")),
    ("five|fifth|nickel|week ?day|weekend|work", ("5",)),
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
    ("hundred|%|percent|cent|dollar|centur|penn|meter|\\$", ("100", "0.01")),
    ("mile", ("5280",)),
    ("year|leap", ("365",)),
    ("thousand|kilo|milli|liter|km|kg|gram", ("1000",)),
)


class WrongCalculation(ValueError):
    """A step of a chain whose written result is not its value, such as `48/2=25`."""


@dataclass(frozen=True, slots=True)
class Chain:
    """The calculations in order: (steps) expressions and their exact results."""

    expressions: tuple[Expression, ...]
    results: tuple[Fraction, ...]

    def steps(self) -> list[tuple[Expression, Fraction]]:
        return list(zip(self.expressions, self.results, strict=True))

    def literals(self) -> list[Fraction]:
        return [t for expression in self.expressions for t in expression if isinstance(t, Fraction)]

    def stands_on(self, given: frozenset[Fraction]) -> bool:
        """Whether it computes something, and only from `given` numbers and the results of earlier steps."""
        for step, expression in enumerate(self.expressions):
            literals = {token for token in expression if isinstance(token, Fraction)}
            if not literals <= given.union(self.results[:step]):
                return False
        return any(len(expression) > 1 for expression in self.expressions)


@dataclass(frozen=True, slots=True)
class Numeral:
    """A numeral of a question: where it stands, its value, the values by which a chain may use it."""

    start: int
    end: int
    value: Fraction
    uses: frozenset[Fraction]


def read_chain(solution: str) -> Chain | None:
    """The annotated calculations; None where there are none, or one cannot be read or is rounded.

    Raises WrongCalculation for a step whose result is not its value.
    """
    annotations = _ANNOTATION.findall(solution) if len(solution) <= LONGEST_SOLUTION else []
    if not 1 <= len(annotations) <= MOST_STEPS or len(_MARK.findall(solution)) != 2 * len(annotations):
        return None
    expressions, results = [], []
    for left, right in annotations:
        expression, written = tokenize(left), tokenize(right.replace(",", ""))
        value = evaluate(expression) if expression else None
        if not expression or value is None or not written or (result := evaluate(written)) is None:
            return None
        if value != result:
            if _is_rounded(value, right):
                return None
            raise WrongCalculation(f"{left}={right}")
        expressions.append(expression)
        results.append(value)
    return Chain(tuple(expressions), tuple(results))


def _is_rounded(value: Fraction, written: str) -> bool:
    whole, _, digits = written.strip().replace(",", "").partition(".")
    tokens = tokenize(f"{whole}.{digits}")
    shown = evaluate(tokens) if tokens else None
    return shown is not None and abs(value - shown) < Fraction(1, 10 ** len(digits))


def numerals(text: str) -> list[Numeral]:
    """The numerals of a question in order; a percentage or a fraction may be used in several ways."""
    return [_numeral(text, match) for match in _NUMERAL.finditer(text)]


def _numeral(text: str, match: re.Match[str]) -> Numeral:
    value = Fraction(match[0].replace(",", ""))
    uses = {value}
    if re.match(r" ?(?:%|percent)", text[match.end() : match.end() + 10]):
        uses |= {value / 100, 1 - value / 100, 1 + value / 100, 100 - value, 100 + value}
    for fraction in _FRACTION.finditer(text[max(0, match.start() - 5) : match.end() + 5]):
        over, under = int(fraction[1]), int(fraction[2])
        if under:
            uses |= {Fraction(over, under), 1 - Fraction(over, under), Fraction(over), Fraction(under)}
    return Numeral(match.start(), match.end(), value, frozenset(uses))


def implied_numbers(text: str) -> frozenset[Fraction]:
    """What words bring into a calculation without a numeral: "half", "a dozen", "three", "weekly"."""
    lowered = text.lower()
    implied = (values for words, values in _IMPLIED if re.search(rf"(?<![a-z])(?:{words})", lowered))
    return frozenset({Fraction(1)}.union(*({Fraction(v) for v in values} for values in implied)))


def given_numbers(text: str) -> frozenset[Fraction]:
    """Every number that a calculation for this question may start from."""
    return implied_numbers(text).union(*(numeral.uses for numeral in numerals(text)))


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


def decimal(value: Fraction) -> str:
    """The value in digits, at most six after the point; exact for the terminating decimals that a chain holds."""
    if value.denominator == 1:
        return str(value.numerator)
    return f"{float(value):.6f}".rstrip("0")
