"""The written form of a final answer, read exactly: numbers with units, lists, tuples, intervals, matrices.

Everything here is pure. What cannot be read without doubt comes back as `None` or as a plain leaf, so that
the caller abstains; nothing is guessed and no floating point is used.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

MAX_ANSWER_CHARS = 1_000
_MAX_NUMBER_CHARS = 120
_MAX_DEPTH = 20

_SYMBOLS = str.maketrans(
    {"−": "-", "–": "-", "‐": "-", "×": r"\times ", "·": r"\cdot ", "÷": r"\div ", "π": r"\pi ", "∞": r"\infty "}
    | {"≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ", "∈": r"\in ", "±": r"\pm "}
    | {"°": r"^\circ ", "’": "'", "“": '"', "”": '"', "\u00a0": " ", "\u202f": " ", "\u2009": " "}
)
_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:left|right|displaystyle|limits|bigl?|bigr|Bigl?|Bigr)(?![a-zA-Z])\.?", ""),
        (r"\\(?:mbox|textrm|textnormal|textbf|textit|mathrm|mathbf|text)\s*\{", r"\\text{"),
        (r"(?<!\\)\\!\s*", ""),
        (r"\{,\}", ","),
        (r"(?<!\\)\\(?:[,;: ]|qquad|quad)", " "),
        (r"(?<=[\w}\])$,.])~", " "),  # a LaTeX space; before a number it says "about", around it "crossed out"
        (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degree(?![a-zA-Z])", "°"),
        (r"\\%", "%"),
        (r"\\?\$", " $ "),
        (r"\\leq?(?:slant)?(?![a-zA-Z])", r"\\le "),
        (r"\\geq?(?:slant)?(?![a-zA-Z])", r"\\ge "),
        (r"\\neq?(?![a-zA-Z])", r"\\ne "),
        (r"(?<![\\a-zA-Z])\+\s*\\infty", r"\\infty"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\s*\{\d+\})\s*(\d)", r"\1{\2}"),
        (r"\\sqrt\s*(\d)", r"\\sqrt{\1}"),
        (r"_\{(\w)\}", r"_\1"),
        (r"\^\{(\w)\}", r"^\1"),
        (r"\*\*|__", " "),
        (r"\s+", " "),
    )
)


_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


def has_unusual_characters(text: str) -> bool:
    """Digits of other scripts, combining marks, invisible, direction-changing or control characters."""
    if text.isascii():
        return bool(_CONTROL.search(text))
    return any(
        unicodedata.category(character) in {"Nd", "Nl", "No", "Mn", "Me", "Cf", "Cc", "Cs", "Co", "Cn"}
        for character in text
        if not character.isascii() or ord(character) < 9
    )


_NEEDS_REWRITING = re.compile(r"[\\$~*_^{]")


def tidy(text: str) -> str:
    """One spelling for what LaTeX and prose write in several ways; math delimiters and the full stop go."""
    if text.isascii() and not _NEEDS_REWRITING.search(text):
        return " ".join(text.split()).rstrip(".;").strip()
    text = text.strip().translate(_SYMBOLS)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = re.sub(r"^\s*\\[(\[]|\\[)\]]\s*[.,;]?\s*$", " ", text).strip()
    if text.count("$") > 1 or text.endswith("$"):
        text = text.replace("$", " ")
    text = re.sub(r"\s+", " ", text).strip().rstrip(".;。").strip()
    whole = re.fullmatch(r"\\text\{\s*([^{}]*?)\s*\}|\{([^{},]*)\}", text)
    return (whole[1] or whole[2] or "") if whole else text


def spelling_key(text: str) -> str:
    """Two answers with equal keys are the same answer, written the same way."""
    text = re.sub(r"\\text\{([^{}]*)\}", r"\1", without_name(tidy(text)))
    return re.sub(r"(?<!\d)\s|\s(?!\d)|\$", "", text)  # not between digits: `1 8` is not 18


_GREEK = r"\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|rho|sigma|tau|phi|psi|omega|ell)"
_NAME = rf"(?:[A-Za-z]|{_GREEK})(?:_(?:\{{\w+\}}|\w))?(?:\s?\([a-z]\))?"
_NAMED = re.compile(rf"^(?P<name>{_NAME}|\({_NAME}(?:\s?,\s?{_NAME})+\))\s*(?:=|\\in(?![a-z]))\s*(?P<value>[^=]+)$")


def without_name(text: str) -> str:
    """`x = 5`, `f(x) = 2x`, `x \\in [0, 1)`, `(a, b) = (1, 2)`: the part that is the answer."""
    match = _NAMED.match(text)
    return match["value"].strip() if match else text


@dataclass(frozen=True, slots=True)
class Number:
    """An exact number as written. `style` tells how: a reader who was asked for a fraction sees it.
    `unit` is in lower case, with its power ("cm^2"); `decimals` counts the digits after the point."""

    value: Fraction
    style: Literal["integer", "decimal", "fraction"]
    percent: bool = False
    degrees: bool = False
    unit: str = ""
    reduced: bool = True
    decimals: int = 0


_INTEGER = r"(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.\d*)?|\.\d+)"


def _fraction(tag: str) -> str:
    latex = rf"\\frac\s?\{{\s?(?P<minus{tag}>-?)\s?(?P<top{tag}>\d[\d,]*)\s?\}}\s?\{{\s?(?P<low{tag}>\d[\d,]*)\s?\}}"
    return rf"(?:{latex}|(?<!\d)(?P<up{tag}>\d+)\s?/\s?(?P<down{tag}>\d+))"


_UNIT = (
    r"(?:(?:\s?\\text\{(?P<unit1>[A-Za-z .,/%'°-]*)\}|\s(?P<unit2>[A-Za-z][A-Za-z]+(?:[ -][A-Za-z]+){0,7}))"
    r"(?:\^\{?(?P<power>\d)\}?)?)?"
)
_NUMBER = re.compile(
    r"(?P<sign1>[-+]?)\s?(?:(?P<currency>[$€£]|USD)\s?)?(?P<sign2>-?)\s?"
    rf"(?:(?P<scientific>{_DECIMAL})\s?(?:(?:\\times|\\cdot|\*)\s?10\s?\^\s?\(?\{{?|[eE])(?P<exponent>[-+]?\d{{1,3}})\}}?\)?"
    rf"|(?P<whole>\d+)\s?{_fraction('1')}|{_fraction('2')}|(?P<decimal>{_DECIMAL}))"
    r"\s?(?P<euro>[$€£])?"
    rf"(?:(?P<degrees>°)|\s?(?P<percent>%|percent(?:age)?|pct))?{_UNIT}\s?"
)
_NO_UNIT = re.compile(
    r"\b(?:or|and|not|to|but|than|plus|minus|over|under|below|above|between|either|neither|nor|if|unless|except|versus|vs|"
    r"up|then|about|around|approximately|roughly|nearly|almost|maybe|perhaps|possibly|probably|likely|no|never|is|are|was|"
    r"wait|wrong|incorrect|false|rejected|right|negative|positive|too|short|off|point|remainder|power|root|factorial|fold|"
    r"hundreds?|thousands?|\w+illi(?:on|ard)s?|grand|lakhs?|crores?|scores?|gross|dozens?|tens|half|halves|thirds?|"
    r"quarters?|\w+(?:th|ths)|pairs?|squared|cubed|choose|mod|modulo|times|divided|multiplied|of|more|less|fewer|greater|"
    r"at|most|least|base|per cent|basis|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|"
    r"twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)\b|[\d\\=<>]"
)
_LENGTHS_ON_TH = re.compile(r"\b(?:months?|depth|width|length|breadth|north|south|teeth|cloths?)\b")
_CURRENCIES = {"$": "dollars", "USD": "dollars", "€": "euros", "£": "pounds sterling"}


def is_constant(text: str) -> bool:
    """Digits and no letters but those of commands, units and the constants e and i."""
    bare = re.sub(r"\\text\{[^{}]*\}|\\[a-zA-Z]+|(?<![a-zA-Z])[ei](?![a-zA-Z])", " ", tidy(text))
    return parse_number(text) is not None or bool(re.search(r"\d", bare) and not re.search(r"[^\W\d_]", bare))


def without_unit(text: str) -> str:
    """`99\\pi \\text{ square inches}` without its unit; words that change the value stay."""
    match = re.fullmatch(r"(?P<value>.*[^\s\\])\s?\\text\{(?P<unit>[A-Za-z .]+)\}(?:\^\{?\d\}?)?", text)
    return match["value"] if match and is_unit(match["unit"].lower()) else text


def is_unit(words: str) -> bool:
    """Words that may follow a number without changing it: `18 below zero` is not 18."""
    return not _NO_UNIT.search(_LENGTHS_ON_TH.sub("", words))


def parse_number(text: str) -> Number | None:
    """The number that `text` is, as a whole; `None` when it is anything else or more than that."""
    text = tidy(text) if len(text) <= MAX_ANSWER_CHARS else text
    if len(text) > _MAX_NUMBER_CHARS or (not text.isascii() and has_unusual_characters(text.replace("°", ""))):
        return None
    match = _NUMBER.fullmatch(without_name(text))
    if match is None:
        return None
    unit = (match["unit1"] or match["unit2"] or _CURRENCIES.get(match["currency"] or match["euro"], "")).strip().lower()
    if not is_unit(unit):
        return None
    percent = bool(match["percent"]) or unit in {"%", "percent", "percentage", "pct"}
    degrees = bool(match["degrees"]) or unit in {"degrees", "degree"}
    parts = _value_of(match)
    if parts is None:
        return None
    value, style, reduced = parts
    negatives = (match["sign1"] + match["sign2"] + (match["minus1"] or "") + (match["minus2"] or "")).count("-")
    if negatives > 1:
        return None
    decimals = len((match["decimal"] or "").partition(".")[2])
    unit += f"^{match['power']}" if match["power"] else ""
    return Number(-value if negatives else value, style, percent, degrees, unit, reduced, decimals)


def _value_of(
    match: re.Match[str],
) -> tuple[Fraction, Literal["integer", "decimal", "fraction"], bool] | None:
    if match["scientific"]:
        value = Fraction(match["scientific"].replace(",", "")) * Fraction(10) ** int(match["exponent"])
        return value, "decimal" if value.denominator > 1 else "integer", True
    if match["decimal"]:
        value = Fraction(match["decimal"].replace(",", "").rstrip(".") or "0")
        return value, "decimal" if value.denominator > 1 else "integer", True
    groups = match.groupdict()
    top = next(groups[name] for name in ("top1", "up1", "top2", "up2") if groups[name])
    low = next(groups[name] for name in ("low1", "down1", "low2", "down2") if groups[name])
    numerator, denominator = int(top.replace(",", "")), int(low.replace(",", ""))
    if denominator == 0:
        return None
    part = Fraction(numerator, denominator)
    return Fraction(int(match["whole"] or 0)) + part, "fraction", part.denominator == denominator > 1


@dataclass(frozen=True, slots=True)
class Form:
    """The structure of an answer. `fence` is the pair of brackets of a tuple or an interval, the shape of
    a matrix; a `list` is unordered, a `leaf` has text and no parts. `name` is the `x` of `x = 5`."""

    kind: Literal["leaf", "list", "tuple", "union", "matrix"]
    text: str
    parts: tuple[Form, ...] = ()
    fence: str = ""
    name: str = ""


_SEPARATOR = re.compile(r",|\\text\{\s*(?:,?\s*and|,?\s*or)\s*\}| (?:and|or) ")
_MATRIX = re.compile(r"^\\begin\{([pbBv]?matrix)\}(?P<body>.*)\\end\{\1\}$", re.DOTALL)


def parse_form(text: str, depth: int = 0) -> Form:
    """Split an answer at its outermost separators; raises nothing, depth and length are bounded."""
    text = tidy(text)
    if depth > 6 or len(text) > MAX_ANSWER_CHARS or not is_balanced(text) or parse_number(text):
        match = _NAMED.match(text)
        return Form("leaf", without_name(text), name=spelling_key(match["name"]) if match else "")
    groups = _split(text, re.compile(";"))  # `p=5, q=2; p=7, q=2` is a list of lists
    parts = [part for part in groups if part] if len(groups) > 1 else _split(text, _SEPARATOR)
    if len(parts) > 1:
        return Form("list", text, tuple(leaf for part in parts if part for leaf in _signs(part, depth)))
    if match := _NAMED.match(text):
        return replace(parse_form(match["value"], depth + 1), name=spelling_key(match["name"]))
    matrix = _MATRIX.match(text)
    if matrix and r"\begin" not in matrix["body"]:
        return _matrix_form(text, matrix["body"])
    unions = _split(text, re.compile(r"\\cup(?![a-z])"))
    if len(unions) > 1:
        return Form("union", text, tuple(parse_form(part, depth + 1) for part in unions))
    return _fenced_form(text, depth)


def _fenced_form(text: str, depth: int) -> Form:
    inner = re.fullmatch(r"(\\\{|[(\[{])(?P<inner>.+?)(\\\}|[)\]}])", text, re.DOTALL)
    if inner and _nesting(inner["inner"]) >= 0 and _closes_last(text):
        parts = _split(inner["inner"], _SEPARATOR)
        if inner[1] in {r"\{", "{"} and inner[3] in {r"\}", "}"} and "|" not in text and r"\mid" not in text:
            return Form("list", text, tuple(leaf for part in parts for leaf in _signs(part, depth)))
        if len(parts) > 1 and inner[1] in "([":
            return Form("tuple", text, tuple(parse_form(part, depth + 1) for part in parts), inner[1] + inner[3])
    if r"\pm" in text and depth <= 1:
        return Form("list", text, tuple(_signs(text, depth)))
    return Form("leaf", text)


def _matrix_form(text: str, body: str) -> Form:
    rows = [row.split("&") for row in re.split(r"\\\\", body) if row.strip()]
    shape = ",".join(str(len(row)) for row in rows)
    return Form("matrix", text, tuple(Form("leaf", tidy(cell)) for row in rows for cell in row), shape)


def _signs(text: str, depth: int) -> list[Form]:
    """`a \\pm b` is the two answers a+b and a-b."""
    if text.count(r"\pm") != 1:
        return [parse_form(text, depth + 1)]
    return [parse_form(re.sub(r"\\pm(?![a-z])", sign, text), depth + 1) for sign in ("+", "-")]


_TOKEN = re.compile(r"\\[{}]|[()\[\]{}]")


def is_balanced(text: str, max_depth: int = _MAX_DEPTH) -> bool:
    """Every bracket closes, whatever its kind (intervals mix them), and they are not nested absurdly."""
    opened = sum(1 if token[-1] in "([{" else -1 for token in _TOKEN.findall(text))
    return opened == 0 and 0 <= _nesting(text) <= max_depth


def _nesting(text: str) -> int:
    """The greatest depth of brackets, or -1 when a bracket closes that was not opened."""
    depth = deepest = 0
    for token in _TOKEN.findall(text):
        depth += 1 if token[-1] in "([{" else -1
        if depth < 0:
            return -1
        deepest = max(deepest, depth)
    return deepest


def _closes_last(text: str) -> bool:
    """Does the bracket that opens `text` close only at its end?"""
    depth = 0
    for match in _TOKEN.finditer(text):
        depth += 1 if match[0][-1] in "([{" else -1
        if depth == 0:
            return match.end() == len(text)
    return False


def _split(text: str, separator: re.Pattern[str]) -> list[str]:
    """Split at separators that stand outside all brackets."""
    depth, start, parts = 0, 0, []
    for match in re.finditer(rf"(?P<bracket>{_TOKEN.pattern})|(?P<separator>{separator.pattern})", text):
        if match["separator"] and depth == 0:
            parts.append(text[start : match.start()].strip())
            start = match.end()
        elif match["bracket"]:
            depth += 1 if match[0][-1] in "([{" else -1
        # A separator such as `\text{ and }` carries balanced braces of its own: the depth stays.
    return [*parts, text[start:].strip()]
