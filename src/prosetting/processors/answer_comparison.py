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
from prosetting.processors.answer_numbers import compare_numbers, read_abroad
from prosetting.processors.symbolic_client import Relation, SymbolicAnswer

_MAX_SYMBOLIC_CALLS = 8
_MAX_UNDECIDED_CALLS = 2
_MAX_PARTS = 32
_MAX_ALGEBRA_DEPTH = 10
_MAX_COMPARED_PARTS = 1_000


@dataclass(frozen=True, slots=True)
class ComparedAnswers:
    """How two answers relate, and by what that was decided."""

    relation: Relation
    reason: str


def compare_answers(
    question: str, expected: str, given: str, symbolic: Callable[[str, str], SymbolicAnswer]
) -> ComparedAnswers:
    """`symbolic` is called only for expressions that are no plain numbers, at most 8 times."""
    if any(has_unusual_characters(text.replace("°", "").replace("²", "")) for text in (expected, given)):
        return ComparedAnswers("unsure", "unusual characters in the answer")
    wanted, found = parse_form(expected), parse_form(given)
    if _same_spelling(expected, given) and not _differ_in_name(wanted, found):
        return ComparedAnswers("equal", "same answer, same spelling")
    comparison = _Comparison(question, symbolic)
    relation = comparison.of_forms(wanted, found)
    if relation == "equal" and _restates(question, expected, given):
        return ComparedAnswers("unsure", "an equal value, but perhaps not in the form asked for")
    return ComparedAnswers(relation, f"{comparison.how}: {relation}")


def _same_spelling(expected: str, given: str) -> bool:
    """The number 1,200 and the list `1, 200` differ in a space only."""
    if spelling_key(expected) != spelling_key(given):
        return False
    return (parse_number(expected) is None) == (parse_number(given) is None)


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
    r"emptyset|pm|mp|forall|[bsx]?cancel|sout|lnot|neg)(?![a-zA-Z])"
)
_NOT_EVALUATED = re.compile(r"\\(?:int|sum|prod|lim|gcd|lcm|d?binom|det|max|min|lfloor|lceil)(?![a-zA-Z])|!|\\frac\{d")


# Relations and prose; also what LaTeX parsers drop or misread: bases (10_2), towers (a^b^c), 1e9999.
_MISREAD = re.compile(r"[=<>:?|'\"#&@`~]|\d\s\d|\d\.\d+\.|\d\}?\s?_|\^\s?\w+\s?\^|\d\s?[eE][-+]?\d|\.\.\.|[A-Za-z]{3}")


# What computer algebra would work on until its limit: towers, huge powers and factorials, long sums.
_HEAVY = re.compile(
    r"\d\s?\)*\^\s?[{(\s]*-?[\d.]+[)}\s]*\^|\^\s?[{(\s]*-?\d{4}|(?:\d{4}|[)}!])\s?!|\^\s?\{[^{}]*\^\s?\{[^{}]*\^|"
    r"\)\s?\^\s?\{?\d\d[^^]*\)\s?\^\s?\{?\d\d|(?:\\sqrt\s?\{[^{}]*){4}|\\(?:d?binom[^+]{0,40}(?:\d{4}|\^)|"
    r"(?:sum|prod|int|lim|bigcup|bigcap|Gamma|zeta)(?![a-zA-Z]))"
)
# Base 10 or e, degrees or radians: the reading depends on who wrote it. With \pi, k is any integer.
_BARE_LOG = re.compile(r"\\log(?![a-zA-Z]|\s?_)")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")
_ANY_INTEGER = re.compile(r"(?<![a-zA-Z\\])[kmn](?![a-zA-Z])")


_WITH_LETTERS = re.compile(r"-?[\d.,]+\s?[A-Za-z]{1,4}(?:\s?/\s?[A-Za-z]{1,4})?(?:\^\d)?")
_RANGE_OR_DATE = re.compile(r"\d+(?:\s?-\s?\d+)+|\d+(?:/\d+){2,}")


def _depends_on_convention(expected: str, given: str) -> bool:
    if bool(_BARE_LOG.search(expected)) != bool(_BARE_LOG.search(given)):
        return True
    return any(
        _TRIGONOMETRIC.search(text) and ("°" in text or (is_constant(text) and r"\pi" not in text))
        for text in (expected, given)
    )


def _is_algebra(text: str) -> bool:
    """An expression without relations, words and dots, which the symbolic worker can take at its word."""
    if not is_balanced(text, _MAX_ALGEBRA_DEPTH) or _NO_ALGEBRA.search(text) or _HEAVY.search(text):
        return False
    return not _MISREAD.search(re.sub(r"\\[a-zA-Z]+", " ", text))


_CLOSED_CHOICES = ({"yes", "no"}, {"true", "false"})
_CHOICE = re.compile(r"\(?([A-Z])\)?\.?")
_CHOICE_WITH_TEXT = re.compile(r"(?:\(([A-Z])\)|([A-Z])[.):])\s*\S.*")


def _compare_words(expected: str, given: str) -> Relation | None:
    """Choice letters and words, given as spelling keys; None for anything else."""
    wanted, found = _CHOICE.fullmatch(expected), _CHOICE.fullmatch(given)
    if wanted and found:
        return "equal" if wanted[1] == found[1] else "different"
    spelled_out = _CHOICE_WITH_TEXT.fullmatch(given if wanted else expected)
    if spelled_out and (wanted or found):  # `(B) 12` for B
        letter = (wanted or found)[1]  # type: ignore[index]
        return "equal" if letter == (spelled_out[1] or spelled_out[2]) else "unsure"
    if _CHOICE_WITH_TEXT.fullmatch(given) or _CHOICE_WITH_TEXT.fullmatch(expected):
        return "unsure"
    left, right = (re.sub(r"[^a-z]", "", text.lower()) for text in (expected, given))
    if left == right and re.fullmatch(r"[A-Za-z]{2,}", given):
        return "equal"
    return "different" if left != right and any({left, right} <= pair for pair in _CLOSED_CHOICES) else None


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


