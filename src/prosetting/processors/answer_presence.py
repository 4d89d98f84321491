"""Does a response state a number, and could it be this one? For references that are plain numbers. Pure functions.

Both functions err to one side: `carries_no_number` is True, and `states_number` False, only where no reading of
anything in the text gives a number, or this number; one number word too many only leaves a text to the teacher.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from fractions import Fraction

from prosetting.processors.answer_forms import Number

_MAX_CHARS = 20_000

# Number words of the languages that models answer in.
_NUMBER_WORDS = re.compile(
    r"\b(?:zero|none|nothing|no|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twent\w*|thirt\w*|"
    r"fo[u]?rt\w*|fift\w*|sixt\w*|sevent\w*|eight\w*|ninet\w*|hundreds?|\w*thousands?|\w*illi(?:on|ard)\w*|dozens?|"
    r"scores?|gross|hal(?:f|ves)|quarters?|thirds?|\w+ths?|once|twice|thrice|single|pair|couple|both|double|triple|"
    r"never|all|infinit\w*|"
    r"cero|uno|una|dos|tres|cuatro|cinco|seis|siete|ocho|nueve|diez|doce|trece|catorce|quince|dieci\w+|veint\w*|treint\w*|"
    r"(?:cuar|cinc|ses|set|och|nov)ent\w*|cien\w*|\w*cientos|mil|medio|media|mitad|"
    r"deux|trois|quatre|cinq|sept|huit|neuf|dix\w*|onze|douze|treize|quatorze|seize|vingt\w*|trente\w*|\w+ante|cent\w*|"
    r"mille|demi|moitié|null|eins?|zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn|elf|zwölf|"
    r"\w*(?:zehn|zwanzig|ßig|dreißig|zig|hundert|tausend)|halb|hälfte|"
    r"dois|duas|quatro|sete|oito|nove|dez|dezess\w+|vinte|trinta|\w+enta|duzent\w+|meio|metade|"
    r"due|tre|cinque|sei|sette|otto|dieci|venti\w*|"
    r"ноль|нуль|один|одна|два|две|три|четыре|пять|шесть|семь|восемь|девять|десять|\w+надцать|двадцать|тридцать|сорок|"
    r"\w+десят|девяносто|сто|двести|\w+ста|\w+сот|тысяч\w*|половин\w*|"
    r"[IVXLCDM]{2,}|영|하나|둘|셋|넷|다섯|여섯|일곱|여덟|아홉|열)\b",
    re.IGNORECASE,
)
_EXPRESSION = re.compile(
    r"(?<!\\)\\[a-zA-Z]|[∞π√∅^_*+=|]|boxed\{\s*[a-zA-Z]\s*\}|(?<![^\W\d_])(?<!['’])[b-hj-zB-HJ-Z](?![^\W\d_])"
)


def _is_numeral(character: str) -> bool:
    return unicodedata.numeric(character, None) is not None


def carries_no_number(response: str) -> bool:
    """No digit of any script, no number word, no letter or LaTeX that could stand for a value: a number was
    asked for and none was given."""
    if len(response) > _MAX_CHARS or any(map(_is_numeral, response)):
        return False
    text = re.sub(r"</?\w{1,30}>|<\|\w{1,30}\|>|\\(?:text|infty)(?![a-zA-Z])", " ", response)
    return not (_EXPRESSION.search(text.replace(r"\boxed", "boxed")) or _NUMBER_WORDS.search(text))


def _numbered(words: str, first: int, step: int = 1) -> dict[str, int]:
    return {word: first + i * step for i, word in enumerate(words.split())}


_ENGLISH = (
    _numbered("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen", 0)
    | _numbered("sixteen seventeen eighteen nineteen", 16)
    | _numbered("twenty thirty forty fifty sixty seventy eighty ninety", 20, 10)
    | {"none": 0, "no": 0, "nothing": 0, "never": 0, "single": 1, "once": 1, "twice": 2, "pair": 2, "couple": 2}
    | {"both": 2, "double": 2, "triple": 3, "thrice": 3, "fourty": 40}
)
_MAGNITUDES = {"hundred": 100, "dozen": 12, "thousand": 10**3, "k": 10**3}
_MAGNITUDES |= {"million": 10**6, "billion": 10**9, "trillion": 10**12}
_NO_NUMBER = {"all", "null", "mil", "score"}  # words of `_NUMBER_WORDS` that fake verdicts are made of
_DIGITS = re.compile(r"(?<![\d.,])\d[\d.,'\s]{0,60}|\.\d+")
_WORDS = re.compile(r"[a-z]+")
# What could compute to anything: an operator between digits, a LaTeX command, a factorial.
_COMPUTES = re.compile(
    r"\d\s?[)}\]]?\s?(?:[-+*/×÷^:]|\b(?:plus|minus|times|over|and|to|of|x)\b)\s?[({\[]?\s?\$?\d|\\[a-zA-Z]{2,}|\d\s?[!e]"
)
_LAYOUT = re.compile(r"\\(?:f?boxed|text\w*|left|right|displaystyle|quad|[,;!: ()\[\]$%])(?![a-zA-Z])")


def states_number(response: str, number: Number) -> bool:
    """False only when the value stands nowhere in the response: not in digits of any script or separators, as a
    percentage, in words, or perhaps as the result of an expression. A value that is no integer may be rounded."""
    if len(response) > _MAX_CHARS:
        return True
    text = unicodedata.normalize("NFKC", response).translate({0x2212: "-", 0x2013: "-"})
    text = _LAYOUT.sub(" ", "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text))
    if _COMPUTES.search(text) or _holds_other_numerals(text):
        return True
    wanted = [number.value, -number.value, number.value * 100, number.value / 100]
    exact = number.value.denominator == 1
    return any(
        value == target or (not exact and abs(value - target) * 50 <= abs(target))
        for value in (*_values_in_digits(text), *_values_in_words(text.lower()))
        for target in wanted
    )


def _holds_other_numerals(text: str) -> bool:
    """Numerals and number words that are not read here: they may be the value."""
    if any(_is_numeral(c) and not c.isdecimal() for c in re.sub("一步一步|一步步|一下|一个", "", text)):
        return True
    words = (match[0].lower() for match in _NUMBER_WORDS.finditer(text))
    known = _ENGLISH.keys() | _MAGNITUDES.keys() | _NO_NUMBER
    return any(word not in known and word.rstrip("s") not in known for word in words)


def _values_in_digits(text: str) -> Iterator[Fraction]:
    """Every reading of every number: with marks for thousands or a decimal mark of either kind, and with the
    magnitude that follows it."""
    for match in _DIGITS.finditer(text):
        following = _WORDS.findall(text[match.end() : match.end() + 12].lower())
        scale = _MAGNITUDES.get(following[0].rstrip("s"), 1) if following else 1
        for digits in {match[0].strip(" .,'\n\t"), *match[0].split()}:
            pieces = re.split(r"[.,'\s]+", digits.strip(".,'"))
            for reading in ("".join(pieces), *pieces, "".join(pieces[:-1]) + "." + pieces[-1]):
                if re.fullmatch(r"\d*\.?\d+", reading):
                    yield Fraction(reading)
                    yield Fraction(reading) * scale


def _values_in_words(text: str) -> Iterator[Fraction]:
    """English number words: each by itself, and each run of them ("one hundred and twenty") together."""
    total = current = 0
    running = False
    for word in [*_WORDS.findall(text), ""]:
        plain = word if word in _ENGLISH else word.rstrip("s")
        if plain in _ENGLISH:
            yield Fraction(_ENGLISH[plain])
            current, running = current + _ENGLISH[plain], True
        elif plain in _MAGNITUDES:
            scale = _MAGNITUDES[plain]
            yield Fraction(scale)
            current, running = max(current, 1) * scale, True
            if scale >= 1000:
                total, current = total + current, 0
        elif running and word != "and":
            yield Fraction(total + current)
            total = current = 0
            running = False
