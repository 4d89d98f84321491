"""What can go wrong on the way to an endpoint, sorted by what helps: try again, leave the item, stop the run."""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import AsyncIterator

import httpx2
import openai

from prosetting.errors import TeacherReplyError, TeacherUnavailable
from prosetting.teachers.endpoint import Endpoint

MAX_BODY_BYTES = 4 * 2**20
_TRY_AGAIN = (408, 409, 425, 429)
_NO_CREDIT = "insufficient_quota"  # OpenAI sends it with 429


class PassingFailure(Exception):
    """A failure that may be gone at the next try. `refused`: nothing listens at the address."""

    def __init__(self, what: str, *, retry_after_s: float = 0.0, refused: bool = False) -> None:
        super().__init__(what)
        self.retry_after_s = retry_after_s
        self.refused = refused


class RequestRefused(TeacherReplyError):
    """The endpoint will not take this request, now or later. `param` is the parameter it names, if any."""

    def __init__(self, what: str, *, param: str = "") -> None:
        super().__init__(what)
        self.param = param

    def blames(self, name: str) -> bool:
        """Whether the refusal is about this request parameter."""
        quoted = any(f"{quote}{name}{quote}" in str(self) for quote in "'\"`")
        return quoted or self.param.startswith(name) or (name == "response_format" and name in str(self))


class NothingThere(TeacherUnavailable):
    """404 or 405: no such path, or no such model."""


def unavailable(endpoint: Endpoint, what: str, next_step: str) -> TeacherUnavailable:
    return TeacherUnavailable(f"the teacher at {endpoint.base_url} {what}", next_step=next_step)


def failure_of(error: openai.OpenAIError, endpoint: Endpoint) -> Exception:
    """What an error of the client comes to: PassingFailure, RequestRefused or TeacherUnavailable.

    The key is in none of them."""
    if isinstance(error, openai.APIStatusError):
        return _of_status(error, endpoint)
    if isinstance(error, openai.APITimeoutError):
        return PassingFailure("does not answer in time")
    cause = error.__cause__
    kind = type(cause or error).__name__
    return PassingFailure(f"cannot be reached ({kind})", refused=isinstance(cause, httpx2.ConnectError))


def _of_status(error: openai.APIStatusError, endpoint: Endpoint) -> Exception:
    status, said = error.status_code, _said(error, endpoint)
    if status in (401, 403):
        return unavailable(
            endpoint, f"refuses the key ({status}): {said}", "set TEACHER_API_KEY (TEACHER2_API_KEY for Teacher2)"
        )
    if status == 402 or error.code == _NO_CREDIT:
        return unavailable(
            endpoint, f"has no credit left ({status}): {said}", "add credit there, then run the same command again"
        )
    if status in (404, 405):
        what = f"the teacher at {endpoint.base_url} has no model {endpoint.model!r}, or no API ({status}): {said}"
        return NothingThere(
            what, next_step="check TEACHER_MODEL_NAME, and that TEACHER_BASE_URL ends as the API's does (/v1)"
        )
    if status in _TRY_AGAIN or status >= 500:
        wait_s = _retry_after_s(error.response.headers)
        return PassingFailure(f"answers {status}: {said}", retry_after_s=wait_s)
    param = error.param if isinstance(error.param, str) else ""
    return RequestRefused(f"the request was refused ({status}): {said}", param=param)


def _said(error: openai.APIStatusError, endpoint: Endpoint) -> str:
    """The endpoint's own words, shortened; some repeat the key."""
    text = error.message
    if endpoint.api_key:
        text = text.replace(endpoint.api_key, "…")
    return " ".join(text.split())[:200]


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


def capped_http_client(endpoint: Endpoint, connections: int, timeout_s: float) -> httpx2.AsyncClient:
    """The client's transport: bodies end at MAX_BODY_BYTES, and a proxy never stands before this machine."""
    return openai.DefaultAsyncHttpxClient(
        base_url=endpoint.base_url,
        timeout=timeout_s,
        limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [_cap_body]},
        trust_env=not endpoint.is_loopback,
    )


async def _cap_body(response: httpx2.Response) -> None:
    # A small compressed body can unfold to any size.
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise TeacherReplyError("the reply is compressed although none was asked for")
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _CappedStream(response.stream)


class _CappedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MAX_BODY_BYTES
        async for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                raise TeacherReplyError(f"the reply is longer than {MAX_BODY_BYTES} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