def _as_one_number(text: str) -> list[Number]:
    """What `10 , 080` and `1.234,5` could be: one number with marks between its digits."""
    bare = text.strip("() $")
    if not re.fullmatch(r"-?\d[\d.,\s]*", bare):
        return []
    *head, last = re.split(r"[.,\s]+", bare)
    readings = (parse_number("".join(head) + mark + last) for mark in ("", "."))
    return [reading for reading in readings if reading]


def _same_names(expected: Form, given: Form) -> bool:
    """`(x, y) = (1, 2)` and `x = 1, y = 2`: the names are told on one side and in order."""
    if "," in expected.name + given.name:
        return True
    names = [part.name for part in (*expected.parts, *given.parts) if part.name]
    return len(names) == len(expected.parts) > 1 and names == sorted(set(names))


class _Comparison:
    """One comparison of two forms; counts its calls of the symbolic worker, which are bounded."""

    def __init__(self, question: str, symbolic: Callable[[str, str], SymbolicAnswer]) -> None:
        self._question, self._symbolic = question, symbolic
        self._calls = self._undecided = self._compared = 0
        self._known: dict[tuple[str, str], Relation] = {}
        self.how: Literal["numbers", "structure", "algebra", "text"] = "structure"

    def of_forms(self, expected: Form, given: Form) -> Relation:
        """The relation of two answers or of two parts; `x = 5` and `y = 5` are not known to be the same."""
        relation = self._of_values(expected, given)
        return "unsure" if relation == "equal" and _differ_in_name(expected, given) else relation

    def _of_values(self, expected: Form, given: Form) -> Relation:
        self._compared += 1
        if self._compared > _MAX_COMPARED_PARTS:
            return "unsure"
        if _same_spelling(expected.text, given.text):
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
        if relation == "equal":  # a list, a point and an open interval may look alike
            return "equal" if _same_names(expected, given) else "unsure"
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
        relations = [self.of_forms(leaf, part) for part in group.parts]
        if "different" not in relations:
            return "unsure"  # 1 and `1, 1`
        if any(part.name and r != "different" for part, r in zip(group.parts, relations, strict=True)):
            return "unsure"  # 3 and `x = 3, y = 4`
        if any(reading.value == number.value for reading in _as_one_number(group.text)):
            return "unsure"
        return "different"

    def _of_leaves(self, expected: Form, given: Form) -> Relation:
        left, right = parse_number(expected.text), parse_number(given.text)
        if left and right:
            self.how = "numbers"
            if read_abroad(expected.text, left, right) or read_abroad(given.text, right, left):
                return "unsure"
            return compare_numbers(left, right, self._question)
        if r"\infty" in {expected.text.lstrip("-"), given.text.lstrip("-")}:
            finite = left or right or expected.text.lstrip("-") == given.text.lstrip("-")
            return "different" if finite else "unsure"
        bases = [_in_base(form.text) for form in (expected, given)]
        if any(bases):
            return _of_bases(bases[0] or _plain_digits(left), bases[1] or _plain_digits(right))
        said = _compare_words(spelling_key(expected.text), spelling_key(given.text))
        if said:
            self.how = "text"
            return said
        return self._by_algebra(without_unit(expected.text), without_unit(given.text), left, right)

    def _by_algebra(self, expected: str, given: str, left: Number | None, right: Number | None) -> Relation:
        self.how = "algebra"
        if not (left or _is_algebra(expected)) or not (right or _is_algebra(given)) or _NOT_EVALUATED.search(given):
            return "unsure"
        if is_constant(given) and ")(" in given:
            return "unsure"
        if _depends_on_convention(expected, given):
            return "unsure"
        if (left or right) and any(_WITH_LETTERS.fullmatch(text) for text in (expected, given)):
            return "unsure"  # 18k, 5kg, 2nd, 10 m/s: a unit or a factor, not a variable
        if any(_RANGE_OR_DATE.fullmatch(text) for text in (expected, given)):
            return "unsure"
        if ("°" in expected) != ("°" in given) and r"\pi" in expected + given:
            return "unsure"
        relation = self._ask(expected.replace("°", ""), given.replace("°", ""))
        if relation == "different" and r"\pi" in expected + given and _ANY_INTEGER.search(expected + given):
            return "unsure"
        # A value equal to a plain number that is not written as one is a calculation left undone.
        return "unsure" if relation == "equal" and left and not right else relation

    def _ask(self, expected: str, given: str) -> Relation:
        """The symbolic worker's answer, asked for once; the number of questions is bounded."""
        if (expected, given) in self._known:
            return self._known[expected, given]
        if self._calls == _MAX_SYMBOLIC_CALLS or self._undecided == _MAX_UNDECIDED_CALLS:
            return "unsure"
        self._calls += 1
        answer = self._symbolic(expected, given)
        if answer == "limit":  # one comparison that does not end is enough
            self._calls = _MAX_SYMBOLIC_CALLS
        relation: Relation = "unsure" if answer == "limit" else answer
        self._known[expected, given] = relation
        self._undecided += relation == "unsure"
        return relation
