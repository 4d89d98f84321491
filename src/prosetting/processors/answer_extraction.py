"""Find THE final answer of a response, or say that there is none, or that it is not sure which one.

Extract or abstain: an answer is taken only from a place that by convention holds the final one (`\\boxed{}`,
`####`, "the answer is", "A:", `<answer>`, a printed result repeated in the closing sentence, a response
that is nothing but an answer), and only when all such places agree. Pure functions, no I/O.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from prosetting.processors.answer_forms import MAX_ANSWER_CHARS, parse_number, spelling_key

MAX_RESPONSE_CHARS = 200_000
_MAX_PLACES = 200


@dataclass(frozen=True, slots=True)
class Extraction:
    """`found`: one answer. `conflict`: several different ones, all listed. `unsure`: the text says something
    that forbids taking an answer. `nothing`: no place that holds an answer; `reason` says more."""

    kind: Literal["found", "conflict", "unsure", "nothing"]
    answers: tuple[str, ...] = ()
    reason: str = ""


_HASHES = re.compile(r"^[^\S\n]*(?:step \d+:\s*)?####[^\S\n]*([^#\n].*)?$", re.MULTILINE | re.IGNORECASE)
_CLOSING = re.compile(
    r"(?:\b(?:final|correct|right|my)\s+)?\banswer\b\W{0,6}(?:to\s[^.\n:]{1,80}?\s)?(?:\bis\b|[:=])\W{0,4}?"
    r"(?:is\b)?[:*\s]*(?P<rest>[^\n]*)"
    r"|^\s*(?:\*\*)?A(?:\*\*)?:(?:\*\*)?\s*(?P<short>[^\n]*)",
    re.MULTILINE | re.IGNORECASE,
)
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_PRINTED = re.compile(r"```output\s*\n(?P<printed>.*?)\n?```(?P<after>.*)\Z", re.DOTALL)

_DOUBT_BEFORE = re.compile(
    r"(?:\b(?:not|isn't|aren't|wasn't|cannot be|can't be|either|neither|nor|except|than|instead of|about|around)"
    r"|n't)\s*(?:be|equal to|simply|just)?\s*[$\\(\[\s*]*$",
    re.IGNORECASE,
)
_OR_BEFORE = re.compile(r"(?<![-+*/=^_{.,\d])(?P<other>\d[\d.,]*)[\s$,]*\bor\b[\s$]*$")
_JOINED_BEFORE = re.compile(r"(?:\d$|[-+*/^_]|\\cdot|\\times|\\sqrt|\\frac\{?|\\pm|<|>|\\[lg]e[q]?)\s*\{?\s*$")
_JOINED_AFTER = re.compile(
    r"^(?:\d|,\d|\.\d|\s*[})]*\s*(?:[{!^/*+<>×·]|-\s?\d|\\(?:cdot|times|frac|sqrt|pi|[lg]eq?|pm)(?![a-z])|"
    r"\$?\s*(?:(?:thousand|million|billion|hundred|dozen|or|and/or)\b)))",
    re.IGNORECASE,
)
_SECOND_THOUGHT = re.compile(
    r"\b(?:wait|actually|scratch that|correction|on second thoughts?|(?:is|was|that's|it's) (?:wrong|incorrect|not "
    r"(?:right|correct))|(?:made|make) (?:a|an) (?:mistake|error)|let me (?:re|check|double)|oops|sorry)\b",
    re.IGNORECASE,
)


def extract(response: str) -> Extraction:
    """The final answer of `response` (see `Extraction`)."""
    text = _visible(response)
    places = [*_boxes(text), *_marked(text)]
    if not places:
        return _unmarked(text)
    if len(places) > _MAX_PLACES:
        return Extraction("unsure", reason="too many places that could hold the answer")
    for place in places:
        if place.doubt:
            return Extraction("unsure", reason=place.doubt)
    last_end = max(place.end for place in places)
    if _SECOND_THOUGHT.search(text, last_end):
        return Extraction("unsure", reason="the text goes back on its answer")
    answers = _distinct([place.answer for place in places])
    if not answers:
        return Extraction("nothing", reason="the place for the answer is empty")
    if any(len(answer) > MAX_ANSWER_CHARS for answer in answers):
        return Extraction("unsure", reason="the answer is too long to compare")
    if len(answers) > 1:
        return Extraction("conflict", tuple(answers), "several different answers")
    return Extraction("found", (answers[0],))


def reference_answer(reference: str) -> str:
    """The answer in a reference: after GSM8K's `####`, inside MATH's `\\boxed{}`, or the text itself."""
    if "####" in reference:
        return reference.rsplit("####", 1)[1].strip()
    boxes = [place.answer for place in _boxes(reference) if not place.doubt.startswith("cut")]
    return boxes[0] if len(_distinct(boxes)) == 1 else reference.strip()


@dataclass(frozen=True, slots=True)
class _Place:
    answer: str
    end: int
    doubt: str = ""


def _visible(response: str) -> str:
    """What the model told the user: without its closed thoughts and without an invented next turn."""
    text = re.split(r"<\|im_(?:start|end)\|>|<\|eot_id\|>|</s>", response, maxsplit=1)[0] or response
    return text.rsplit("</think>", 1)[-1].strip()


def _distinct(answers: list[str]) -> list[str]:
    """Different answers, a later spelling of the same number or text counted as the same."""
    kept: dict[object, str] = {}
    for answer in answers:
        if answer.strip():
            number = parse_number(answer)
            kept.setdefault((number.value, number.percent) if number else spelling_key(answer), answer)
    return list(kept.values())


def _boxes(text: str) -> list[_Place]:
    places: list[_Place] = []
    for match in re.finditer(r"\\f?boxed\s*(\{|[^\s{\\](?=[\s$.,]|$))", text):
        end = _closing_brace(text, match.end()) if match[1] == "{" else match.end() + 1
        if end is None:
            return [*places, _Place(text[match.end() :], len(text), "cut off inside a box")]
        content = text[match.end() : end - 1] if match[1] == "{" else match[1]
        before, after = text[max(0, match.start() - 60) : match.start()], text[end : end + 40]
        degrees = re.match(r"\s*\^\s*\{?\s*\\circ\s*\}?", after)
        if degrees:
            content, after = content + r"^\circ", after[degrees.end() :]
        doubt, other = "", _OR_BEFORE.search(before)
        if _DOUBT_BEFORE.search(before) or (other and other["other"].strip(".,") != content.strip()):
            doubt = "the box is negated or one of several"
        elif _JOINED_BEFORE.search(before) or _JOINED_AFTER.match(after):
            doubt = "the box is only a part of an expression"
        if re.match(r"\s*\$?\s*\\?%", after):
            content += "%"
        places.append(_Place(content, end, doubt))
        if len(places) > _MAX_PLACES:
            break
    return places


def _closing_brace(text: str, start: int) -> int | None:
    """The index after the brace that closes the one before `start`."""
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        if match[0] in "{}":
            depth += 1 if match[0] == "{" else -1
            if depth == 0:
                return match.end()
    return None


def _marked(text: str) -> list[_Place]:
    """Answers after `####`, "the answer is", "A:", and inside `<answer>`."""
    places: list[_Place] = []
    for match in islice(_HASHES.finditer(text), _MAX_PLACES + 1):
        rest = (match[1] or "").strip()
        is_heading = bool(re.match(r"[*_]*[A-Za-z]{2}", rest)) and match.end() < len(text.rstrip())
        if not is_heading and r"\boxed" not in rest:
            places.append(_Place(rest, match.end()))
    places += [_Place(match[1].strip(), match.end()) for match in islice(_TAGGED.finditer(text), _MAX_PLACES + 1)]
    last_box = text.rfind("boxed")
    for match in islice(_CLOSING.finditer(text), _MAX_PLACES + 1):
        rest = match["rest"] or match["short"] or ""
        if inner := _CLOSING.search(rest):  # "Final answer: the answer is 5"
            rest = inner["rest"] or inner["short"] or ""
        if "boxed" in rest or "<answer>" in rest or re.match(r"\s*<|\W*$", rest):
            continue
        place = _closing_place(rest.strip(), match.end())
        is_prose = not re.search(r"[\d$\\]", rest) and last_box >= 0
        if not place.doubt or not (is_prose or match.start() < last_box):
            places.append(place)
    return places


def _closing_place(rest: str, end: int) -> _Place:
    """The answer in the rest of a closing sentence; doubt where it says more than an answer."""
    answer = re.sub(r"\*\*|__", " ", rest).strip()
    answer = re.split(r"(?<=[\w$%)}\]])\.(?:\s+(?=[A-Z])|\s*$)", answer, maxsplit=1)[0].strip()
    if parse_number(answer):
        return _Place(answer, end)
    math = re.fullmatch(r"(?:\$([^$]+)\$|\\\((.+?)\\\))(?:\s+[A-Za-z][a-z]+){0,6}", answer)
    if math:
        return _Place(math[1] or math[2], end)
    if len(answer.split()) <= 2 and len(answer) <= 60 and not re.match(r"not\b|no\s", answer, re.IGNORECASE):
        return _Place(answer, end)
    return _Place(answer, end, "the closing sentence says more than an answer")


def _unmarked(text: str) -> Extraction:
    """Without a marked place: a response that is only an answer, or a result printed and then repeated."""
    if "\n" not in text and (parse_number(text) or re.fullmatch(r"\$[^$]+\$|\([A-Z]\)|[A-Z]", text)):
        return Extraction("found", (text,))
    printed = _PRINTED.search(text)
    if printed:
        number = parse_number(printed["printed"])
        repeated = re.findall(r"\d[\d,]*(?:\.\d+)?%?", printed["after"])
        said = [parse_number(item.rstrip(",")) for item in repeated]
        if number and all(item is not None and item.value == number.value for item in said):
            return Extraction("found", (repeated[0].rstrip(",") if repeated else printed["printed"].strip(),))
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and parse_number(lines[-1]) and re.search(r"[.!?]\W*$", lines[-2]):
        return Extraction("found", (lines[-1].strip(),))
    return Extraction("nothing", reason="no place that holds a final answer")


_NUMBER_WORDS = re.compile(
    r"\b(?:zero|none|nothing|no|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty\w*|thirty|"
    r"fo[u]?rty|fifty|sixty|seventy|eighty|ninety|hundreds?|thousands?|millions?|dozens?|half|quarter|thirds?|"
    r"once|twice|thrice|single|pair|couple|both|double|triple|never|all)\b",
    re.IGNORECASE,
)


def carries_no_number(response: str) -> bool:
    """No digit of any script, no number word, no LaTeX that could stand for a value: a number was asked for
    and none was given. Made for references that are plain numbers."""
    text = re.sub(r"\\(?:boxed|text|infty)(?![a-zA-Z])", " ", response)
    if "\\" in text.replace("\\\\", "") and re.search(r"\\[a-zA-Z]", text):
        return False
    if any(unicodedata.numeric(character, None) is not None for character in text):
        return False
    return len(text) <= 2_000 and not _NUMBER_WORDS.search(text)


_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_OPENERS = re.compile(
    r"(?:\s*\b(?:solution|(?:the )?(?:final )?answer(?: is)?|thought process|thoughts?|reasoning|explanation|step|okay|"
    r"ok|let'?s (?:think|solve)[^.]{0,40}|let us think[^.]{0,40}|sure|null|nan|none|n a|undefined|f?boxed|json|text|"
    r"output|think)\b)*",
    re.IGNORECASE,
)


def says_nothing(response: str, expected: str) -> bool:
    """Empty, punctuation only, or only openers such as "Solution:" or "Thought process:", unless the
    expected answer is made of the same words ("none")."""
    words = " ".join(_WORD.findall(response))
    if {word.lower() for word in _WORD.findall(expected)} & set(words.lower().split()) - {"boxed", "text"}:
        return False
    return len(words) < 80 and bool(_OPENERS.fullmatch(words))
