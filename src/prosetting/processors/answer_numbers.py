"""Compare two numbers as answers: exactly, with their units, percent signs and roundings. Pure functions.

Three-valued: `unsure` wherever rounding, another unit or another country's marks could explain the difference.
"""

from __future__ import annotations

import re

from prosetting.processors.answer_forms import Number
from prosetting.processors.symbolic_client import Relation

_ABOUT_DEGREES = re.compile(r"degree|angle|\\circ|°|temperature|rotat|\\cos|\\sin|\\tan|measure", re.IGNORECASE)


def compare_numbers(expected: Number, given: Number, question: str) -> Relation:
    """Exact comparison; `unsure` for what rounding, a percent sign or another unit could explain."""
    if expected.percent != given.percent:
        return _compare_percent(expected, given, question)
    if _other_unit_asked(question, expected.unit, given.unit) or _units_clash(expected.unit, given.unit):
        return "unsure"
    if _may_be_converted(expected, given):
        return "unsure"
    if expected.value == given.value:
        if expected.degrees != given.degrees and not _ABOUT_DEGREES.search(question):
            return "unsure"
        return "equal" if given.reduced or not expected.reduced else "unsure"
    whole = expected.style == given.style == "integer" or expected.style == given.style == "fraction"
    return "different" if whole or not _may_be_rounded(expected, given) else "unsure"


def _may_be_rounded(expected: Number, given: Number) -> bool:
    """Within 1 %, or within one unit of the last decimal that the shorter of two decimals shows."""
    gap = abs(expected.value - given.value)
    shown = [number.decimals for number in (expected, given) if number.style == "decimal"]
    return gap * 100 <= abs(expected.value) or (bool(shown) and gap * 10 ** min(shown) < 1)


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
    {"dollar": "dollar", "cent": "cent", "$": "dollar", "euro": "euro", "€": "euro", "sterling": "sterling"},
    {"inch": "in", "inche": "in", "feet": "ft", "foot": "ft", "ft": "ft", "yard": "yd", "mile": "mi"}
    | {"mm": "mm", "millimeter": "mm", "cm": "cm", "centimeter": "cm", "meter": "m", "km": "km", "kilometer": "km"},
    {"gram": "g", "g": "g", "kg": "kg", "kilogram": "kg", "ounce": "oz", "oz": "oz", "pound": "lb", "lb": "lb"},
    {"ml": "ml", "milliliter": "ml", "liter": "l", "gallon": "gal", "quart": "qt", "pint": "pt", "cup": "cup"},
)
_ABBREVIATIONS = {word: short for family in _UNIT_FAMILIES for word, short in family.items()}


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


_FACTORS = frozenset({3, 7, 12, 16, 24, 36, 60, 100, 365, 1000, 1440, 3600, 5280})


def _may_be_converted(expected: Number, given: Number) -> bool:
    """`350 cents` for 3.5: a unit on one side, and the values a unit's factor apart."""
    unit = given.unit or expected.unit
    if not expected.value or not given.value or unit == "dollars" or bool(given.unit) == bool(expected.unit):
        return False
    ratio = abs(expected.value / given.value)
    return max(ratio, 1 / ratio) in _FACTORS and any(_units_in(unit, family) for family in _UNIT_FAMILIES)


def _units_clash(expected_unit: str, given_unit: str) -> bool:
    """Both name a unit and not the same one: cm^2 and cm^3, dollars and euros, apples and pears."""
    expected, given = (
        sorted(_ABBREVIATIONS.get(word.rstrip("s"), word.rstrip("s")) for word in re.findall(r"[a-z]+|\^\d", unit))
        for unit in (expected_unit, given_unit)
    )
    return bool(expected and given) and expected != given


def _last_question(question: str) -> str:
    """The sentence that asks: the one before the last question mark, or the end of the text."""
    head = question.rsplit("?", 1)[0]
    return re.split(r"(?<=[a-z0-9%)$]{2})(?<!Mrs)[.!?]\s", head)[-1]  # not after "Mr.", "Dr."


_THOUSANDS = re.compile(r"[-$€£\s]*[1-9]\d{0,2}(?P<mark>[.,])\d{3}(?![\d.,])")


def read_abroad(text: str, number: Number, other: Number) -> bool:
    """`1.234` is a thousand and more in half of the world, `1,234` little more than one: would it matter here?"""
    match = _THOUSANDS.match(text)
    if match is None:
        return False
    if match["mark"] == ".":
        return other.value in (number.value, number.value * 1000)
    return other.value.denominator > 1 and other.value == number.value / 1000
