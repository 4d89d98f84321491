"""Compare two final answers: by spelling, exactly as numbers, part by part as lists, tuples and matrices,
and by algebra for the single expressions that are left. Three-valued throughout: `unsure` is the default.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from prosetting.processors.answer_forms import (
    Form,
    Number,
    has_unusual_characters,
    is_balanced,
    is_constant,
    parse_form,
    parse_number,
    spelling_key,
    tidy,
    without_unit,
)
from prosetting.processors.symbolic_client import Relation

_MAX_SYMBOLIC_CALLS = 8
_MAX_UNDECIDED_CALLS = 2
_MAX_PARTS = 64


@dataclass(frozen=True, slots=True)
class ComparedAnswers:
    """How two answers relate, and by what that was decided."""

    relation: Relation
    reason: str


def compare_answers(
    question: str, expected: str, given: str, symbolic: Callable[[str, str], Relation]
) -> ComparedAnswers:
    """`symbolic` is called only for expressions that are no plain numbers, at most 8 times."""
    if has_unusual_characters(given.replace("°", "").replace("²", "")):
        return ComparedAnswers("unsure", "unusual characters in the answer")
    wanted, found = parse_form(expected), parse_form(given)
    if spelling_key(expected) == spelling_key(given) and not _differ_in_name(wanted, found):
        return ComparedAnswers("equal", "same answer, same spelling")
    comparison = _Comparison(question, symbolic)
    relation = comparison.of_forms(wanted, found)
    if relation == "equal" and _restates(question, expected, given):
        return ComparedAnswers("unsure", "an equal value, but perhaps not in the form asked for")
    return ComparedAnswers(relation, f"{comparison.how}: {relation}")


def compare_numbers(expected: Number, given: Number, question: str) -> Relation:
    """Exact comparison; `unsure` for what rounding, a percent sign or another unit could explain."""
    if expected.percent != given.percent:
        return _compare_percent(expected, given, question)
    if _other_unit_asked(question, expected.unit, given.unit):
        return "unsure"
    if expected.value == given.value:
        return "equal" if given.reduced or not expected.reduced else "unsure"
    whole = expected.style == given.style == "integer" or expected.style == given.style == "fraction"
    gap = abs(expected.value - given.value)
    return "different" if whole or gap * 100 > abs(expected.value) else "unsure"


def _compare_percent(expected: Number, given: Number, question: str) -> Relation:
    if expected.value == given.value:
        asked = re.search(r"percent|%", _last_question(question), re.IGNORECASE)
        return "equal" if asked else "unsure"
    scaled = expected.value / 100 if expected.percent else expected.value * 100
    if scaled == given.value:
        return "equal" if expected.percent or expected.style != "integer" else "unsure"
    near = [abs(given.value - value) * 50 <= abs(value) for value in (expected.value, scaled)]
    return "unsure" if any(near) else "different"


_UNIT_FAMILIES: tuple[dict[str, str], ...] = (
    {"second": "s", "sec": "s", "minute": "min", "min": "min", "hour": "h", "hr": "h", "day": "d", "week": "w"}
    | {"month": "mo", "year": "y"},
    {"dollar": "dollar", "cent": "cent", "$": "dollar"},
    {"inch": "in", "inche": "in", "feet": "ft", "foot": "ft", "ft": "ft", "yard": "yd", "mile": "mi"}
    | {"mm": "mm", "millimeter": "mm", "cm": "cm", "centimeter": "cm", "meter": "m", "km": "km", "kilometer": "km"},
    {"gram": "g", "g": "g", "kg": "kg", "kilogram": "kg", "ounce": "oz", "oz": "oz", "pound": "lb", "lb": "lb"},
    {"ml": "ml", "milliliter": "ml", "liter": "l", "gallon": "gal", "quart": "qt", "pint": "pt", "cup": "cup"},
)


def _units_in(text: str, family: dict[str, str]) -> set[str]:
    words = (word.rstrip("s") for word in re.findall(r"[a-z]+|\$", text.lower()))
    return {family[word] for word in words if word in family}


def _other_unit_asked(question: str, expected_unit: str, given_unit: str) -> bool:
    """The answer is in minutes where the reference, or else the question, is in hours."""
    for family in _UNIT_FAMILIES:
        given = _units_in(given_unit, family)
        asked = _units_in(expected_unit, family) or _units_in(_last_question(question), family)
        if given and asked and given.isdisjoint(asked):
            return True
    return False


def _last_question(question: str) -> str:
    """The sentence that asks: the one before the last question mark, or the end of the text."""
    head = question.rsplit("?", 1)[0]
    return re.split(r"(?<=[a-z0-9%)$]{2})(?<!Mrs)[.!?]\s", head)[-1]  # not after "Mr.", "Dr."


_ASKS_FOR_A_FORM = re.compile(
    r"\b(?:factor|expand|simplif|rationali[sz]|partial fraction|convert|rewrite|reduce|express|in terms of)",
    re.IGNORECASE,
)


def _restates(question: str, expected: str, given: str) -> bool:
    """The answer stands in the question already, or its form was asked for: equality is not enough."""
    wanted, found = parse_number(expected), parse_number(given)
    if wanted and found and (wanted.style == found.style != "fraction"):
        return False
    echoed = _bare(given)
    if len(echoed) > 2 and echoed in _bare(question):
        return True
    return not (wanted and found) and bool(_ASKS_FOR_A_FORM.search(question))


def _bare(text: str) -> str:
    return re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2", re.sub(r"[\s$*{}]|\\cdot|\\times", "", tidy(text)))


_NO_ALGEBRA = re.compile(
    r"\\(?:in|ne|le|ge|approx|equiv|p?mod|text|[lc]?dots|operatorname|overline|angle|triangle|begin|cup|cap|mid|"
    r"emptyset|pm|mp|forall)(?![a-zA-Z])"
)
_NOT_EVALUATED = re.compile(r"\\(?:int|sum|prod|lim|gcd|lcm|d?binom|det|max|min|lfloor|lceil)(?![a-zA-Z])|!|\\frac\{d")


# Relations and prose; also what LaTeX parsers drop or misread: bases (10_2), towers (a^b^c), 1e9999.
_MISREAD = re.compile(r"[=<>:?|'\"#&@`]|\d\s\d|\d\}?\s?_|\^\s?\w+\s?\^|\d\s?[eE][-+]?\d|\.\.\.|[A-Za-z]{3}")


def _is_algebra(text: str) -> bool:
    """An expression without relations, words and dots, which the symbolic worker can take at its word."""
    if not is_balanced(text) or _NO_ALGEBRA.search(text):
        return False
    return not _MISREAD.search(re.sub(r"\\[a-zA-Z]+", " ", text))


_Digits = tuple[str, int | None]


def _in_base(text: str) -> _Digits | None:
    """`204_5` as its digits and base."""
    match = re.fullmatch(r"(\d{1,60})\s?_\s?\{?\s?(\d{1,2})\s?\}?", text)
    return (match[1], int(match[2])) if match else None


def _plain_digits(number: Number | None) -> _Digits | None:
    return (str(number.value), None) if number and number.style == "integer" else None


def _of_bases(expected: _Digits | None, given: _Digits | None) -> Relation:
    """Different digits in one base differ; a number without its base is left open unless no reading fits."""
    if expected is None or given is None:
        return "unsure"
    if expected[1] == given[1]:
        return "equal" if int(expected[0]) == int(given[0]) else "different"
    (digits, base), (plain, other) = (expected, given) if expected[1] else (given, expected)
    if base is None or other is not None:
        return "unsure"
    readings = {int(digits)} | ({int(digits, base)} if 2 <= base <= 10 and int(max(digits)) < base else set())
    return "unsure" if int(plain) in readings else "different"


def _differ_in_name(expected: Form, given: Form) -> bool:
    return bool(expected.name and given.name and expected.name != given.name)


class _Comparison:
    """One comparison of two forms; counts its calls of the symbolic worker, which are bounded."""

    def __init__(self, question: str, symbolic: Callable[[str, str], Relation]) -> None:
        self._question, self._symbolic = question, symbolic
        self._calls = self._undecided = 0
        self._known: dict[tuple[str, str], Relation] = {}
        self.how: Literal["numbers", "structure", "algebra", "text"] = "structure"

    def of_forms(self, expected: Form, given: Form) -> Relation:
        """The relation of two answers or of two parts; `x = 5` and `y = 5` are not known to be the same."""
        relation = self._of_values(expected, given)
        return "unsure" if relation == "equal" and _differ_in_name(expected, given) else relation

    def _of_values(self, expected: Form, given: Form) -> Relation:
        if spelling_key(expected.text) == spelling_key(given.text):
            return "equal"
        kinds = {expected.kind, given.kind}
        if kinds == {"leaf"}:
            return self._of_leaves(expected, given)
        if max(len(expected.parts), len(given.parts)) > _MAX_PARTS:
            return "unsure" if expected.parts else "different"
        if "leaf" in kinds:
            return self._of_leaf_and_group(expected, given)
        if expected.kind == given.kind == "list" or expected.kind == given.kind == "union":
            return self._unordered(expected, given)
        if expected.kind == given.kind and expected.fence == given.fence:
            return self._ordered(expected, given)
        relation = self._ordered(expected, given)
        if relation == "equal":
            return "equal" if kinds == {"list", "tuple"} and "[" not in expected.fence + given.fence else "unsure"
        flat = all(part.kind == "leaf" for part in expected.parts + given.parts)
        if kinds == {"list", "tuple"} and flat and self._unordered(expected, given) == "different":
            return "different"
        return relation if kinds <= {"tuple", "matrix"} else "unsure"

    def _ordered(self, expected: Form, given: Form) -> Relation:
        if len(expected.parts) != len(given.parts):
            return "different"
        found = [self.of_forms(left, right) for left, right in zip(expected.parts, given.parts, strict=True)]
        return "different" if "different" in found else "unsure" if "unsure" in found else "equal"

    def _unordered(self, expected: Form, given: Form) -> Relation:
        """Equal as multisets; different where some part has no counterpart that could be it. A part listed
        twice on one side only is left open."""
        rest = list(given.parts)
        for part in expected.parts:
            relations = [self.of_forms(part, other) for other in rest]
            if "equal" in relations:
                del rest[relations.index("equal")]
            elif all(self.of_forms(part, other) == "different" for other in given.parts):
                return "different"
        for other in rest:
            if all(self.of_forms(part, other) == "different" for part in expected.parts):
                return "different"
        return "unsure" if rest or len(expected.parts) != len(given.parts) else "equal"

    def _of_leaf_and_group(self, expected: Form, given: Form) -> Relation:
        """A single value against several: different for numbers, except what a decimal comma could be."""
        leaf, group = (expected, given) if expected.kind == "leaf" else (given, expected)
        number = parse_number(leaf.text)
        if number is None or r"\pm" in group.text:
            return "unsure"
        if all(self.of_forms(leaf, part) != "different" for part in group.parts):
            return "unsure"  # 1 and `1, 1`
        if re.fullmatch(r"-?\d+,\s?\d+", group.text):
            readings = [parse_number(re.sub(r",\s?", mark, group.text)) for mark in ("", ".")]
            return "different" if all(r and r.value != number.value for r in readings) else "unsure"
        return "different"

    def _of_leaves(self, expected: Form, given: Form) -> Relation:
        left, right = parse_number(expected.text), parse_number(given.text)
        if left and right:
            self.how = "numbers"
            return compare_numbers(left, right, self._question)
        if r"\infty" in {expected.text.lstrip("-"), given.text.lstrip("-")}:
            finite = left or right or expected.text.lstrip("-") == given.text.lstrip("-")
            return "different" if finite else "unsure"
        bases = [_in_base(form.text) for form in (expected, given)]
        if any(bases):
            return _of_bases(bases[0] or _plain_digits(left), bases[1] or _plain_digits(right))
        choices = [re.fullmatch(r"\(?([A-Z])\)?\.?", spelling_key(form.text)) for form in (expected, given)]
        if choices[0] and choices[1]:
            self.how = "text"
            return "equal" if choices[0][1] == choices[1][1] else "different"
        words = [re.sub(r"[^a-z]", "", spelling_key(form.text).lower()) for form in (expected, given)]
        if words[0] == words[1] and re.fullmatch(r"[A-Za-z]{2,}", spelling_key(given.text)):
            self.how = "text"
            return "equal"
        return self._by_algebra(without_unit(expected.text), without_unit(given.text), left, right)

    def _by_algebra(self, expected: str, given: str, left: Number | None, right: Number | None) -> Relation:
        self.how = "algebra"
        if not (left or _is_algebra(expected)) or not (right or _is_algebra(given)) or _NOT_EVALUATED.search(given):
            return "unsure"
        if is_constant(given) and ")(" in given:
            return "unsure"
        if (left or right) and any(re.fullmatch(r"-?[\d.,]+\s?[A-Za-z]", text) for text in (expected, given)):
            return "unsure"  # 18k, 5m: a unit or a factor, not a variable
        if ("°" in expected) != ("°" in given) and r"\pi" in expected + given:
            return "unsure"
        relation = self._ask(expected.replace("°", ""), given.replace("°", ""))
        # A value equal to a plain number that is not written as one is a calculation left undone.
        return "unsure" if relation == "equal" and left and not right else relation

    def _ask(self, expected: str, given: str) -> Relation:
        """The symbolic worker's answer, asked for once; the number of questions is bounded."""
        if (expected, given) in self._known:
            return self._known[expected, given]
        if self._calls == _MAX_SYMBOLIC_CALLS or self._undecided == _MAX_UNDECIDED_CALLS:
            return "unsure"
        self._calls += 1
        relation = self._known[expected, given] = self._symbolic(expected, given)
        self._undecided += relation == "unsure"
        return relation
