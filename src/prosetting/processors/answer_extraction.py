"""Find THE final answer of a response, or say that there is none, or that it is not sure which one.

Extract or abstain: an answer is taken only from a place that by convention holds the final one (`\\boxed{}`,
`####`, "the answer is", "A:", `<answer>`, a printed result repeated in the closing sentence, a response
that is nothing but an answer), and only when all such places agree and the text after them does not go on to
another result. Pure functions, no I/O; every pattern is linear in the text or bounded, for the text is hostile.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from prosetting.processors.answer_boilerplate import holds_no_answer
from prosetting.processors.answer_forms import MAX_ANSWER_CHARS, parse_number, spelling_key
from prosetting.processors.answer_presence import states_number

__all__ = ["MAX_RESPONSE_CHARS", "Extraction", "extract", "holds_no_answer", "may_be_right", "reference_answer"]

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
    r"|^[^\S\n]*(?:\*\*)?A(?:\*\*)?:(?:\*\*)?\s*(?P<short>[^\n]*)"
    r"|(?:答案\s?(?:是|为|為|[:：])|答え\s?(?:は|[:：])|정답\s?(?:은|[:：])"
    r"|\b(?:respuesta|resposta)(?: final)?\s?(?:\bes\b|\bé\b|:)"
    r"|\bréponse(?: finale)?\s?(?:\best\b|:)|\bAntwort\s?(?:\bist\b|\blautet\b|:)|\bответ\s?[:—])"
    r"[:：*\s]*(?P<other>[^\n]*)",
    re.MULTILINE | re.IGNORECASE,
)
_TAGGED = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL | re.IGNORECASE)
_PRINTED = re.compile(r"```output[^\S\n]*\n(?P<printed>.*?)\n?```(?P<after>.*)\Z", re.DOTALL)
_CODE = re.compile(r"```(?:python|py|cpp|c|java|javascript|js|r|matlab)\b(?:(?!```).)*(?:```)?", re.DOTALL)

_DOUBT_BEFORE = re.compile(
    r"(?:\b(?:not|isn't|aren't|wasn't|cannot be|can't be|either|neither|nor|except|than|instead of|about|around|"
    r"between|between[^.\n]{1,30}\band)"
    r"|n't|\\neq?|≠)\s*(?:be|equal to|simply|just)?\s*[$\\(\[\s*]*$",
    re.IGNORECASE,
)
_OR_BEFORE = re.compile(r"(?<![-+*/=^_{.,\d])(?P<other>\d[\d.,]*)[\s$,]*\bor\b[\s$]*$")
_JOINED_BEFORE = re.compile(
    r"(?:\$\s*[-+]\s*\$|\b(?:minus|negative|plus|times|half of|twice|double|(?:square|cube) root of)[\s$]+)$"
    r"|(?:\d[.,]?$|\}\s?\{$|(?<!\*)\*(?!\*)|(?<!_)_(?!_)|[-+/^]|\\cdot|\\times|\\sqrt|\\frac\{?|\\pm|<|>|\\[lg]e[q]?)\s*\{?\s*$"
)
_JOINED_AFTER = re.compile(
    r"^(?:\d|,\d|\.\d|[A-Za-z]|\s*\$?\s*(?:to|through|and)\s\$?\d|\s*[})]*\s*(?:[{!^/+<>×·]|\*(?!\*)|-\s?\d|\\(?:cdot|times|frac|sqrt|pi|[lg]eq?|pm)(?![a-z])|"
    r"\$?\s*(?:(?:thousand|million|billion|hundred|dozen|or|and/or)\b)))",
    re.IGNORECASE,
)
_SECOND_THOUGHT = re.compile(
    r"\b(?:wait|actually|scratch that|correction|on second thoughts?|(?:is|was|that's|it's) (?:wrong|incorrect|not "
    r"(?:right|correct))|(?:made|make) (?:a|an) (?:mistake|error)|let me (?:re|check|double)|oops|sorry)\b",
    re.IGNORECASE,
)


_WRONG_BEFORE = re.compile(
    r"(?:\b(?:wrong|incorrect|false|first|initial|previous|old|intermediate|partial|tempting|naive|estimated?|approximate|"
    r"possible|example|sample|expected|reference|given|his|her|their|your|\w+'s)|"
    r"(?:\b(?:not|if|whether|suppose|assum\w+|doubt|deny|false)|n't)(?:\s\w+){0,2}?\s(?:the|my|an))[^\S\n]$",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(
    r"\b(?:so|therefore|thus|hence|total|correction|instead|in fact|should be|finally)\b", re.IGNORECASE
)
_A_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")


def extract(response: str, *, cut_off: bool = False) -> Extraction:
    """The final answer of `response` (see `Extraction`). `cut_off`: the text was ended by a limit, so that an
    answer at its very end may go on; a closed box or an answer followed by more text is whole."""
    text = _visible(response)
    places = [*_boxes(text), *_marked(text)]
    if not places:
        return Extraction("unsure", reason="cut off") if cut_off and text else _unmarked(text)
    if len(places) > _MAX_PLACES:
        return Extraction("unsure", reason="too many places that could hold the answer")
    if any(len(place.answer) > MAX_ANSWER_CHARS for place in places):
        return Extraction("unsure", reason="the answer is too long to compare")
    doubt = next((place.doubt for place in places if place.doubt), "")
    if doubt:
        return Extraction("unsure", reason=doubt)
    answers = _distinct([place.answer for place in places])
    if not answers:
        return Extraction("nothing", reason="the place for the answer is empty")
    last = max(places, key=lambda place: place.end)
    if cut_off and not last.closed and not text[last.end :].strip(" .*$"):
        return Extraction("unsure", reason="cut off, perhaps inside the answer")
    if _goes_on(last, text[last.end :]):
        return Extraction("unsure", reason="the text goes back on its answer")
    if len(answers) > 1:
        return Extraction("conflict", tuple(answers), "several different answers")
    return Extraction("found", (answers[0],))


def _goes_on(last: _Place, tail: str) -> bool:
    """Does the text after the last answer take it back, or come to another result?"""
    if _SECOND_THOUGHT.search(tail):
        return True
    if last.closed:  # after a box only a sentence that concludes something counts
        tail = " ".join(part for part in re.split(r"[.\n]\s", tail) if _CONCLUDES.search(part))
    number = parse_number(last.answer)
    values = [parse_number(match[0]) for match in islice(_A_NUMBER.finditer(tail), _MAX_PLACES)]
    return any(value and (number is None or value.value != number.value) for value in values)


def may_be_right(reference: str, response: str) -> bool:
    """False where the reference is a plain number whose value stands nowhere in the response, in no notation
    that is known here: whoever calls such a response correct is not to be believed."""
    number = parse_number(reference_answer(reference)) if len(reference) <= MAX_RESPONSE_CHARS else None
    return number is None or states_number(response, number)


def reference_answer(reference: str) -> str:
    """The answer in a reference: after GSM8K's `####`, inside MATH's `\\boxed{}`, or the text itself."""
    if "####" in reference:
        return reference.rsplit("####", 1)[1].strip()
    boxes = [place.answer for place in _boxes(reference) if not place.doubt.startswith("cut")]
    return boxes[0] if len(_distinct(boxes)) == 1 else reference.strip()


@dataclass(frozen=True, slots=True)
class _Place:
    """`end`: where the answer ends in the text. `closed`: by a brace or a tag, so that it is whole."""

    answer: str
    end: int
    doubt: str = ""
    closed: bool = False


def _visible(response: str) -> str:
    """What the model told the user: without its thoughts, its code and an invented next turn."""
    text = re.split(r"<\|im_(?:start|end)\|>|<\|eot_id\|>|<\|endoftext\|>|</s>", response, maxsplit=1)[0] or response
    text = text.rsplit("</think>", 1)[-1].split("<think>", 1)[0]
    return _CODE.sub("\n", text).strip()


def _distinct(answers: list[str]) -> list[str]:
    """Different answers, a later spelling of the same number or text counted as the same."""
    kept: dict[object, str] = {}
    for answer in answers:
        if answer.strip():
            number = parse_number(answer)
            kept.setdefault((number.value, number.percent) if number else spelling_key(answer), answer)
    return list(kept.values())


_BOX = re.compile(r"\\f?boxed\s*(\{|[^\s{\\](?=[\s$.,]|$))")


def _boxes(text: str) -> list[_Place]:
    places: list[_Place] = []
    position = 0
    while (match := _BOX.search(text, position)) and len(places) <= _MAX_PLACES:
        end = _closing_brace(text, match.end()) if match[1] == "{" else match.end() + 1
        if end is None:
            return [*places, _Place(text[match.end() :], len(text), "cut off inside a box")]
        content = text[match.end() : end - 1] if match[1] == "{" else match[1]
        places.append(_box_place(text, match.start(), end, re.sub(r"\\f?boxed(?![a-zA-Z])", "", content)))
        position = end
    return places


# Said of the box itself, in its own sentence.
_DISOWNED_BEFORE = re.compile(
    r"\b(?:mistakes?|incorrect|wrong|error|might|tempt\w*|thought|guess\w*|doubt|misread)\b[^.\n]*$", re.IGNORECASE
)
_DISOWNED_AFTER = re.compile(r"[\s$)]*(?:\?|\(?\s?incorrect\b|[^.\n]*\b(?:but|however|wrong|might)\b)", re.IGNORECASE)


def _box_place(text: str, start: int, end: int, content: str) -> _Place:
    before, after = text[max(0, start - 60) : start], text[end : end + 40]
    degrees = re.match(r"\s*\^\s*\{?\s*\\circ\s*\}?", after)
    if degrees:
        content, after = content + r"^\circ", after[degrees.end() :]
    doubt, other = "", _OR_BEFORE.search(before)
    if _DISOWNED_BEFORE.search(before) or _DISOWNED_AFTER.match(after):
        doubt = "the text does not stand by the box"
    elif _DOUBT_BEFORE.search(before) or (other and other["other"].strip(".,") != content.strip()):
        doubt = "the box is negated or one of several"
    elif _JOINED_BEFORE.search(before) or _JOINED_AFTER.match(after):
        doubt = "the box is only a part of an expression"
    if re.match(r"\s*\$?\s*\\?%", after):
        content += "%"
    return _Place(content, end, doubt, closed=True)


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
    tagged = islice(_TAGGED.finditer(text), _MAX_PLACES + 1)
    places += [_Place(match[1].strip(), match.end(), closed=True) for match in tagged if "boxed" not in match[1]]
    last_box = text.rfind("boxed")
    for match in islice(_CLOSING.finditer(text), _MAX_PLACES + 1):
        rest, start = _rest_of_sentence(match)
        if "boxed" in rest or "<answer>" in rest or re.match(r"\s*<|\W*$", rest) or _is_option(match, text):
            continue
        place = _closing_place(rest, start)
        if _WRONG_BEFORE.search(text[max(0, match.start() - 40) : match.start()]):
            place = _Place(place.answer, place.end, "called a wrong or a first answer")
        is_prose = not re.search(r"[\d$\\]", rest) and last_box >= 0
        if not place.doubt or not (is_prose or match.start() < last_box):
            places.append(place)
    return places


def _rest_of_sentence(match: re.Match[str]) -> tuple[str, int]:
    """What follows the marker, and where it starts; the inner one of "Final answer: the answer is 5"."""
    group = next((name for name in ("rest", "short", "other") if match[name]), "rest")
    rest, start = match[group] or "", match.start(group)
    inner = _CLOSING.search(rest)
    if inner:
        group = next((name for name in ("rest", "short", "other") if inner[name]), "rest")
        rest, start = inner[group] or "", start + inner.start(group)
    return rest, start


def _is_option(match: re.Match[str], text: str) -> bool:
    """`A: 12` above `B: 15` is a choice, no answer."""
    return match["short"] is not None and bool(re.match(r"\s*(?:\*\*)?B(?:\*\*)?[:.)]", text[match.end() :][:40]))


_SENTENCE_END = re.compile(r"(?<=[\w$%)}\]])(?:\.(?:\s+(?=[A-Z])|\s*$)|。)")


def _closing_place(rest: str, start: int) -> _Place:
    """The answer in the rest of a closing sentence, which starts at `start`; doubt where it says more."""
    sentence = _SENTENCE_END.split(rest[: MAX_ANSWER_CHARS + 1], maxsplit=1)[0]
    end = start + len(sentence)
    answer = re.sub(r"\*\*|__|`", " ", sentence).strip()
    if parse_number(answer):
        return _Place(answer, end)
    math = re.fullmatch(r"(?:\$([^$]+)\$|\\\((.+?)\\\))(?:\s+[A-Za-z][a-z]+){0,6}", answer)
    if math:
        return _Place(math[1] or math[2], end)
    if len(answer.split()) <= 2 and len(answer) <= 60 and not re.match(r"not\b|no\s", answer, re.IGNORECASE):
        return _Place(answer, end)
    return _Place(answer[:MAX_ANSWER_CHARS], end, "the closing sentence says more than an answer")


def _unmarked(text: str) -> Extraction:
    """Without a marked place: a response that is only an answer, or a result printed and then repeated."""
    is_short = "\n" not in text and len(text) <= MAX_ANSWER_CHARS
    if is_short and (parse_number(text) or re.fullmatch(r"\$[^$]+\$|\([A-Z]\)|[A-Z]", text)):
        return Extraction("found", (text,))
    printed = _PRINTED.search(text)
    if printed and not _SECOND_THOUGHT.search(printed["after"]):
        number = parse_number(printed["printed"])
        repeated = re.findall(r"\d[\d,]*(?:\.\d+)?%?", printed["after"])
        said = [parse_number(item.rstrip(",")) for item in repeated]
        if number and all(item is not None and item.value == number.value for item in said):
            return Extraction("found", (repeated[0].rstrip(",") if repeated else printed["printed"].strip(),))
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and parse_number(lines[-1]) and re.search(r"[.!?]\W*$", lines[-2][-20:]):
        return Extraction("found", (lines[-1].strip(),))
    return Extraction("nothing", reason="no place that holds a final answer")
