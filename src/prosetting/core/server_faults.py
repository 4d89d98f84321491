"""Faults on order: what a server of ours does wrong, to rehearse its clients. Pure.

    429@0.1,hang@0.02,429:30@0.05      NAME@PROBABILITY or NAME:PARAMETER@PROBABILITY, separated by commas

Which fault a request meets is drawn from its own content, how often that content has come, and a seed: a retry may
succeed, and the same requests meet the same faults again. Faults on the way exclude each other, and so do the
judge's; one of each kind can meet in a request.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from prosetting.errors import ConfigError


@dataclass(frozen=True, slots=True)
class FaultKind:
    """`parameter` is the number that may stand after the name, or one of `words`; `default` where neither does."""

    meaning: str
    parameter: str = ""
    words: tuple[str, ...] = ()
    default: str = ""

    @property
    def takes(self) -> str:
        return " or ".join((self.parameter, *self.words))


_RETRY_AFTER = ("seconds of Retry-After", ("date", "none"))
_STATUS = FaultKind("an error object with this status", *_RETRY_AFTER, "none")
ON_THE_WAY: dict[str, FaultKind] = {
    "401": _STATUS,
    "402": _STATUS,
    "429": FaultKind("an error object with this status: too many requests", *_RETRY_AFTER, "1"),
    "500": _STATUS,
    "503": _STATUS,
    "reset": FaultKind("the connection is reset in mid-body"),
    "hang": FaultKind("no answer, or a late one", "seconds until the answer", ("none",), "none"),
    "drip": FaultKind("one byte at a time", "seconds between bytes", default="1"),
    "truncate": FaultKind("JSON that is cut off"),
    "html": FaultKind("a page of HTML with status 200"),
    "empty": FaultKind("no body with status 200"),
    "wrong_schema": FaultKind("JSON that is no chat completion"),
    "wrong_count": FaultKind("another number of choices than asked", "choices", default="0"),
    "huge": FaultKind("a very long reply", "MB", default="100"),
    "duplicate": FaultKind("each choice, and each key of its text, twice"),
}
OF_THE_JUDGE: dict[str, FaultKind] = {
    "wrong": FaultKind("the opposite verdict: a broken judge"),
    "yes": FaultKind("correct, whatever is shown: a gullible judge"),
    "unknown": FaultKind("never decides"),
}
_KINDS = ON_THE_WAY | OF_THE_JUDGE
_FAULT = re.compile(r"([a-z_]+|\d{3})(?::([a-z]+|\d{1,9}(?:\.\d{1,9})?))?@(\d?\.\d+|\d(?:\.0*)?)", re.ASCII)
_HTML = b"<!DOCTYPE html><html><body><h1>Please log in</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault and how often it is wanted. `parameter` None means "none"."""

    name: str
    probability: float
    parameter: float | str | None = None

    @property
    def number(self) -> float:
        """The parameter of a fault that has a number, 0 where it is none."""
        return self.parameter if isinstance(self.parameter, float) else 0.0


def parse_faults(text: str, *, known: Collection[str] = tuple(_KINDS)) -> tuple[Fault, ...]:
    """The faults of a specification; an empty one has none. Raises ConfigError for one that does not read."""
    faults = tuple(_fault(part.strip(), known) for part in text.split(",") if part.strip())
    for group in (ON_THE_WAY, OF_THE_JUDGE):
        together = sum(fault.probability for fault in faults if fault.name in group)
        if together > 1 + 1e-9:
            raise _bad(text, f"the probabilities add up to {together:g}, more than 1")
    return faults


def _fault(part: str, known: Collection[str]) -> Fault:
    match = _FAULT.fullmatch(part)
    if match is None or float(match[3]) > 1:
        raise _bad(part, "is not NAME@PROBABILITY with a probability from 0 to 1")
    name = match[1]
    if name not in known:
        raise _bad(part, f"there is no fault {name!r} here; there are {', '.join(known)}")
    kind = _KINDS[name]
    if match[2] is not None and not kind.parameter:
        raise _bad(part, f"{name} takes no parameter")
    word = match[2] or kind.default
    if word.isalpha() and word not in kind.words:
        raise _bad(part, f"{name} takes {kind.takes}, not {word!r}")
    parameter = None if word in ("", "none") else word if word.isalpha() else float(word)
    return Fault(name, float(match[3]), parameter)


def _bad(found: str, why: str) -> ConfigError:
    return ConfigError(f"faults {found!r}: {why}", next_step="write, for example, 429@0.1,hang@0.02,429:30@0.05")


def fault_help(known: Collection[str] = tuple(_KINDS)) -> str:
    """One line for each fault."""
    lines = []
    for name in known:
        kind = _KINDS[name]
        note = f" [:{kind.takes}; default {kind.default}]" if kind.parameter else ""
        lines.append(f"  {name:<13} {kind.meaning}{note}")
    return "\n".join(lines)


class FaultDraw:
    """Decides which fault a request meets. May be used by many threads at once."""

    def __init__(self, faults: tuple[Fault, ...] = (), seed: int = 0) -> None:
        self._faults = faults
        self._seed = seed
        self._times: Counter[bytes] = Counter()
        self._lock = threading.Lock()

    def draw(self, body: bytes) -> tuple[Fault | None, Fault | None]:
        """What goes wrong on the way, and what in the judge, with this coming of a request."""
        if not self._faults:
            return None, None
        content = hashlib.sha256(body).digest()
        with self._lock:
            self._times[content] += 1
            times = self._times[content]
        digest = hashlib.sha256(f"{self._seed} {times} ".encode() + content).digest()
        return self._pick(ON_THE_WAY, digest[:8]), self._pick(OF_THE_JUDGE, digest[8:16])

    def _pick(self, group: Mapping[str, FaultKind], bits: bytes) -> Fault | None:
        left = int.from_bytes(bits) / 2**64
        for fault in self._faults:
            if fault.name in group:
                left -= fault.probability
                if left < 0:
                    return fault
        return None


def spoil(completion: dict[str, Any], fault: Fault) -> bytes:
    """The body of a chat completion after a fault of its form; faults of the transport leave it whole."""
    choices = completion["choices"]
    match fault.name:
        case "html":
            return _HTML
        case "empty":
            return b""
        case "wrong_schema":
            completion = {"result": {"text": choices[0]["message"]["content"] if choices else ""}}
        case "wrong_count":
            count = round(fault.number)
            completion = completion | {"choices": (choices + choices[-1:] * count)[:count]}
        case "duplicate":
            completion = completion | {"choices": [_doubled(choice) for choice in choices for _ in range(2)]}
    body = json.dumps(completion).encode()
    return body[: len(body) // 2] if fault.name == "truncate" else body


def _doubled(choice: dict[str, Any]) -> dict[str, Any]:
    """The choice with each key of its text twice, where the text is a JSON object."""
    text = choice["message"]["content"]
    if text.startswith('{"') and text.endswith("}"):
        text = f"{text[:-1]}, {text[1:]}"
    return choice | {"message": choice["message"] | {"content": text}}
