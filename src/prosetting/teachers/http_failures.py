"""What can go wrong on the way to an endpoint, sorted by what helps: try again, leave the item, stop the run."""

from __future__ import annotations

import email.utils
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import aiohttp

from prosetting.core.text import printable
from prosetting.errors import TeacherReplyError, TeacherUnavailable
from prosetting.teachers.endpoint import Endpoint

_TRY_AGAIN = (408, 409, 425, 429)
_NO_CREDIT = "insufficient_quota"  # OpenAI sends it with 429


@dataclass(frozen=True)
class ErrorReply:
    """What came back with another status than 2xx."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", errors="replace")

    def field(self, name: str) -> str:
        """A field of the error object that OpenAI's API describes, also where a server leaves out the object around it;
        empty where there is none or it is no text."""
        value = self._fields.get(name)
        return value if isinstance(value, str) else ""

    @cached_property
    def _fields(self) -> Mapping[str, Any]:
        try:
            said = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        if isinstance(said, dict) and isinstance(said.get("error"), dict):
            said = said["error"]
        return said if isinstance(said, dict) else {}


class PassingFailure(Exception):
    """A failure that may be gone at the next try.

    `outage`: no sign of life, or a broken one. `refused`: nothing listens at the address.
    """

    def __init__(self, what: str, *, outage: bool = True, refused: bool = False, retry_after_s: float = 0.0) -> None:
        super().__init__(what)
        self.outage = outage
        self.refused = refused
        self.retry_after_s = retry_after_s


class RequestRefused(TeacherReplyError):
    """The endpoint will not take this request, now or later. `reply` is all that it said about it."""

    def __init__(self, what: str, reply: ErrorReply) -> None:
        super().__init__(what)
        self._reply = reply

    def blames(self, name: str) -> bool:
        """Whether the refusal is about this request parameter."""
        text, param = self._reply.text, self._reply.field("param")
        quoted = any(f"{quote}{name}{quote}" in text for quote in "'\"`")
        return quoted or param.startswith(name) or (name == "response_format" and name in text)


class UnreadableReply(TeacherReplyError):
    """A reply that was not read to its end, or not at all."""


class NothingThere(TeacherUnavailable):
    """404 or 405: no such path, or no such model."""


def unavailable(endpoint: Endpoint, what: str, next_step: str) -> TeacherUnavailable:
    return TeacherUnavailable(f"the {endpoint.role.title} at {endpoint.base_url} {what}", next_step=next_step)


def proxy_hint(endpoint: Endpoint) -> str:
    """For the next step where an endpoint cannot be reached; empty unless the environment names a proxy for it."""
    variable = endpoint.ignored_proxy
    return f"; {variable} is set and not used: HTTP_USE_ENV_PROXIES=true goes through that proxy" if variable else ""


def failure_of(error: Exception) -> PassingFailure:
    """What an error of the transport comes to. Nothing of the request is in it."""
    if isinstance(error, TimeoutError):
        return PassingFailure("does not answer in time")
    refused = isinstance(error, aiohttp.ClientConnectorError | ConnectionRefusedError)
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return PassingFailure(f"cannot be reached ({type(cause).__name__})", refused=refused)


def failure_of_status(reply: ErrorReply, endpoint: Endpoint) -> Exception:
    """What an answer other than 2xx comes to: PassingFailure, RequestRefused or TeacherUnavailable.

    The key is in none of them."""
    status, said = reply.status, _said(reply, endpoint)
    if 300 <= status < 400:
        return _redirected(reply, endpoint)
    if status in (401, 403):
        return unavailable(endpoint, f"refuses the key ({status}): {said}", f"set {endpoint.role.key}")
    if status == 402 or reply.field("code") == _NO_CREDIT:
        return unavailable(
            endpoint, f"has no credit left ({status}): {said}", "add credit there, then run the same command again"
        )
    if status in (404, 405):
        role, what = endpoint.role, f"has no model {endpoint.model!r}, or no API ({status}): {said}"
        return NothingThere(
            f"the {role.title} at {endpoint.base_url} {what}",
            next_step=f"check {role.model}, and that {role.address} ends as the API's does (/v1)",
        )
    if status in _TRY_AGAIN or status >= 500:
        wait_s = _retry_after_s(reply.headers)
        return PassingFailure(f"answers {status}: {said}", outage=status >= 500, retry_after_s=wait_s)
    return RequestRefused(f"the request was refused ({status}): {said}", reply)


def _redirected(reply: ErrorReply, endpoint: Endpoint) -> Exception:
    """No redirect is followed: it would carry the key, and what is asked, to wherever the endpoint says."""
    target, _, _ = reply.headers.get("Location", "").partition("?")
    shown = printable(" ".join(endpoint.scrubbed(target).split()))[:200] or "nowhere"
    role = endpoint.role
    return unavailable(
        endpoint,
        f"redirects to {shown} ({reply.status}), which is not followed",
        f"if you trust that address, set {role.address} to where the API is there (often http:// should be https://)",
    )


def _said(reply: ErrorReply, endpoint: Endpoint) -> str:
    """The endpoint's own words, shortened; some repeat the key."""
    words = reply.field("message") or reply.text
    return printable(" ".join(endpoint.scrubbed(words).split()))[:200] or "without a word"


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds that Retry-After asks for, as a number or a date (RFC 9110); 0 where it is absent or odd."""
    value = headers.get("Retry-After", "").strip()
    try:
        wait_s = float(value)
    except ValueError:
        try:
            wait_s = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return max(0.0, wait_s) if math.isfinite(wait_s) else 0.0
