"""What can go wrong on the way to an endpoint, sorted by what helps: try again, leave the item, stop the run."""

from __future__ import annotations

import email.utils
import math
import time

import httpx2
import openai

from prosetting.core.text import printable
from prosetting.errors import TeacherReplyError, TeacherUnavailable
from prosetting.teachers.endpoint import Endpoint

_TRY_AGAIN = (408, 409, 425, 429)
_NO_CREDIT = "insufficient_quota"  # OpenAI sends it with 429


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
    """The endpoint will not take this request, now or later. `param` is the parameter it names, if any."""

    def __init__(self, what: str, *, param: str = "") -> None:
        super().__init__(what)
        self.param = param

    def blames(self, name: str) -> bool:
        """Whether the refusal is about this request parameter."""
        quoted = any(f"{quote}{name}{quote}" in str(self) for quote in "'\"`")
        return quoted or self.param.startswith(name) or (name == "response_format" and name in str(self))


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


def failure_of(error: Exception, endpoint: Endpoint) -> Exception:
    """What an error of the client or its transport comes to: PassingFailure, RequestRefused or TeacherUnavailable.

    The key is in none of them."""
    if isinstance(error, openai.APIStatusError):
        return _of_status(error, endpoint)
    # The cause that the transport knows is the innermost: its mapping calls a broken connection a time-out.
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    refused = isinstance(cause, ConnectionRefusedError) or isinstance(error.__cause__, httpx2.ConnectError)
    if isinstance(cause, TimeoutError):
        return PassingFailure("does not answer in time")
    return PassingFailure(f"cannot be reached ({type(cause).__name__})", refused=refused)


def _of_status(error: openai.APIStatusError, endpoint: Endpoint) -> Exception:
    status, said = error.status_code, _said(error, endpoint)
    if 300 <= status < 400:
        return _redirected(error, endpoint)
    if status in (401, 403):
        return unavailable(endpoint, f"refuses the key ({status}): {said}", f"set {endpoint.role.key}")
    if status == 402 or error.code == _NO_CREDIT:
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
        wait_s = _retry_after_s(error.response.headers)
        return PassingFailure(f"answers {status}: {said}", outage=status >= 500, retry_after_s=wait_s)
    param = error.param if isinstance(error.param, str) else ""
    return RequestRefused(f"the request was refused ({status}): {said}", param=param)


def _redirected(error: openai.APIStatusError, endpoint: Endpoint) -> Exception:
    """No redirect is followed: it would carry the key, and what is asked, to wherever the endpoint says."""
    target, _, _ = error.response.headers.get("location", "").partition("?")
    shown = printable(" ".join(endpoint.scrubbed(target).split()))[:200] or "nowhere"
    role = endpoint.role
    return unavailable(
        endpoint,
        f"redirects to {shown} ({error.status_code}), which is not followed",
        f"if you trust that address, set {role.address} to where the API is there (often http:// should be https://)",
    )


def _said(error: openai.APIStatusError, endpoint: Endpoint) -> str:
    """The endpoint's own words, shortened; some repeat the key."""
    return " ".join(endpoint.scrubbed(error.message).split())[:200]


def _retry_after_s(headers: httpx2.Headers) -> float:
    """Seconds that Retry-After asks for, as a number or a date (RFC 9110); 0 where it is absent or odd."""
    value = headers.get("retry-after", "").strip()
    try:
        wait_s = float(value)
    except ValueError:
        try:
            wait_s = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return max(0.0, wait_s) if math.isfinite(wait_s) else 0.0
